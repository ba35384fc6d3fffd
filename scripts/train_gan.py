"""Train a GAN with mixup in its discriminator.

    accelerate launch scripts/train_gan.py --config configs/gan/digits.yaml --output runs/digits

The same command resumes an interrupted run; --mixup null trains the baseline.
"""

from pathlib import Path

from extractor import extractor

from mmgan.engine import cli
from mmgan.gan.config import GANConfig, ScoreConfig
from mmgan.gan.train import train
from mmgan.mixup import DiscriminatorMixup


def main() -> None:
    """Parse, train."""
    arguments = cli.parse(GANConfig, __doc__ or "", nullable={"mixup": DiscriminatorMixup, "score": ScoreConfig})
    score = arguments.config.score
    by = extractor(score.extractor, Path(score.weights) if score.weights else None) if score else None
    train(arguments.config, arguments.output, arguments.yaml, by)


if __name__ == "__main__":
    cli.run(main)
