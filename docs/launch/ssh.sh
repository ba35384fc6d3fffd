#!/usr/bin/env bash
# One run on several machines, started by ssh from any machine that may log in to all of them:
#
#   bash docs/launch/ssh.sh "node1 node2" 4 scripts/train_gan.py --config configs/gan/cifar10.yaml --output /shared/run
#
# 4 is the number of processes on each machine, one per GPU. The first machine must be known to the others by the name given
# here. All have this checkout, with its .venv, at the same path, and --output is a folder that they share. Variables of
# NCCL, gloo, Accelerate and mmgan are passed on, for example NCCL_SOCKET_IFNAME=eth1. Ctrl-C stops the run, which saves; the
# same command resumes it.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash $0 \"MACHINE MACHINE ...\" PROCESSES SCRIPT [OPTION ...]" >&2 && exit 2; }
cd "$(dirname "$0")/../.."
read -ra machines <<<"$1"
each=$2
shift 2
[ $((each * ${#machines[@]})) -gt 1 ] || { echo "error: for one process run the script itself" >&2 && exit 2; }
variables=$(env | grep -E '^(NCCL|GLOO|ACCELERATE|MMGAN|OMP)_' | while read -r one; do printf '%q ' "$one"; done || true)
columns=$(tput cols 2>/dev/null || echo 80)
keyboards=$(mktemp -d)
trap 'rm -r "$keyboards"' EXIT
started=() keys=()
for rank in "${!machines[@]}"; do
  launch=(.venv/bin/python -m accelerate.commands.launch --quiet --multi_gpu
    --num_machines "${#machines[@]}" --machine_rank "$rank" --num_processes "$((each * ${#machines[@]}))"
    --main_process_ip "${machines[0]}" --main_process_port "${PORT:-29500}" --rdzv_conf "timeout=${MMGAN_TIMEOUT:-600}"
    --mixed_precision no --dynamo_backend no)
  mkfifo "$keyboards/$rank"
  line="stty rows 24 columns $columns; cd $(printf '%q' "$PWD") && env $variables $(printf '%q ' "${launch[@]}" "$@")"
  ssh -tt "${machines[$rank]}" "$line" <"$keyboards/$rank" &
  started+=($!)
  exec {key}>"$keyboards/$rank"
  keys+=("$key")
done
trap '' PIPE # of a machine that is gone
trap 'for key in "${keys[@]}"; do printf "\003" >&"$key" 2>/dev/null || true; done' INT TERM # Ctrl-C, there
code=0
for one in "${started[@]}"; do
  until wait "$one"; do
    status=$?
    kill -0 "$one" 2>/dev/null || { code=$status && break; } # a signal ends the wait, and not the run
  done
done
exit "$code"
