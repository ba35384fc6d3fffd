#!/usr/bin/env bash
# One run on several machines of a Slurm cluster:
#
#   sbatch docs/launch/slurm.sh scripts/train_gan.py --config configs/gan/cifar10.yaml --output /shared/run
#
# One task per machine, which starts a process for each of its GPUs. The run saves a minute before its time limit, and when
# it is cancelled; the same command, or scontrol requeue JOB, resumes it.
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-gpu=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: sbatch docs/launch/slurm.sh SCRIPT [OPTION ...]" >&2 && exit 2; }
cd "${SLURM_SUBMIT_DIR:-.}"
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
export PROCESSES=$((SLURM_NNODES * ${SLURM_GPUS_ON_NODE:-1})) FIRST=$first PORT=$((20000 + SLURM_JOB_ID % 20000))
[ "$PROCESSES" -gt 1 ] || { echo "error: for one process run the script itself" >&2 && exit 2; }
# shellcheck disable=SC2016  # what each machine's own variables say
exec srun bash -c 'exec .venv/bin/python -m accelerate.commands.launch --quiet --multi_gpu \
  --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" --num_processes "$PROCESSES" \
  --main_process_ip "$FIRST" --main_process_port "$PORT" --rdzv_conf "timeout=${MMGAN_TIMEOUT:-600}" --mixed_precision no --dynamo_backend no "$@"' launch "$@"
