"""`python -m mmgan` is the command `mmgan`."""

import importlib

if __name__ == "__main__":
    importlib.import_module("mmgan.commands").main()
