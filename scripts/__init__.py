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


def main() -> None:
    """Run the command that the first argument names with the other arguments, or list the commands."""
    stems = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
    commands = {SHORT.get(stem, stem).replace("_", "-"): stem for stem in stems}
    known = {stem: name for name, stem in commands.items()}
    given = sys.argv[1] if len(sys.argv) > 1 else "--help"
    name = known.get(given, given)
    if name in commands:
        sys.argv[:2] = [f"mmgan {name}"]
        module = importlib.import_module(f"{__name__}.{commands[name]}")
        from mmgan.engine import cli  # noqa: PLC0415  # after the command, which first says what Ctrl-C does meanwhile

        cli.run(module.main)
    elif name == "--version":
        print(f"mmgan {mmgan.__version__}")
    elif name in ("-h", "--help", "help"):
        print("usage: mmgan COMMAND ...; mmgan COMMAND --help lists a command's options\n")
        for name, stem in sorted(commands.items()):
            text = Path(__file__).with_name(f"{stem}.py").read_text()
            print(f"  {name:13} {(ast.get_docstring(ast.parse(text)) or '').partition(chr(10))[0]}")
    else:
        print(f"error: mmgan has no command {given}; mmgan --help lists them", file=sys.stderr)
        sys.exit(2)
