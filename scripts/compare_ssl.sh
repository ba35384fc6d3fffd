#!/usr/bin/env bash
# The arms of docs/results/ssl-200.md and ssl-1000.md: eight ways to learn from 200 or 1,000 labels of Fashion-MNIST, trained,
# evaluated on test images by the checkpoint that validation chose, and compared. Two runs side by side, one thread each.
# Run again, it resumes where it was stopped.
#
#   bash scripts/compare_ssl.sh [FOLDER [SEEDS [LABELS]]]      the reports: FOLDER-LABELS-report.md
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
runs=${1:-runs/fashion-ssl}
seeds=${2:-"0 1 2"}
sizes=${3:-"200 1000"}
arms=(supervised pseudo-label pi mean-teacher "vat --ssl.eps 1" "vat-em --ssl.eps 1" ssl-input ssl-manifold)
for seed in $seeds; do
  for labels in $sizes; do
    for arm in "${arms[@]}"; do
      name=${arm%% *}
      echo "--config configs/ssl/fashion_mnist_$labels.yaml --config configs/ssl/arms/$name.yaml ${arm#"$name"}" \
        "--output $runs-$labels/$name/seed-$seed --seed $seed --data.subset_seed $seed"
    done
  done
done | xargs -P 2 -L 1 .venv/bin/python scripts/train_cls.py
for labels in $sizes; do
  for run in "$runs-$labels"/*/seed-*; do
    [ -e "$run/evaluation.json" ] || echo "$run --deformations false"
  done
done | xargs -r -P 2 -L 1 .venv/bin/python scripts/evaluate_cls.py
for labels in $sizes; do
  .venv/bin/python scripts/report_cls.py "$runs-$labels" "$runs-$labels-report" --baseline supervised
done
