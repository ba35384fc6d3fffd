"""Rules: what they draw, and what they refuse."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from mmgan.mixup import (
    ClassifierCutMix,
    ClassifierMixup,
    ClassifierNoisyMixup,
    ClassifierRule,
    DiscriminatorCutMix,
    DiscriminatorMixup,
    DiscriminatorRule,
    Plan,
    Plans,
    Staged,
)
from tests.mixup.cases import (
    KINDS,
    OPTIONS,
    PRESETS,
    classifier_rules,
    discriminator_rules,
    eq_9,
    one_by_one,
    rules,
    seeded,
    seeds,
    sizes,
)

ALPHA_OF_BETA = {ClassifierMixup: 2.0, ClassifierNoisyMixup: 1.0, ClassifierCutMix: 1.0, DiscriminatorCutMix: 1.0}
CLASSIFIER = [rule for rule in OPTIONS if issubclass(rule, ClassifierRule) and not rule.learns]
DISCRIMINATOR = [rule for rule in OPTIONS if issubclass(rule, DiscriminatorRule)]


def test_every_rule_and_each_of_its_options_is_under_test() -> None:
    def below(base: type[Any]) -> set[type[Any]]:
        own = {rule for rule in base.__subclasses__() if rule.__module__.startswith("mmgan.")}
        return own.union(*(below(rule) for rule in own))

    assert set(OPTIONS) == below(ClassifierRule) | below(DiscriminatorRule)
    for rule, options in OPTIONS.items():
        assert set(options) == {field.name for field in fields(rule)}


# What is drawn


def tensors(plans: Plans) -> list[Tensor | int]:
    """All numbers of plans."""
    return [value for plan in plans.plans for value in vars(plan).values() if isinstance(value, Tensor | int)]


@given(rules, st.integers(4, 9), seeds)
def test_a_generator_s_state_is_all_that_a_draw_depends_on(rule: Any, size: int, seed: int) -> None:
    before = torch.get_rng_state()
    drawn = [tensors(rule.draw(size, seeded(seed))) for _ in range(2)]
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(*drawn, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    torch.manual_seed(seed)
    for one, other in zip(tensors(rule.draw(size)), drawn[0], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


@pytest.mark.parametrize("rule", OPTIONS)
def test_another_seed_is_another_draw(rule: Any) -> None:
    one, other = (rule(layers=(0,)).draw(8, seeded(seed)).plans[0] for seed in (0, 1))
    assert not torch.equal(one.lam, other.lam)


@given(classifier_rules, st.sampled_from([1, 2, 3, 5, 6, 7, 8]), seeds)
def test_a_classifier_s_pairs_are_a_permutation_of_the_whole_batch(rule: ClassifierRule, size: int, seed: int) -> None:
    plans = rule.draw(size, seeded(seed))
    (plan,) = plans.plans
    assert plan.left.tolist() == sorted(plan.right.tolist()) == list(range(size))
    assert plan.layer in rule.layers
    assert plan.detach == rule.detach
    assert (plans.rows, plans.sections, plans.keep, plans.plain) == (size, 1, False, 0)


@pytest.mark.parametrize("rule", CLASSIFIER)
def test_any_permutation_is_as_likely(rule: Any) -> None:
    rights = np.stack([rule().draw(8, seeded(seed)).plans[0].right.numpy() for seed in range(2000)])
    for column in rights.T:
        assert stats.chisquare(np.bincount(column, minlength=8)).pvalue > 1e-4
    with_itself = (rights == np.arange(8)).sum(1)
    assert abs(with_itself.mean() - 1) < 4 / np.sqrt(2000)  # mean and variance of a permutation's fixed points are 1


@given(classifier_rules, st.integers(1, 4), st.integers(1, 4), seeds)
def test_blocks_permute_within_themselves(rule: ClassifierRule, blocks: int, rows: int, seed: int) -> None:
    (plan,) = rule.draw(blocks * rows, seeded(seed), blocks=blocks).plans
    assert sorted(plan.right.tolist()) == list(range(blocks * rows))
    assert torch.equal(plan.right // rows, plan.left // rows)


def test_a_batch_that_does_not_divide_into_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="8 rows does not divide into 3 blocks"):
        ClassifierMixup().draw(8, blocks=3)


@pytest.mark.parametrize("rule", OPTIONS)
def test_layers_are_drawn_uniformly(rule: Any) -> None:
    """One a batch, or one for every pair."""
    layers = [plan.layer for seed in range(1000) for plan in rule(layers=(2, 0, 5)).draw(4, seeded(seed)).plans]
    assert len(layers) == 1000
    assert stats.chisquare([layers.count(layer) for layer in (0, 2, 5)]).pvalue > 1e-4
    if issubclass(rule, DiscriminatorRule):
        plans = rule(layers=(2, 0, 5), layer_per="pair").draw(1000, seeded(0))
        assert [plan.layer for plan in plans.plans] == [0, 2, 5]
        assert stats.chisquare([len(plan.left) for plan in plans.plans]).pvalue > 1e-4
        rows = torch.cat([torch.stack([plan.left, plan.right], 1) for plan in plans.plans])
        assert len(rows.unique(dim=0)) == len(rows) == 3000


@pytest.mark.parametrize("alpha", [None, 0.3])
@pytest.mark.parametrize("rule", ALPHA_OF_BETA)
def test_lam_is_beta_distributed(rule: Any, alpha: float | None) -> None:
    options = {} if alpha is None else {"alpha": alpha}
    pairs = options | ({"lam_per": "pair"} if issubclass(rule, ClassifierMixup) else {})
    lam = rule(**pairs).draw(4000, seeded(0)).plans[0].lam.numpy()
    assert stats.kstest(lam, stats.beta(*[alpha or ALPHA_OF_BETA[rule]] * 2).cdf).pvalue > 1e-4
    assert len(np.unique(lam)) > 3000
    if issubclass(rule, ClassifierMixup):
        batches = [rule(**options).draw(2, seeded(seed)).plans[0].lam for seed in range(1000)]
        assert batches[0].shape == ()
        cdf = stats.beta(*[alpha or ALPHA_OF_BETA[rule]] * 2).cdf
        assert stats.kstest([float(lam) for lam in batches], cdf).pvalue > 1e-4


@pytest.mark.parametrize("alpha", [0.099, 0.01, 0.001, 1e-4])
@pytest.mark.parametrize("rule", [*ALPHA_OF_BETA, DiscriminatorMixup])
def test_lam_is_near_0_or_1_for_a_small_alpha(rule: Any, alpha: float) -> None:
    """Where both Gamma draws of a Beta draw are below the smallest float, it was 1/2: for 24 % of lam at alpha .001."""
    options = {"lam_per": "pair"} if issubclass(rule, ClassifierMixup) else {}
    options = {"lam": "folded-beta"} if rule is DiscriminatorMixup else options
    n = 20000
    lam = rule(alpha=alpha, **options).draw(n, seeded(0)).plans[0].lam.double().numpy()[:n]
    fewer = np.minimum(lam, 1 - lam)
    for bound in (1e-5, 1e-3, 0.1, 0.4, 0.49):
        mass = 2 * stats.beta(alpha, alpha).cdf(bound)
        assert abs((fewer < bound).sum() - n * mass) < 1 + 5 * np.sqrt(n * mass * (1 - mass))
    expected = alpha / (2 * (2 * alpha + 1))  # the mean of lam (1 - lam)
    assert abs((lam * (1 - lam)).mean() - expected) < 5 * (lam * (1 - lam)).std() / np.sqrt(n) + 1e-4 * expected
    if rule is not DiscriminatorMixup:
        assert abs((lam > 0.5).mean() - 0.5) < 2.5 / np.sqrt(n)


@pytest.mark.parametrize("rule", [ClassifierCutMix, DiscriminatorCutMix])
def test_boxes_are_anywhere(rule: Any) -> None:
    plan = rule().draw(4000, seeded(0)).plans[0]
    for coordinate in plan.centre.T:
        assert stats.kstest(coordinate.numpy(), stats.uniform.cdf).pvalue > 1e-4
    assert abs(np.corrcoef(np.stack([plan.lam, *plan.centre.T])) - np.eye(3)).max() < 4 / np.sqrt(4000)


def test_lam_of_eq_8_has_the_distribution_it_says() -> None:
    def draws(**options: Any) -> np.ndarray:
        return DiscriminatorMixup(**options).draw(2000, seeded(0)).plans[0].lam.numpy()

    assert stats.kstest(draws(), stats.uniform(0, 0.5).cdf).pvalue > 1e-4
    assert stats.kstest(draws(alpha=0.2), stats.uniform(0, 0.2).cdf).pvalue > 1e-4
    folded = draws(alpha=0.2, lam="folded-beta")
    assert stats.kstest(folded, lambda x: 2 * stats.beta(0.2, 0.2).cdf(x)).pvalue > 1e-4
    assert 0 <= folded.min() <= folded.max() <= 0.5
    rule = DiscriminatorMixup(lam_per="batch")
    batches = [rule.draw(4, seeded(seed)).plans[0].lam for seed in range(1000)]
    assert batches[0].shape == ()
    assert stats.kstest([float(lam) for lam in batches], stats.uniform(0, 0.5).cdf).pvalue > 1e-4


# Pairs and targets of a discriminator


def pairs_of(plans: Plans) -> list[tuple[int, int]]:
    return [pair for plan in plans.plans for pair in zip(plan.left.tolist(), plan.right.tolist(), strict=True)]


def kinds_of(plans: Plans) -> list[str]:
    """The kind of every pair."""
    names = {kind: name for name, kind in KINDS.items()}
    return [names[left < plans.rows // 2, right < plans.rows // 2] for left, right in pairs_of(plans)]


@given(discriminator_rules, st.integers(2, 12), seeds)
def test_targets_are_the_four_cases_of_eq_9(rule: DiscriminatorRule, size: int, seed: int) -> None:
    plans, stages = rule.draw(size, seeded(seed)), [nn.Identity()] * 3
    x, y = torch.rand(2 * size, 1, 6, 4, dtype=torch.float64), torch.cat([torch.ones(size), torch.zeros(size)])
    expected = ([] if rule.replace else y.tolist()) + [eq_9(row, size, "soft") for row in one_by_one(stages, x, plans)]
    _, targets = Staged(*stages)(x, plans, y)
    assert plans.label == (0.0 if rule.target == "fake" else None), "the objective gives mixed rows this target"
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-6)
    assert set(kinds_of(plans)) <= set(rule.pairs)
    assert all(left != right for left, right in pairs_of(plans))
    assert all(0 <= lam <= 1 for plan in plans.plans for lam in plan.lam.flatten())


@given(discriminator_rules, st.integers(2, 12), seeds)
def test_how_many_pairs_of_which_rows(rule: DiscriminatorRule, size: int, seed: int) -> None:
    plans = rule.draw(size, seeded(seed))
    kinds = kinds_of(plans)
    assert len(kinds) == (size * len(rule.pairs) if rule.share == "each" else size)
    counts = [kinds.count(kind) for kind in rule.pairs]
    if rule.share == "each":
        assert counts == [size] * len(rule.pairs)
    elif rule.share == "split":
        assert sorted(counts, reverse=True) == counts
        assert max(counts) - min(counts) <= 1
    rows = {(left % size, right % size) for left, right in pairs_of(plans)}
    if rule.rows == "first":
        assert rows <= {(0, 0), (0, 1)}
    else:
        assert len({left for left, _ in rows}) == size, "each row is in a pair"
    for (left, right), kind in zip(pairs_of(plans), kinds, strict=True):
        real1, real2 = KINDS[kind]
        i, j = left % size, right % size
        neighbour = i - 1 if i % 2 or i == size - 1 else i + 1
        assert j == (neighbour if real1 == real2 else i)
    assert plans.plain == (0 if rule.replace else 2 * size)
    assert (plans.rows, plans.sections, plans.keep, plans.weight) == (2 * size, 2, not rule.replace, rule.weight)


def test_kinds_are_drawn_uniformly() -> None:
    rule = DiscriminatorMixup(pairs=tuple(KINDS), share="random")
    drawn = [kind for seed in range(500) for kind in kinds_of(rule.draw(6, seeded(seed)))]
    assert stats.chisquare([drawn.count(kind) for kind in KINDS]).pvalue > 1e-4


@given(discriminator_rules, sizes, seeds)
def test_the_generator_s_step_draws_alike_and_keeps_the_plain_rows(
    rule: DiscriminatorRule, size: int, seed: int
) -> None:
    plans = rule.draw_for_generator(size, seeded(seed))
    if rule.generator_weight:
        assert (plans.keep, plans.weight, plans.plain) == (True, rule.generator_weight, 2 * size)
        for one, other in zip(tensors(plans), tensors(rule.draw(size, seeded(seed))), strict=True):
            assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    else:
        assert not plans
        assert (plans.rows, plans.sections, plans.plain) == (2 * size, 2, 2 * size)


@pytest.mark.parametrize(
    ("preset", "kinds"),
    [
        ("paper", {"real-fake": 6, "fake-real": 6, "fake-fake": 6}),
        ("eq11", {"real-fake": 6, "fake-real": 6, "fake-fake": 6}),
        ("split", {"real-fake": 2, "fake-real": 2, "fake-fake": 2}),
        ("official-code", {"real-fake": 6}),
        ("cutmix", {"real-fake": 6, "fake-real": 6, "fake-fake": 6}),
    ],
)
def test_presets(preset: str, kinds: dict[str, int]) -> None:
    """3 B mixed rows in the paper, B where kinds share them."""
    plans = PRESETS[preset].draw(6, seeded(0))
    (plan,) = plans.plans
    assert {kind: kinds_of(plans).count(kind) for kind in kinds} == kinds
    assert len(kinds_of(plans)) == sum(kinds.values())
    assert plans.label == (0 if preset == "official-code" else None)
    assert plan.lam.shape == (() if preset == "split" else (len(plan.left),))
    first = replace(PRESETS[preset], rows="first", pairs=("real-fake", "fake-real", "fake-fake"), share="each")
    assert set(pairs_of(first.draw(6))) == {(0, 6), (6, 0), (6, 7)}


# What is refused

UNUSABLE: dict[str, list[Any]] = {
    "layers": [(), (0, 0), (-1,), (0.5,), (0, "1")],
    "pairs": [(), ("real-fak",), ("real-fake", "real-fake")],
    "weight": [0, -1, float("nan")],
    "generator_weight": [-0.1, float("nan")],
    "additive": [-0.1, float("nan")],
    "multiplicative": [-0.1, float("nan")],
}
UNUSABLE_ALPHA = [0, -1, float("nan")]


@pytest.mark.parametrize("rule", OPTIONS)
def test_unusable_options_are_refused_by_name(rule: Any) -> None:
    unusable = UNUSABLE | {"alpha": UNUSABLE_ALPHA + ([1.01] if issubclass(rule, DiscriminatorMixup) else [])}
    for name, hint in ((field.name, get_type_hints(rule)[field.name]) for field in fields(rule)):
        wrong = ["no such value", None] if get_origin(hint) is Literal else unusable.get(name, [])
        assert wrong or hint is bool
        for value in wrong:
            with pytest.raises(ValueError, match=rf"mixup\.{name}\b"):
                rule(**{name: value})


@pytest.mark.parametrize("rule", OPTIONS)
def test_options_are_named(rule: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        rule(0.5)
    with pytest.raises(AttributeError):
        rule().alpha = 1


@pytest.mark.parametrize("rule", DISCRIMINATOR)
def test_a_batch_of_one_is_refused(rule: Any) -> None:
    with pytest.raises(ValueError, match="two rows"):
        rule().draw(1)


@pytest.mark.parametrize("base", [ClassifierRule, DiscriminatorRule])
def test_a_rule_of_ones_own_says_how_to_mix_and_inherits_the_rest(base: Any) -> None:
    class Halves(base):  # type: ignore[misc]
        def plan(self, left: Tensor, right: Tensor, generator: torch.Generator | None) -> Plan:  # noqa: ARG002
            return Plan(0, left, right, torch.tensor(0.5))

    with pytest.raises(TypeError, match="abstract"):
        base()
    plans = Halves(layers=(3,)).draw(4)
    assert [(plan.layer, float(plan.lam)) for plan in plans.plans] == [(3, 0.5)]
    with pytest.raises(ValueError, match=r"mixup\.layers"):
        Halves(layers=())
