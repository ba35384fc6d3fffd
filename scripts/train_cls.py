"""Train a classifier, with mixup in its input or hidden layers.

    accelerate launch scripts/train_cls.py --config configs/cls/digits.yaml --output runs/digits-classifier

The same command resumes an interrupted run; --mixup null trains the baseline, --mixup.layers '[0]' Input Mixup.
A section `ssl` learns from images without labels too (configs/ssl).
"""

from classifiers.adversarial import AdversarialTraining
from classifiers.config import ClassifierConfig
from classifiers.semisupervised import SemiSupervised
from classifiers.train import train
from mmgan.engine import cli
from mmgan.mixup import ClassifierMixup


def main() -> None:
    """Parse, train."""
    nullable = {"mixup": ClassifierMixup, "adversarial": AdversarialTraining, "ssl": SemiSupervised}
    arguments = cli.parse(ClassifierConfig, __doc__ or "", nullable=nullable)
    train(arguments.config, arguments.output, arguments.yaml)


if __name__ == "__main__":
    cli.run(main)
