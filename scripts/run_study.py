"""Run one of the paper's small analyses: its numbers, its picture, and what they say about the paper's claims.

    python scripts/run_study.py spirals

Writes OUTPUT/NAME.json and OUTPUT/NAME.png. Repeating the command only redraws the picture.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from classifiers.studies._protocol import study
from mmgan.engine import cli


def main() -> None:
    """Parse and call."""
    cli.call(study)


if __name__ == "__main__":
    cli.run(main)
