r"""Score a trained GAN: Inception Score, FID, KID, precision and recall, by a stated protocol.

    accelerate launch scripts/score_gan.py runs/cifar10 --protocol train-50k
    python scripts/score_gan.py runs/digits --extractor Classifier --extractor.run runs/digits-classifier \
      --metrics is,fid,kid

Prints a table and keeps the scores, labelled with the protocol, in RUN/scores.json.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import classifiers.load  # noqa: F401  # a classifier can be the extractor
from mmgan.engine import cli
from mmgan.gan.score import score


def main() -> None:
    """Parse and call."""
    cli.call(score)


if __name__ == "__main__":
    cli.run(main)
