# Make the virtual environment .venv, if there is none, and install what this project needs into it.
# Sourced by quickstart.sh and test.sh with the extras to install: "" or "[test]".
python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: $("$python" --version) is too old; set PYTHON to a Python 3.11 or newer" >&2; exit 2; }
  "$python" -m venv .venv
fi
stamp=.venv/installed
want="$1 $(cksum <pyproject.toml)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  echo "installing into .venv (the first time takes a few minutes)"
  .venv/bin/python -m pip install --quiet --editable ".$1"
  # The reference for attacks pins a 2021 version of requests, which no current httpx accepts, so no installer takes both.
  [ "$1" != "[test]" ] || .venv/bin/python -m pip install --quiet --no-deps "torchattacks>=3.5"
  echo "$want" >"$stamp"
fi
