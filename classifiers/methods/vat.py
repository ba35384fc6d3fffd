"""Virtual adversarial training (Miyato et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from classifiers.attacks.gradient import unit
from classifiers.methods import Batch, SemiSupervised
from classifiers.supervised import Forward
from mmgan.engine.modes import single_precision

if TYPE_CHECKING:
    from classifiers.config import ClassifierConfig


@dataclass(frozen=True, kw_only=True)
class VAT(SemiSupervised):
    """Virtual adversarial training (Miyato et al. 2018)."""

    eps: float = 6.0
    """Euclidean norm of the perturbation, in the units of layer 0; Oliver et al. use 6 for whitened CIFAR-10."""
    xi: float = 1e-3
    """Norm of the step used to find it. Oliver et al.'s 1e-6 is close to the rounding of single precision: on 8x8
    digits the direction had a cosine of 0.68 with the exact one; at 1e-3 it was above 0.999."""
    iterations: int = 1
    """Power iterations that find the direction."""
    entropy: float = 0.0
    """Weight of the predictions' entropy, without a ramp: entropy minimisation (VAT-EM); 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("eps", "xi", "iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"ssl.{name} must be positive, not {getattr(self, name)}")
        if self.iterations > 1000:
            raise ValueError(
                f"ssl.iterations must be at most 1000, not {self.iterations}: each is a pass in every step"
            )
        if not self.entropy >= 0:
            raise ValueError(f"ssl.entropy must be 0 or more, not {self.entropy}")

    def check(self, config: ClassifierConfig) -> None:
        """Raise ValueError for randomness or rounding that would drown the small differences of predictions."""
        if config.mixed_precision or config.network.dropout or config.fortified:
            raise ValueError(
                "ssl VAT differentiates a difference of size xi: set mixed_precision null, network.dropout 0 and "
                "fortified null"
            )

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of `vat`, and the entropy if it has a weight; running statistics see no perturbed images."""
        with single_precision():  # TF32 would round xi away
            logits = batch.f(batch.x)
            with batch.frozen():
                loss = vat(batch.f, batch.x, logits, batch.noise("direction"), self.eps, self.xi, self.iterations)
        terms = {"unsupervised": loss}
        return terms | ({"entropy": self.entropy * entropy(logits)} if self.entropy else {})


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(p || q), a mean over rows: p is the softmax of the logits `target`, q that of `logits`, both [B, classes]."""
    return F.kl_div(logits.log_softmax(1), target.log_softmax(1), reduction="batchmean", log_target=True)


def direction(f: Forward, x: Tensor, logits: Tensor, d: Tensor, xi: float, iterations: int) -> Tensor:
    """Unit vectors in which f's predictions change most, by power iterations from `d`, shaped like `x`.

    Algorithm 1 of Miyato et al.: d <- grad_r KL(f(x) || f(x + r)) at r = xi d. `logits` are f(x).
    """
    for _ in range(iterations):
        r = (xi * unit(d)).requires_grad_()
        (d,) = torch.autograd.grad(divergence(logits, f(x + r)), r)
    return unit(d)


def vat(f: Forward, x: Tensor, logits: Tensor, d: Tensor, eps: float, xi: float, iterations: int) -> Tensor:
    """KL(f(x) || f(x + eps r)), with no gradient through f(x), as in Miyato et al.; `logits` are f(x), `d` ~ N(0, 1).

    Oliver et al. use KL(f(x + eps r) || f(x)), and the entropy of f(x + eps r) where we use the entropy of f(x).
    """
    logits = logits.detach()
    return divergence(logits, f(x + eps * direction(f, x, logits, d, xi, iterations)))


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax, in nats, a mean over rows (Grandvalet & Bengio 2005)."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()
