"""Plans: the one operation, its order, and its shares over processes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmgan.mixup import ClassifierRule, DiscriminatorMixup, DiscriminatorRule, Plan, Plans, Staged
from mmgan.mixup.rules.noisy import Noisy
from tests.mixup.cases import (
    both_ways,
    classifier_rules,
    discriminator_rules,
    drawn,
    images,
    one_by_one,
    plan_of,
    seeded,
    seeds,
    small_stages,
)


@st.composite
def plans_of_any_numbers(draw: st.DrawFn) -> Plans:
    """Plans at several layers, in any order, several at one layer, of no pair or many, rows of one pair the same."""
    n = draw(st.integers(1, 5))
    unit = st.floats(0, 1, width=32)

    def plan() -> Plan:
        m = draw(st.integers(0, 4))
        rows = st.lists(st.integers(0, n - 1), min_size=m, max_size=m)
        lam = torch.tensor(draw(unit | st.lists(unit, min_size=m, max_size=m)))
        left, right = (torch.tensor(draw(rows), dtype=torch.int64) for _ in range(2))
        return Plan(draw(st.integers(0, 2)), left, right, lam, draw(st.booleans()))

    first = draw(st.integers(0, n))
    return Plans(tuple(plan() for _ in range(draw(st.integers(1, 4)))), n, keep=draw(st.booleans()), first=first)


@given(plans_of_any_numbers())
def test_a_plan_is_the_paper_s_line_in_states_and_targets(plans: Plans) -> None:
    h, y = np.random.default_rng(0).normal(size=(plans.rows, 2, 3)), np.eye(plans.rows)
    for plan in plans.plans:
        left, right = plan.left.numpy(), plan.right.numpy()
        lam = np.broadcast_to(plan.lam.double().numpy(), len(left))[:, None]
        states = lam[..., None] * h[left] + (1 - lam[..., None]) * h[right]
        targets = lam * y[left] + (1 - lam) * y[right]
        np.testing.assert_allclose(plan.mix_states(torch.from_numpy(h)), states, atol=1e-12)
        np.testing.assert_allclose(plan.mix_targets(torch.from_numpy(y), torch.from_numpy(h)), targets, atol=1e-12)


@given(drawn | plans_of_any_numbers())
def test_every_row_that_comes_out_is_made_of_its_two_source_rows_alone(plans: Plans) -> None:
    """Value, target and gradient of each row, those that mix nothing included, in the order that `Plans` says."""
    stages, x = small_stages(), images(plans.rows).requires_grad_()
    y = torch.randn(plans.rows, 2, generator=seeded(2), dtype=torch.float64)
    mixed = list(one_by_one(stages, x, plans))
    plain, kept = Staged(*stages)(x), slice(plans.first if plans.keep else plans.rows, None)
    expected = torch.stack([*plain[kept], *(row.output for row in mixed), plain[0]])[:-1]
    soft = [row.share * y[row.left] + (1 - row.share) * y[row.right] for row in mixed]
    targets = torch.stack([*y[kept], *soft, y[0]])[:-1]
    sources = [*((i, i) for i in range(plans.rows)[kept]), *((row.left, row.right) for row in mixed)]
    assert list(zip(*(half.tolist() for half in plans.sources("cpu")), strict=True)) == sources
    for network in both_ways(stages):
        out, y_out = network(x, plans, y)
        torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(y_out, targets, atol=1e-6, rtol=0)
        assert torch.equal(network(x, plans), out)
        blocked = [False] * plans.plain + [plan.detach for plan in plans.plans for _ in plan.left]
        for row, by_hand, pair, block in zip(out, expected, sources, blocked, strict=True):
            if not block:
                gradient, other = (torch.autograd.grad(one, x, retain_graph=True)[0] for one in (row, by_hand))
                torch.testing.assert_close(gradient, other, atol=1e-12, rtol=1e-9)
                assert set(gradient.flatten(1).any(1).nonzero().flatten().tolist()) <= set(pair)


@given(drawn | plans_of_any_numbers(), st.randoms(use_true_random=False))
def test_the_order_in_which_plans_are_given_changes_nothing(plans: Plans, random: Any) -> None:
    plans = replace(plans, plans=tuple({plan.layer: plan for plan in plans.plans}.values()))
    given_in = list(plans.plans)
    random.shuffle(given_in)
    for order in (given_in, given_in[::-1]):
        again = replace(plans, plans=tuple(order))
        assert [plan.layer for plan in again.plans] == sorted(plan.layer for plan in order)
        for network in both_ways(small_stages()):
            x, y = images(plans.rows), torch.arange(float(plans.rows))
            for one, other in zip(network(x, again, y), network(x, plans, y), strict=True):
                assert torch.equal(one, other)


def silent(plan: Plan) -> dict[str, Tensor]:
    """Noise of deviation 0, where a plan has any."""
    return {name: torch.zeros(()) for name in ("additive", "multiplicative")} if isinstance(plan, Noisy) else {}


@given(drawn | plans_of_any_numbers())
def test_lam_one_returns_the_left_rows(plans: Plans) -> None:
    ones = [replace(plan, lam=torch.ones_like(plan.lam), **silent(plan)) for plan in plans.plans]
    plans, x, y = replace(plans, plans=tuple(ones)), images(plans.rows), torch.arange(float(plans.rows))
    left, _ = plans.sources("cpu")
    for plan in plans.plans:
        assert torch.equal(plan.mix_states(x), x[plan.left])
    for network in both_ways(small_stages()):
        out, targets = network(x, plans, y)
        torch.testing.assert_close(out, network(x)[left], atol=1e-12, rtol=1e-12)
        assert torch.equal(targets, y[left])


@given(drawn)
def test_rows_that_the_plans_were_not_drawn_for_are_refused(plans: Plans) -> None:
    for network in both_ways(small_stages()):
        for rows in (plans.rows - 1, plans.rows + 1):
            with pytest.raises(ValueError, match=rf"for {plans.rows} rows at layer \d, not {rows}"):
                network(images(rows), plans)
    with pytest.raises(ValueError, match=f"not {plans.rows} with {plans.rows - 1} targets"):
        plans.mix(plans.plans[0].layer, images(plans.rows), torch.ones(plans.rows - 1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_states_are_mixed_by_the_targets_coefficient(dtype: torch.dtype) -> None:
    plan, h = plan_of(0, [0], [1], 0.501), torch.tensor([[1.0], [-1.0]], dtype=dtype)
    assert plan.mix_states(h).dtype == dtype
    assert plan.mix_states(h).item() == torch.tensor(0.002).to(dtype).item()
    assert plan.mix_targets(torch.tensor([1.0, 0.0]), h).item() == torch.tensor(0.501).item()


@given(drawn)
def test_channels_last_stays_channels_last(plans: Plans) -> None:
    n = plans.rows
    h = torch.randn(n, 3, 5, 4, generator=seeded(0)).to(memory_format=torch.channels_last)
    for plan in plans.plans:
        if len(plan.left):
            x = h.clone().requires_grad_()
            mixed, contiguous = plan.mix_states(x), plan.mix_states(x.contiguous())
            torch.testing.assert_close(mixed, contiguous)
            if not plan.detach:
                gradients = (torch.autograd.grad(one.square().sum(), x)[0] for one in (mixed, contiguous))
                torch.testing.assert_close(*gradients)
            assert mixed.is_contiguous(memory_format=torch.channels_last)
            out, _ = Plans((plan,), n, keep=True).mix(plan.layer, h)
            assert out.is_contiguous(memory_format=torch.channels_last)


@given(drawn)
def test_all_tensors_of_plans_move(plans: Plans) -> None:
    for plan in plans.to("meta").plans:
        assert all(value.device.type == "meta" for value in vars(plan).values() if isinstance(value, Tensor))


# Several processes


def rows_of(plans: Plans, x: Tensor) -> np.ndarray:
    """All that comes out of a pass for `x`, states and targets, as rows in an order that depends on values alone."""
    h, y = Staged(*[torch.nn.Identity()] * 3)(x, plans, x[:, 0, 0, 0])
    rows = torch.cat([h.flatten(1), y[:, None]], 1).numpy()
    return rows[np.lexsort(rows.T)]


def check_shares(plans: Plans, world: int) -> None:
    """What the processes' shares mix together is what the whole mixes."""
    x = images(plans.rows)
    parts = []
    for rank in range(world):
        share = plans.share(rank, world)
        for field in fields(plans):
            if field.name not in ("plans", "rows"):
                assert getattr(share, field.name) == getattr(plans, field.name)
        mine = torch.cat([section.chunk(world)[rank] for section in x.chunk(plans.sections)])
        assert share.rows == len(mine)
        parts.append(rows_of(share, mine))
    together = np.concatenate(parts)
    np.testing.assert_array_equal(together[np.lexsort(together.T)], rows_of(plans, x))


