#!/usr/bin/env bash
# docs/results/adversarial.md: the arms none, input and manifold that scripts/compare_cls.sh trained, and adversarial
# training beside them, under attack. Two runs side by side, one thread each. Run again, it resumes where it was stopped.
#
#   bash scripts/attack_cls.sh [FOLDER [SEEDS [IMAGES]]]      the report: FOLDER-attacks.md
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
runs=${1:-runs/fashion-cls}
read -ra seeds <<<"${2:-0 1 2}"
images=${3:-1000} # attacked, of the 10,000 test images
for seed in "${seeds[@]}"; do
  echo "--output $runs/adversarial/seed-$seed --seed $seed --data.subset_seed $seed"
done | xargs -P 2 -L 1 .venv/bin/python scripts/train_cls.py --config configs/cls/fashion_mnist_adversarial.yaml
for i in "${!seeds[@]}"; do
  other=${seeds[(i + 1) % ${#seeds[@]}]} # the transferred attack is made on the baseline of the next seed
  for arm in none input manifold adversarial; do
    run=$runs/$arm/seed-${seeds[i]}
    source=$([ ${#seeds[@]} -gt 1 ] && echo "--transfer $runs/none/seed-$other" || true)
    [ -e "$run/attack.json" ] || echo "$run --num_images $images --eps [0.01,0.025,0.05,0.1] $source"
    [ -e "$run/attack-normalised.json" ] || echo "$run --num_images $images --space normalised --eps [0.03,0.1,0.3] --restarts 1"
  done
done | xargs -r -P 2 -L 1 .venv/bin/python scripts/attack_cls.py
.venv/bin/python scripts/report_attacks.py "$runs" "$runs-attacks"
