"""Noisy mixup: the noise is what the definition says, on states alone, and a pair's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from mmgan.mixup import ClassifierMixup, ClassifierNoisyMixup, DiscriminatorNoisyMixup, Staged
from mmgan.mixup.rules.noisy import Noisy
from tests.mixup.cases import images, seeded, small_stages

RULES = [ClassifierNoisyMixup, DiscriminatorNoisyMixup]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_states_are_the_definition_s_in_value_and_gradient(layer: int) -> None:
    """(1 + s_m b u) * Mix(h, h') + s_a b' n in NumPy, for fixed draws; targets are mixed without noise."""
    (plan,) = ClassifierNoisyMixup(layers=(layer,), additive=0.7, multiplicative=0.5).draw(6, seeded(3)).plans
    assert isinstance(plan, Noisy)
    h = Staged(*small_stages())(images(6), stop=layer).detach().requires_grad_()
    y = torch.rand(6, 3, generator=seeded(1), dtype=torch.float64)
    u, n = (draw.double().numpy() for draw in plan.noise(h))
    lam, b, a = float(plan.lam), float(plan.multiplicative), float(plan.additive)
    values, right = h.detach().numpy(), plan.right.numpy()
    mixed = lam * values + (1 - lam) * values[right]
    found = plan.mix_states(h)
    np.testing.assert_allclose(found.detach().numpy(), (1 + b * u) * mixed + a * n, rtol=1e-6, atol=1e-7)
    g = torch.randn(h.shape, generator=seeded(5), dtype=torch.float64)
    found.backward(g)
    scaled = g.numpy() * (1 + b * u)
    by_hand = lam * scaled
    np.add.at(by_hand, right, (1 - lam) * scaled)
    assert h.grad is not None
    np.testing.assert_allclose(h.grad.numpy(), by_hand, rtol=1e-6, atol=1e-7)
    targets = plan.mix_targets(y, h).numpy()
    np.testing.assert_allclose(targets, lam * y.numpy() + (1 - lam) * y.numpy()[right], rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_noise_is_normal_and_uniform_and_its_levels_are_beta_2_5(rule: Any) -> None:
    drawn = [rule(additive=2.0, multiplicative=3.0).draw(4, seeded(seed)).plans[0] for seed in range(500)]
    cdf = stats.beta(2, 5).cdf
    for level, largest in (("additive", 2.0), ("multiplicative", 3.0)):
        assert stats.kstest([float(getattr(plan, level)) / largest for plan in drawn], cdf).pvalue > 1e-4
    assert np.corrcoef([(float(plan.additive), float(plan.multiplicative)) for plan in drawn], rowvar=False)[0, 1] < 0.2
    plan = drawn[0]
    rows = max(int(plan.left.max()), int(plan.right.max())) + 1
    u, n = plan.noise(torch.zeros(rows, 3, 40, 40))
    assert stats.kstest(u.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-4
    assert stats.kstest(n.flatten().numpy(), stats.norm.cdf).pvalue > 1e-4
    assert len(n[:, 0, 0, 0].unique()) == len(n), "every row has its own"


def test_levels_of_zero_are_the_plain_mix() -> None:
    noisy = ClassifierNoisyMixup(additive=0, multiplicative=0, alpha=2.0, layers=(1,)).draw(6, seeded(3))
    plain = ClassifierMixup(layers=(1,)).draw(6, seeded(3))
    f, x, y = Staged(*small_stages()), images(6), torch.arange(6.0)
    assert torch.equal(noisy.plans[0].right, plain.plans[0].right)
    for one, other in zip(f(x, noisy, y), f(x, plain, y), strict=True):
        torch.testing.assert_close(one, other)


def test_a_pair_has_the_same_noise_however_the_pairs_are_shared_out() -> None:
    """Over processes, and over layers; and other noise at another layer and in another batch."""
    plan, other = (ClassifierNoisyMixup(layers=(0,)).draw(8, seeded(seed)).plans[0] for seed in (0, 1))
    assert isinstance(plan, Noisy)
    assert isinstance(other, Noisy)
    h = images(8)
    _, whole = plan.noise(h)
    _, some = plan.take(torch.tensor([5, 1])).noise(h)
    assert torch.equal(some, whole[[5, 1]])
    assert not torch.equal(replace(plan, layer=1).noise(h)[1], whole)
    assert not torch.equal(other.noise(h)[1], whole)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_states_stay_so(dtype: torch.dtype) -> None:
    (plan,) = ClassifierNoisyMixup(layers=(0,)).draw(4, seeded(0)).plans
    h = images(4)
    found = plan.mix_states(h.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), plan.mix_states(h), rtol=0.05, atol=0.05)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler looks at it where its graph breaks
def test_a_compiled_network_has_the_noise_of_the_plan() -> None:
    """Another seed in every batch; the compiler breaks its graph where noise is drawn."""
    net, x = Staged(nn.Linear(3, 4), nn.Linear(4, 2)), torch.rand(4, 3)
    compiled = torch.compile(net, backend="eager")
    for seed in range(12):
        plans = ClassifierNoisyMixup(layers=(1,)).draw(4, seeded(seed))
        torch.testing.assert_close(compiled(x, plans), net(x, plans))
