"""Rules: how the plans of a batch are drawn. A rule is a class with options of its own, one kind a file.

A file added to this folder is imported with `mmgan.mixup`, so that its rules are known by name.
"""

from .classifier import ClassifierMixup, ClassifierRule
from .cutmix import ClassifierCutMix, DiscriminatorCutMix
from .discriminator import DiscriminatorMixup, DiscriminatorRule

__all__ = [
    "ClassifierCutMix",
    "ClassifierMixup",
    "ClassifierRule",
    "DiscriminatorCutMix",
    "DiscriminatorMixup",
    "DiscriminatorRule",
]
