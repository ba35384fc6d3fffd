#!/usr/bin/env bash
# From a fresh clone to generated digits: install, then train configs/gan/digits.yaml (a few minutes on two cores).
# Run again, it goes on where it was stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh ""
run=${1:-runs/digits}
.venv/bin/accelerate launch --quiet --num_cpu_threads_per_process "$(.venv/bin/python -c "import os; print(os.cpu_count())")" \
  --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
  scripts/train_gan.py --config configs/gan/digits.yaml --output "$run"
.venv/bin/python scripts/sample_gan.py "$run"
echo "look at $run/samples/grid.png, $run/samples/interpolation.png and $run/plots/losses.png"
