"""Manifold Mixup as one operation. Imports torch alone, so that it can be lifted into other projects."""

from .classifier import ClassifierMixup
from .discriminator import DiscriminatorMixup, gan_terms
from .named import Mixable
from .plan import Plan
from .staged import Staged

__all__ = ["ClassifierMixup", "DiscriminatorMixup", "Mixable", "Plan", "Staged", "gan_terms"]
