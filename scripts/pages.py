"""Regenerate the pages of results from the records next to them.

python scripts/pages.py docs/results
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from pathlib import Path

from mmgan.engine import cli
from mmgan.experiments.pages import remake


def pages(folder: Path) -> None:
    """Regenerate the pages of results from the records next to them.

    Args:
        folder: folder in which NAME.md is a page and NAME/ holds its records
    """
    for page in remake(folder):
        print(page)


def main() -> None:
    """Parse and call."""
    cli.call(pages)


if __name__ == "__main__":
    cli.run(main)
