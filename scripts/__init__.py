"""The commands: `mmgan VERB ...` runs the file of that name here, like `python scripts/VERB.py ...` in a checkout.

An installed package has this folder as `mmgan.commands`. For several processes use
`accelerate launch -m mmgan.commands.train_gan ...`.
"""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import mmgan

SHORT = {"sample_gan": "sample", "run_study": "study"}
"""Commands that are not named after their files."""


def commands() -> dict[str, Path]:
    """The file of every command, by its name."""
    files = sorted(Path(__file__).parent.glob("[!_]*.py"))
    return {SHORT.get(file.stem, file.stem).replace("_", "-"): file for file in files}


def main() -> None:
    """Run the command that the first argument names with the other arguments, or list the commands."""
    files = commands()
    given = sys.argv[1] if len(sys.argv) > 1 else "--help"
    name = next((name for name, file in files.items() if file.stem == given), given)
    if name in files:
        sys.argv[:2] = [f"mmgan {name}"]
        module = importlib.import_module(f"{__name__}.{files[name].stem}")
        from mmgan.engine import cli  # noqa: PLC0415  # after the command, which first says what Ctrl-C does meanwhile

        cli.run(module.main)
    elif name == "--version":
        print(f"mmgan {mmgan.__version__}")
    elif name in ("-h", "--help", "help"):
        print("usage: mmgan COMMAND ...; mmgan COMMAND --help lists a command's options\n")
        for name, file in sorted(files.items()):
            print(f"  {name:13} {(ast.get_docstring(ast.parse(file.read_text())) or '').partition(chr(10))[0]}")
    else:
        print(f"error: mmgan has no command {given}; mmgan --help lists them", file=sys.stderr)
        sys.exit(2)
