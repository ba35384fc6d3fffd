"""Train a GAN with mixup in its discriminator.

    accelerate launch scripts/train_gan.py --config configs/gan/digits.yaml --output runs/digits

The same command resumes an interrupted run; --mixup null trains the baseline.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import classifiers.load  # noqa: F401  # a classifier can be the extractor
from mmgan.engine import cli
from mmgan.gan.config import GANConfig
from mmgan.gan.train import train


def main() -> None:
    """Parse, train."""
    arguments = cli.parse(GANConfig, __doc__ or "")
    train(arguments.config, arguments.output)


if __name__ == "__main__":
    cli.run(main)
