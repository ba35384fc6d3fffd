#!/usr/bin/env bash
# Checks what only a GPU can show, in at most nine minutes after installation: half precision, compiled networks, memory,
# a bit-exact resume, two processes if there are two GPUs, the benchmark. Writes one page, gpu.md or --output FILE. On a
# machine without a GPU it runs small networks on the CPU, which shows that everything it needs is there.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
. scripts/install.sh ""
root=$PWD
cd "$here"
exec "$root/.venv/bin/python" "$root/benchmarks/gpu.py" "$@"
