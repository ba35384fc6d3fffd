"""Eq. 8-11 against the same computed one pair at a time, in values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from mmgan.mixup import (
    JS,
    DiscriminatorMixup,
    DiscriminatorRule,
    Hinge,
    LeastSquares,
    Loss,
    Mixable,
    Plans,
    Relativistic,
    Staged,
    Wasserstein,
    discriminator_loss,
    generator_loss,
)
from tests.mixup.cases import (
    PRESETS,
    both_ways,
    discriminator_rules,
    eq_9,
    images,
    one_by_one,
    plan_of,
    seeded,
    seeds,
    sizes,
    small_stages,
)

LOSSES: list[Loss] = [JS(), JS(saturating=True), Hinge(), Hinge(saturating=True), Wasserstein(), LeastSquares()]
LOSSES.append(Relativistic())
L_REAL: dict[type[Loss], Callable[[Tensor], Tensor]] = {
    JS: lambda d: -torch.log(1 / (1 + torch.exp(-d))),
    Hinge: lambda d: torch.clamp(1 - d, min=0),
    LeastSquares: lambda d: (1 - d) ** 2 / 2,
    Wasserstein: lambda d: -d,
}
L_FAKE: dict[type[Loss], Callable[[Tensor], Tensor]] = {
    JS: lambda d: -torch.log(1 - 1 / (1 + torch.exp(-d))),
    Hinge: lambda d: torch.clamp(1 + d, min=0),
    LeastSquares: lambda d: d**2 / 2,
    Wasserstein: lambda d: d,
}


def mixed_losses(
    stages: list[nn.Module], real: Tensor, fake: Tensor, plans: Plans, target: str, loss: Loss
) -> list[Tensor]:
    """The loss of every mixed pair by Eq. 8-9, or against the fake it is made of."""
    size, batch, losses = len(real), torch.cat([real, fake]), []
    plain = Staged(*stages)(batch)
    for row in one_by_one(stages, batch, plans):
        t = eq_9(row, size, target)
        if isinstance(loss, Relativistic):
            its = next((source for source in (row.left, row.right) if source >= size), row.left + size)
            p = torch.sigmoid(row.output - plain[its])
            losses.append(-(1 + t) / 2 * torch.log(p) - (1 - t) / 2 * torch.log(1 - p))
        else:
            losses.append(t * L_REAL[type(loss)](row.output) + (1 - t) * L_FAKE[type(loss)](row.output))
    return losses


def discriminator_by_hand(
    stages: list[nn.Module], real: Tensor, fake: Tensor, plans: Plans, rule: DiscriminatorRule, loss: Loss
) -> dict[str, Tensor]:
    d_real, d_fake = (Staged(*stages)(x) for x in (real, fake))
    terms = {"mix": rule.weight * torch.stack(mixed_losses(stages, real, fake, plans, rule.target, loss)).mean()}
    if isinstance(loss, Relativistic):
        return terms | {"pair": -torch.log(torch.sigmoid(d_real - d_fake)).mean()}
    if rule.replace:
        return terms
    return terms | {"real": L_REAL[type(loss)](d_real).mean(), "fake": L_FAKE[type(loss)](d_fake).mean()}


def generator_by_hand(stages: list[nn.Module], real: Tensor, fake: Tensor, loss: Loss) -> Tensor:
    d_real, d_fake = (Staged(*stages)(x) for x in (real, fake))
    if isinstance(loss, Relativistic):
        return -torch.log(torch.sigmoid(d_fake - d_real)).mean()
    if getattr(loss, "saturating", False):
        return -L_FAKE[type(loss)](d_fake).mean()
    return (-d_fake if isinstance(loss, Hinge) else L_REAL[type(loss)](d_fake)).mean()


def check(
    terms: dict[str, Tensor], expected: dict[str, Tensor], wanted: list[Tensor] | list[nn.Parameter], atol: float = 1e-6
) -> None:
    """Terms are equal, and so are the gradients of each (coefficients of targets are single precision)."""
    assert set(terms) == set(expected)
    for name, term in terms.items():
        assert term.shape == ()
        assert_close(term, expected[name], atol=atol, rtol=1e-6)
        ours, theirs = (
            torch.autograd.grad(one, wanted, retain_graph=True, allow_unused=True, materialize_grads=True)
            for one in (term, expected[name])
        )
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, atol=atol, rtol=1e-6)


def check_discriminator(rule: DiscriminatorRule, loss: Loss, size: int, seed: int) -> None:
    stages, real, fake = small_stages(), images(size), images(size, 2)
    plans = rule.draw(size, seeded(seed))
    expected = discriminator_by_hand(stages, real, fake, plans, rule, loss)
    for D in both_ways(stages):
        check(discriminator_loss(D, real, fake, plans, loss), expected, list(D.parameters()))


def check_generator(rule: DiscriminatorRule, loss: Loss, size: int, seed: int) -> None:
    stages, real, fake = small_stages(), images(size), images(size, 2).requires_grad_()
    plans = rule.draw_for_generator(size, seeded(seed))
    expected = {"generator": generator_by_hand(stages, real, fake, loss)}
    if rule.generator_weight:
        mixed = torch.stack(mixed_losses(stages, real, fake, plans, rule.target, loss)).mean()
        expected["generator_mix"] = -rule.generator_weight * mixed
    for D in both_ways(stages):
        check(generator_loss(D, fake, real, plans, loss), expected, [fake])


@given(discriminator_rules, st.sampled_from(LOSSES), sizes, seeds)
def test_the_discriminator_s_loss_is_eq_8_to_11(rule: DiscriminatorRule, loss: Loss, size: int, seed: int) -> None:
    assume(not (rule.replace and loss.needs_real))
    check_discriminator(rule, loss, size, seed)


@given(discriminator_rules, st.sampled_from(LOSSES), sizes, seeds)
def test_the_generator_plays_against_the_mixup_term(rule: DiscriminatorRule, loss: Loss, size: int, seed: int) -> None:
    check_generator(rule, loss, size, seed)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_with_each_loss(preset: str, loss: Loss) -> None:
    rule = PRESETS[preset]
    for layer in range(3):
        one = replace(rule, layers=(layer,)) if rule.layer_per == "batch" else rule
        if not (rule.replace and loss.needs_real):
            check_discriminator(one, loss, 4, layer)
        check_generator(one, loss, 4, layer)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_without_mixup_the_losses_are_the_plain_gan_s(loss: Loss) -> None:
    stages, real, fake = small_stages(), images(4), images(4, 2).requires_grad_()
    d_real, d_fake = (Staged(*stages)(x) for x in (real, fake))
    if isinstance(loss, Relativistic):
        expected = {"pair": -torch.log(torch.sigmoid(d_real - d_fake)).mean()}
    else:
        expected = {"real": L_REAL[type(loss)](d_real).mean(), "fake": L_FAKE[type(loss)](d_fake).mean()}
    for D in both_ways(stages):
        check(discriminator_loss(D, real, fake.detach(), None, loss), expected, list(D.parameters()))
        plain = {"generator": generator_by_hand(stages, real, fake, loss)}
        check(generator_loss(D, fake, real if loss.needs_real else None, None, loss), plain, [fake])


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("mixup", [None, DiscriminatorMixup(generator_weight=0)])
def test_a_generator_that_plays_without_mixup_has_the_plain_loss_to_the_bit(
    loss: Loss, mixup: DiscriminatorRule | None
) -> None:
    D, real, fake = Staged(*small_stages()), images(4), images(4, 2)
    if loss.needs_real:
        with pytest.raises(ValueError, match="needs real images"):
            generator_loss(D, fake, None, mixup, loss)
        terms, expected = generator_loss(D, fake, real, mixup, loss), loss.generator(D(fake), D(real))
        assert_close(terms, {"generator": expected})
    else:
        for given_real in (None, real):
            terms = generator_loss(D, fake, given_real, mixup, loss)
            assert list(terms) == ["generator"]
            assert torch.equal(terms["generator"], loss.generator(D(fake), None))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_rule_draws_its_plans_when_the_loss_is_computed(preset: str) -> None:
    rule, D, real, fake = PRESETS[preset], Staged(*small_stages()), images(4), images(4, 2)

    def both(one: Any, other: Any) -> tuple[Any, Any]:
        torch.manual_seed(3)
        return discriminator_loss(D, real, fake, one()), generator_loss(D, fake, real, other())

    drawn = both(lambda: rule.draw(4), lambda: rule.draw_for_generator(4))
    assert_close(both(lambda: rule, lambda: rule), drawn, rtol=0, atol=0)


# The relativistic loss of mixed rows


def relativistic(logits: Tensor, target: Tensor, left: list[int], right: list[int]) -> dict[str, Tensor]:
    plans = Plans((plan_of(0, left, right, 1.0),), 6, sections=2, keep=True)
    return Relativistic().discriminator(logits, target, plans)


def test_a_pair_of_lam_one_has_r3gan_s_loss() -> None:
    plain = torch.randn(6, generator=seeded(0), dtype=torch.float64)
    target = torch.tensor([1.0] * 3 + [0.0] * 3 + [1.0] * 3)
    terms = relativistic(torch.cat([plain, plain[:3]]), target, [0, 1, 2], [3, 4, 5])
    assert_close(terms["mix"], terms["pair"])
    difference = plain[:3] - plain[3:]
    assert_close(terms["pair"], torch.log1p(torch.exp(-difference)).mean())


def test_a_fake_mixed_with_itself_is_stationary() -> None:
    plain = torch.randn(6, generator=seeded(0), dtype=torch.float64)
    logits = torch.cat([plain, plain[3:]]).requires_grad_()
    terms = relativistic(logits, torch.tensor([1.0] * 3 + [0.0] * 6), [3, 4, 5], [3, 4, 5])
    (gradient,) = torch.autograd.grad(terms["mix"], logits)
    assert gradient.abs().max() < 1e-12


def test_a_loss_that_compares_needs_the_plain_rows() -> None:
    with pytest.raises(ValueError, match=r"mixup\.replace"):
        discriminator_loss(
            Staged(*small_stages()), images(4), images(4), DiscriminatorMixup(replace=True), Relativistic()
        )


# R1


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_r1_is_the_mean_squared_gradient_at_real_images(loss: Loss) -> None:
    D, real, fake, step, gamma = Staged(*small_stages()), images(3), images(3, 2), 1e-6, 0.7

    def r1(mixup: DiscriminatorRule | None = None) -> Tensor:
        return discriminator_loss(D, real, fake, mixup, loss, gamma)["r1"]

    with torch.no_grad():
        steps = step * torch.eye(24, dtype=torch.float64).reshape(24, 1, 1, 4, 6)
        finite = np.stack([((D(real + e) - D(real - e)) / (2 * step)).numpy() for e in steps])
    assert float(r1().detach()) == pytest.approx(gamma / 2 * (finite**2).sum(0).mean(), rel=1e-6)
    assert not real.requires_grad
    gradient = torch.autograd.grad(r1(), list(D.parameters()), allow_unused=True, materialize_grads=True)
    direction = [torch.randn(p.shape, generator=seeded(k), dtype=p.dtype) for k, p in enumerate(D.parameters())]
    values = []
    for sign in (1, -2):  # one step forwards, then two back
        for p, v in zip(D.parameters(), direction, strict=True):
            p.data += sign * step * v
        values.append(float(r1().detach()))
    along = sum(float((g * v).sum()) for g, v in zip(gradient, direction, strict=True))
    assert along == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)
    assert abs(along) > 1e-5
    for mixup in (DiscriminatorMixup(layers=(k,)) for k in range(3)):
        assert_close(r1(mixup), r1())
    rest = discriminator_loss(D, real, fake, None, loss, gamma)
    del rest["r1"]
    assert_close(rest, discriminator_loss(D, real, fake, None, loss))


def test_r1_needs_the_plain_rows() -> None:
    D, x = Staged(*small_stages()), images(4)
    with pytest.raises(ValueError, match=r"R1 .*mixup\.replace"):
        discriminator_loss(D, x, x, DiscriminatorMixup(replace=True), r1_gamma=1.0)


def test_a_generator_s_loss_needs_the_plain_rows() -> None:
    D, x, rule = Staged(*small_stages()), images(4), DiscriminatorMixup(replace=True)
    assert list(generator_loss(D, x, x, rule)) == ["generator", "generator_mix"]
    with pytest.raises(ValueError, match="draw_for_generator"):
        generator_loss(D, x, x, rule.draw(4))


# Somebody else's loop, and somebody else's discriminator


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_plain_loop_of_ones_own(loss: Loss) -> None:
    """A discriminator that knows nothing of plans trains without mixup; wrapped, with it."""
    for mixup in (None, DiscriminatorMixup(layers=(0, 1))):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1), nn.Flatten(0))
        D: nn.Module = Mixable(net, ["1"]) if mixup else net
        G = nn.Linear(2, 2)
        optimisers = [torch.optim.Adam(network.parameters(), 0.01) for network in (D, G)]
        for _ in range(60):
            real = torch.randn(16, 2) + 3
            for step, optimiser in enumerate(optimisers):
                fake = G(torch.randn(16, 2))
                terms = (
                    generator_loss(D, fake, real, mixup, loss)
                    if step
                    else discriminator_loss(D, real, fake.detach(), mixup, loss, r1_gamma=0.1)
                )
                optimiser.zero_grad()
                torch.stack(list(terms.values())).sum().backward()
                optimiser.step()
        d_real, d_fake = net(torch.randn(500, 2) + 3).mean(), net(torch.randn(500, 2)).mean()
        assert d_real > d_fake


@pytest.mark.parametrize("mixup", [None, DiscriminatorMixup(layers=(0, 1))])
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_logits_of_another_shape_are_refused_not_broadcast(loss: Loss, mixup: DiscriminatorRule | None) -> None:
    """One column too many, as many discriminators return."""
    net, x = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)), torch.randn(4, 3)
    D: nn.Module = Mixable(net, ["0"]) if mixup else net
    rows = 20 if mixup else 8
    with pytest.raises(ValueError, match=rf"must return logits \[{rows}\], not \[{rows}, 1\]"):
        discriminator_loss(D, x, x, mixup, loss)
    if mixup or loss.needs_real:
        rows -= 0 if loss.needs_real else 4
        with pytest.raises(ValueError, match=rf"must return logits \[{rows}\], not \[{rows}, 1\]"):
            generator_loss(D, x, x, mixup, loss)


def test_js_is_stable_where_a_sigmoid_is_not() -> None:
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    terms = JS().discriminator(logits, torch.tensor([0.0, 1.0]), Plans(rows=2, sections=2))
    torch.stack(list(terms.values())).sum().backward()
    assert [term.item() for term in terms.values()] == [200, 200]
    assert logits.grad is not None
    assert logits.grad.tolist() == [1, -1]


@pytest.mark.parametrize("loss", [JS(), Hinge(), Wasserstein()], ids=str)
def test_terms_are_means_over_their_rows(loss: Any) -> None:
    logits, target = torch.tensor([1.0, 3.0, -5.0, 0.5, 0.1, 0.2]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.3, 0.6])
    plans = Plans((plan_of(0, [0, 1], [2, 3], [0.3, 0.6]),), 4, sections=2, keep=True, weight=2)
    terms = loss.discriminator(logits, target, plans)
    losses = target * L_REAL[type(loss)](logits) + (1 - target) * L_FAKE[type(loss)](logits)
    expected = {"real": losses[:2].mean(), "fake": losses[2:4].mean(), "mix": 2 * losses[4:].mean()}
    assert_close(terms, expected)
    alone = replace(plans, keep=False)
    assert_close(loss.discriminator(logits[4:], target[4:], alone), {"mix": expected["mix"]})
