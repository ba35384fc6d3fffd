#!/usr/bin/env bash
# The whole check: install what is missing, then lint, types and tests. As `test.sh fast` without the slow tests; further
# arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh "[test]"
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
if [ "${1:-}" = fast ]; then
  shift
  set -- -m "not slow" "$@"
fi
.venv/bin/pytest "$@"
