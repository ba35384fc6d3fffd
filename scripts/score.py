"""Score any images, or any generator, against real images, and estimate the noise of the score.

    python scripts/score.py samples.npz --real cifar10:test
    python scripts/score.py runs/digits --real digits --extractor Classifier --extractor.run runs/digits-classifier

    python scripts/score.py --list runs

--help lists the kinds of images and generators; --list prints all scores in some folders.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import sys
from typing import Any

from accelerate import PartialState

import classifiers.load  # noqa: F401  # a classifier can be the extractor
import mmgan
from mmgan.engine import cli
from mmgan.gan.measure import summary
from mmgan.scoring import ExtractorConfig, Inception
from mmgan.scoring.ledger import tables


def score(
    fake: str,
    real: str | None = None,
    extractor: ExtractorConfig = Inception(),  # noqa: B008
    held_out: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score images, or those of a generator, against real ones, and say how much of the score is noise.

    Args:
        fake: what to score: RUN or RUN:CHECKPOINT, a data set as NAME or NAME:SPLIT, a folder or a zip of images, an
            .npy or .npz of uint8 images, a generator as TorchScript, or module:function, which maps (start, stop) to
            images start to stop - 1
        real: what to compare it with; null: the images that a run was trained on
        extractor: source of the features: Inception, Fidelity (any of torch-fidelity's networks), Torchvision
            (any of its classifiers), or Classifier (a run of mmgan train-cls)
        held_out: real images that the generator has not seen, to tell whether it has memorised `real`
        options: all other options are those of mmgan.score
    """
    return mmgan.score(fake, real, extractor, held_out=held_out, **options)


def main() -> None:
    """Print a record or, after --list, the records of folders."""
    if "--list" in sys.argv[1:]:
        sys.argv.remove("--list")
        cli.call(tables, folders="folders")
        return
    record = cli.call(score)
    PartialState().print(summary(record))


if __name__ == "__main__":
    cli.run(main)
