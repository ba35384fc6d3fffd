"""GAN losses: what a discriminator minimises on the rows that come out of it, and a generator on its fakes.

A file added to this folder is imported with `mmgan.mixup`, so that its losses are known by name.
"""

from .relativistic import Relativistic
from .single import JS, Hinge, LeastSquares, Loss, SingleLogit, Wasserstein

__all__ = ["JS", "Hinge", "LeastSquares", "Loss", "Relativistic", "SingleLogit", "Wasserstein"]