worlds = st.sampled_from([1, 2, 4])


@given(discriminator_rules.filter(lambda rule: rule.rows == "all"), worlds, st.integers(1, 3), seeds)
def test_shares_of_a_discriminator_s_plans_add_up(rule: DiscriminatorRule, world: int, pairs: int, seed: int) -> None:
    check_shares(rule.draw(2 * pairs * world, seeded(seed)), world)


@given(classifier_rules, worlds, st.integers(1, 3), st.sampled_from([1, 2]), seeds)
def test_shares_of_a_classifier_s_plans_add_up(
    rule: ClassifierRule, world: int, rows: int, finer: int, seed: int
) -> None:
    """Drawn in as many blocks as processes, or a multiple."""
    check_shares(rule.draw(2 * rows * world, seeded(seed), blocks=finer * world), world)


@given(classifier_rules)
def test_pairs_of_the_whole_batch_are_not_shared(rule: ClassifierRule) -> None:
    plans = rule.draw(32, seeded(0))
    assert plans.share(0, 1) is plans
    with pytest.raises(ValueError, match="multiple of 4"):
        plans.share(0, 2)


def test_pairs_across_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        DiscriminatorMixup(pairs=("fake-fake",)).draw(6).share(0, 2)
    with pytest.raises(ValueError, match="7 rows does not divide over 2 processes"):
        DiscriminatorMixup().draw(7).share(0, 2)
    with pytest.raises(ValueError, match="7 rows does not divide over 2 processes"):
        Plans(rows=14, sections=2).share(1, 2)
    assert Plans(rows=12, sections=2).share(1, 2).rows == 6
