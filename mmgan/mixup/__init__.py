"""Manifold Mixup as one operation. Imports torch alone, so that it can be lifted into other projects."""

from .classifier import draw_pairs
from .discriminator import DiscriminatorMixup, gan_terms
from .named import Mixable
from .plan import Plan
from .staged import Staged

__all__ = ["DiscriminatorMixup", "Mixable", "Plan", "Staged", "draw_pairs", "gan_terms"]
