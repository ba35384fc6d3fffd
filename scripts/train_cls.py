"""Train a classifier, with mixup in its input or hidden layers.

    accelerate launch scripts/train_cls.py --config configs/cls/digits.yaml --output runs/digits-classifier

The same command resumes an interrupted run; --mixup null trains the baseline, --mixup.layers '[0]' Input Mixup.
With a section `ssl` it also learns from unlabelled images (configs/ssl).
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from classifiers.config import ClassifierConfig
from classifiers.training import train
from mmgan.engine import cli


def main() -> None:
    """Parse, train."""
    arguments = cli.parse(ClassifierConfig, __doc__ or "")
    train(arguments.config, arguments.output)


if __name__ == "__main__":
    cli.run(main)
