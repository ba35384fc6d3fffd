"""Score any images, or any generator, against real images, and estimate the noise of the score.

    python scripts/score.py samples.npz --real cifar10:test
    python scripts/score.py runs/digits --extractor Classifier --extractor.run runs/digits-classifier
    accelerate launch scripts/score.py runs/cifar10:best --protocol test-10k

    python scripts/score.py --list runs

A run's scores are kept in its scores.json. --help lists the kinds of images and generators; --list prints all scores in
some folders.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import sys

import classifiers.load  # noqa: F401  # a classifier can be the extractor
from mmgan.engine import cli
from mmgan.gan.score import score_and_print
from mmgan.scoring.ledger import tables


def main() -> None:
    """Score or, after --list, print the records of folders."""
    if "--list" in sys.argv[1:]:
        sys.argv.remove("--list")
        cli.call(tables)
        return
    cli.call(score_and_print)


if __name__ == "__main__":
    cli.run(main)
