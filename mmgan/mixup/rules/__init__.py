"""Rules: how the plans of a batch are drawn. A rule is a class with its options, one kind per file.

Files added to this folder are imported with `mmgan.mixup`, so their rules are known by name.
"""

from .adamixup import AdaMixUp
from .classifier import ClassifierMixup, ClassifierRule
from .cutmix import ClassifierCutMix, DiscriminatorCutMix
from .discriminator import DiscriminatorMixup, DiscriminatorRule
from .noisy import ClassifierNoisyMixup, DiscriminatorNoisyMixup

__all__ = [
    "AdaMixUp",
    "ClassifierCutMix",
    "ClassifierMixup",
    "ClassifierNoisyMixup",
    "ClassifierRule",
    "DiscriminatorCutMix",
    "DiscriminatorMixup",
    "DiscriminatorNoisyMixup",
    "DiscriminatorRule",
]
