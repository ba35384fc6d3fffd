"""Call a function by name, as sweeps do: python -m mmgan.experiments.call package.module.f --lr 1."""

from __future__ import annotations

import sys
from importlib import import_module

from mmgan.engine import cli
from mmgan.errors import UserError


def main() -> None:
    """Import the function that the first argument names, and call it with the others."""
    module, _, name = sys.argv[1].rpartition(".")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"cannot import the function {sys.argv[1]} ({error})") from error
    function(**cli.arguments_of(function, sys.argv[2:], positional=False))


if __name__ == "__main__":
    cli.run(main)
