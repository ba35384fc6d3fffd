"""Eq. 8-11 against a NumPy computation that knows the paper's cases and nothing of plans."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmgan.gan.losses import LOSSES
from mmgan.gan.objective import discriminator_terms, generator_loss, squared_gradient
from mmgan.mixup import DiscriminatorMixup, Plan, Staged

PRESETS = {
    "paper": DiscriminatorMixup(),
    "official-code": DiscriminatorMixup(
        alpha=0.2, lam="folded-beta", lam_per="pair", pairs=("real-fake",), target="fake"
    ),
    "official-code with fake-fake": DiscriminatorMixup(
        alpha=0.2, lam="folded-beta", pairs=("real-fake", "fake-fake"), share="each", target="fake", weight=2
    ),
    "zhang": DiscriminatorMixup(
        layers=(0,),
        lam_per="pair",
        pairs=("real-fake", "fake-real", "fake-fake", "real-real"),
        share="random",
        replace=True,
    ),
    "a layer for every pair": DiscriminatorMixup(layer_per="pair", lam_per="pair"),
    "a layer for every pair, replacing": DiscriminatorMixup(layer_per="pair", replace=True),
}


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


REAL = {"js": lambda d: softplus(-d), "hinge": lambda d: np.maximum(0, 1 - d), "wasserstein": lambda d: -d}
FAKE = {"js": softplus, "hinge": lambda d: np.maximum(0, 1 + d), "wasserstein": lambda d: d}


class TwoStages(Staged):
    """A discriminator small enough to be written again in NumPy: tanh(x A) B, summed."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh()), nn.Linear(4, 4, bias=False), _Sum())

    def numpy(self, x: np.ndarray, start: int, stop: int) -> np.ndarray:
        a, b = (p.detach().numpy().T for p in self.parameters())
        stages: list[Any] = [lambda h: np.tanh(h @ a), lambda h: h @ b, lambda h: h.sum(-1)]
        for stage in stages[start:stop]:
            x = stage(x)
        return x


class _Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1)


def by_hand(
    net: TwoStages, real: np.ndarray, fake: np.ndarray, plans: tuple[Plan, ...], mixup: DiscriminatorMixup, loss: str
) -> dict[str, float]:
    """Eq. 8-11 pair by pair, with the label of every pair read off Eq. 9's table."""
    rows = np.concatenate([real, fake])
    size, mixed = len(real), []
    for plan in plans:
        for left, right, lam in zip(plan.left, plan.right, plan.lam.expand(len(plan.left)), strict=True):
            i, j, weight = int(left), int(right), float(lam)
            h1, h2 = (net.numpy(rows[row : row + 1], 0, plan.layer) for row in (i, j))
            d = net.numpy(weight * h1 + (1 - weight) * h2, plan.layer, 3)[0]
            if i < size and j >= size:
                y = weight
            elif i >= size and j < size:
                y = 1 - weight
            else:
                y = float(i < size)
            y = 0.0 if mixup.target == "fake" else y
            mixed.append(y * REAL[loss](d) + (1 - y) * FAKE[loss](d))
    terms = {"mix": mixup.weight * float(np.mean(mixed))}
    if not mixup.replace:
        terms |= {"real": float(REAL[loss](net.numpy(real, 0, 3)).mean())}
        terms |= {"fake": float(FAKE[loss](net.numpy(fake, 0, 3)).mean())}
    return terms


@pytest.mark.parametrize(("preset", "loss", "seed"), list(itertools.product(PRESETS, LOSSES, range(4))))
def test_the_loss_is_eq_8_to_11(preset: str, loss: str, seed: int) -> None:
    torch.manual_seed(seed)
    mixup, D = PRESETS[preset], TwoStages().double()
    real, fake = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    plans = mixup.draw(6, torch.Generator().manual_seed(seed))
    terms = discriminator_terms(D, real, fake, LOSSES[loss], mixup, plans)
    expected = by_hand(D, real.numpy(), fake.numpy(), plans, mixup, loss)
    assert {k: float(v.detach()) for k, v in terms.items()} == pytest.approx(expected, abs=1e-6, rel=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_without_mixup_the_loss_is_the_plain_gan_s(loss: str) -> None:
    D, real, fake = TwoStages().double(), torch.randn(6, 3).double(), torch.randn(6, 3).double()
    terms = discriminator_terms(D, real, fake, LOSSES[loss])
    d_real, d_fake = (D.numpy(x.numpy(), 0, 3) for x in (real, fake))
    expected = {"real": REAL[loss](d_real).mean(), "fake": FAKE[loss](d_fake).mean()}
    assert {k: float(v.detach()) for k, v in terms.items()} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss", "saturating", "by_numpy"),
    [
        ("js", False, lambda d: softplus(-d).mean()),  # -log d
        ("js", True, lambda d: np.log(1 - 1 / (1 + np.exp(-d))).mean()),  # log(1 - d), Eq. 10 as printed
        ("hinge", False, lambda d: -d.mean()),
        ("hinge", True, lambda d: -np.maximum(0, 1 + d).mean()),
        ("wasserstein", False, lambda d: -d.mean()),
        ("wasserstein", True, lambda d: -d.mean()),
    ],
)
def test_generator_losses(loss: str, saturating: bool, by_numpy: Any) -> None:
    D, fake = TwoStages().double(), torch.randn(6, 3).double()
    value = generator_loss(D, fake, LOSSES[loss], saturating)
    assert float(value.detach()) == pytest.approx(by_numpy(D.numpy(fake.numpy(), 0, 3)))


def test_logits_of_another_shape_are_refused_not_broadcast() -> None:
    D, x = nn.Linear(3, 1), torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"must put out logits \[8\], not \[8, 1\]"):
        discriminator_terms(D, x, x, LOSSES["hinge"])
    with pytest.raises(ValueError, match="one loss a row"):
        DiscriminatorMixup().terms(torch.zeros(12, 12), 4)


def test_js_is_stable_where_a_sigmoid_is_not() -> None:
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    losses = LOSSES["js"].discriminator(logits, torch.tensor([0.0, 1.0]))
    losses.sum().backward()
    assert losses.tolist() == [200, 200]
    assert logits.grad is not None
    assert logits.grad.tolist() == [1, -1]


def test_the_gradient_penalty_is_the_squared_gradient_at_real_images() -> None:
    D, real, fake = TwoStages().double(), torch.randn(4, 3).double(), torch.randn(4, 3).double()
    terms = discriminator_terms(D, real, fake, LOSSES["js"], gradient_penalty=0.5)
    step = 1e-6
    finite = np.stack(
        [
            (D.numpy(real.numpy() + step * e, 0, 3) - D.numpy(real.numpy() - step * e, 0, 3)) / (2 * step)
            for e in np.eye(3)
        ]
    )
    assert float(terms["penalty"].detach()) == pytest.approx(0.5 * (finite**2).sum(0).mean(), rel=1e-6)
    terms["penalty"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in D.parameters())
    x = real.clone().requires_grad_()
    assert squared_gradient(D(x), x).shape == (4,)
