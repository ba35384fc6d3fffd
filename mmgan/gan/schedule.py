"""What changes from step to step: the learning rate and, with R3GAN's schedule, other options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mmgan.gan.config import GANConfig


@dataclass(frozen=True)
class BurnIn:
    """R3GAN's schedule (Huang et al. 2024, arXiv:2501.05441): from the run's options to these along half a cosine.

    The half-life of `ema` grows along the same curve, from 0, so an average loaded by `init_from` is discarded. The
    defaults are the authors' for CIFAR-10.

    Examples:
        >>> from mmgan import BurnIn, GANConfig
        >>> config = GANConfig(burn_in=BurnIn(images=640), lr_schedule="constant", r1_gamma=0.05)
        >>> config.burn_in.gamma  # the final value of r1_gamma
        0.005
    """

    images: int = 20_000_000
    """Real images (generator steps times batch size) after which nothing changes any more."""
    lr: float = 5e-5
    """Final learning rate."""
    gamma: float = 0.005
    """Final gamma of R1 and R2, for those that are not 0."""
    beta2: float = 0.99
    """Final value of Adam's second decay rate, in [0, 1)."""

    def __post_init__(self) -> None:
        for name in ("images", "lr", "gamma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"burn_in.{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"burn_in.beta2 must be in [0, 1), not {self.beta2}")


class Rates(NamedTuple):
    """The values in one step."""

    lr: float
    betas: tuple[float, float]
    r1_gamma: float
    r2_gamma: float
    ema: float | None


def rates(config: GANConfig, step: int) -> Rates:
    """The values in generator step `step`, counted from 1, and in its discriminator steps.

    Examples:
        >>> from mmgan.gan.config import GANConfig
        >>> config = GANConfig(steps=4, lr=0.4, lr_schedule="linear")
        >>> [round(rates(config, step).lr, 3) for step in (1, 2, 3, 4)]
        [0.4, 0.3, 0.2, 0.1]
    """
    last, lr = config.burn_in, config.lr
    if last is None:
        lr = lr * (1 - (step - 1) / config.steps) if config.lr_schedule == "linear" else lr
        return Rates(lr, config.betas, config.r1_gamma, config.r2_gamma, config.ema)
    seen = min((step - 1) * config.batch_size / last.images, 1)
    done = (1 - math.cos(math.pi * seen)) / 2

    def between(first: float, then: float) -> float:
        return first + done * (then - first)

    r1, r2 = (between(gamma, last.gamma) if gamma else 0.0 for gamma in (config.r1_gamma, config.r2_gamma))
    ema = config.ema  # 2^(-1 / half-life in steps); the half-life is multiplied by `done`
    if ema is not None:
        ema = ema ** (1 / done) if done else 0.0
    return Rates(between(lr, last.lr), (config.betas[0], between(config.betas[1], last.beta2)), r1, r2, ema)
