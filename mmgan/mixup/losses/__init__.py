"""GAN losses: what a discriminator minimises over its output rows, and a generator over its fakes.

Files added to this folder are imported with `mmgan.mixup`, so their losses are known by name.
"""

from .relativistic import Relativistic
from .single import JS, Hinge, LeastSquares, Loss, SingleLogit, Wasserstein

__all__ = ["JS", "Hinge", "LeastSquares", "Loss", "Relativistic", "SingleLogit", "Wasserstein"]
