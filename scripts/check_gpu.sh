#!/usr/bin/env bash
# What only a GPU can show, in at most nine minutes after the install: half precision, compiled networks, memory, a resume
# to the bit, two processes where there are two GPUs, the benchmark. Writes one page, gpu.md or --output FILE. On a machine
# without a GPU it runs small networks on the CPU, which shows that everything it needs is there.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
. scripts/install.sh ""
root=$PWD
cd "$here"
exec "$root/.venv/bin/python" "$root/benchmarks/gpu.py" "$@"
