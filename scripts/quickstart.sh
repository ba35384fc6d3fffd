#!/usr/bin/env bash
# From a fresh clone to generated and scored digits, in a few minutes on two cores: install, train the small classifier
# that scores, then the GAN of configs/gan/digits.yaml, score it, draw samples.
# Run it again to resume where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh ""
run=${1:-runs/digits}
launch=(.venv/bin/accelerate launch --quiet --num_cpu_threads_per_process "$(.venv/bin/python -c "import os; print(os.cpu_count())")"
  --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no)
"${launch[@]}" scripts/train_cls.py --config configs/cls/extractor/digits.yaml --output "$run-classifier"
"${launch[@]}" scripts/train_gan.py --config configs/gan/digits.yaml --output "$run" \
  --score.extractor Classifier --score.extractor.run "$run-classifier" --score.every 400 --score.num_samples 1500
.venv/bin/python scripts/sample_gan.py "$run"
echo "look at $run/samples/grid.png, $run/samples/interpolation.png, $run/plots/losses.png and $run/plots/scores.png"
