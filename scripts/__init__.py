"""The commands: `mmgan VERB ...` runs the file of that name here, as `python scripts/VERB.py ...` does in a checkout.

An installed package has this folder as `mmgan.commands`; for several processes,
`accelerate launch -m mmgan.commands.train_gan ...`.
"""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import mmgan

SHORT = {"sample_gan": "sample", "run_study": "study"}
"""Commands whose names differ from those of their files."""


def main() -> None:
    """Run the command named by the first argument with the other arguments, or list the commands."""
    files = {
        SHORT.get(file.stem, file.stem).replace("_", "-"): file
        for file in sorted(Path(__file__).parent.glob("[!_]*.py"))
    }
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in files:
        sys.argv[:2] = [f"mmgan {name}"]
        runpy.run_module(f"{__name__}.{files[name].stem}", run_name="__main__")
        return
    if name == "--version":
        print(f"mmgan {mmgan.__version__}")
        return
    if name not in ("-h", "--help"):
        print(f"error: mmgan has no command {name}; mmgan --help lists them", file=sys.stderr)
        sys.exit(2)
    print("usage: mmgan COMMAND ..., and for its options mmgan COMMAND --help\n")
    for name, file in sorted(files.items()):
        what = (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]
        print(f"  {name:13} {what}")
