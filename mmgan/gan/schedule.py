"""What changes from step to step: the learning rate and, with R3GAN's schedule, other options."""

from __future__ import annotations

import math
from typing import NamedTuple

from mmgan.gan.config import GANConfig


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
