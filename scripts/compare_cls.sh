#!/usr/bin/env bash
# The arms of docs/results/classifiers.md: seven regularisers on 10,000 images of Fashion-MNIST, trained, evaluated and
# compared. Two runs side by side, one thread each. Run again, it resumes where it was stopped.
#
#   bash scripts/compare_cls.sh [FOLDER [SEEDS]]      the report: FOLDER-report.md
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
runs=${1:-runs/fashion-cls}
seeds=${2:-"0 1 2"}
arms=(none input manifold all-layers blocked dropout "cutout --data.cutout 14")
for seed in $seeds; do
  for arm in "${arms[@]}"; do
    name=${arm%% *}
    echo "--config configs/cls/fashion_mnist.yaml --config configs/cls/arms/$name.yaml ${arm#"$name"}" \
      "--output $runs/$name/seed-$seed --seed $seed --data.subset_seed $seed"
  done
done | xargs -P 2 -L 1 .venv/bin/python scripts/train_cls.py
for arm in "${arms[@]}"; do
  for run in "$runs/${arm%% *}"/seed-*; do
    [ -e "$run/evaluation.json" ] || echo "$run"
  done
done | xargs -r -P 2 -L 1 .venv/bin/python scripts/evaluate_cls.py
.venv/bin/python scripts/report_cls.py "$runs" "$runs-report"
