"""Manifold Mixup as one operation. Imports torch alone, so that it can be lifted into other projects."""

from mmgan.mixup.classifier import draw_pairs
from mmgan.mixup.discriminator import DiscriminatorMixup
from mmgan.mixup.named import NamedLayers, mixable
from mmgan.mixup.plan import Plan
from mmgan.mixup.staged import Staged

__all__ = ["DiscriminatorMixup", "NamedLayers", "Plan", "Staged", "draw_pairs", "mixable"]
