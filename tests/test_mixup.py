"""The mixup core: plans, networks that carry them out, and how plans are drawn."""

from __future__ import annotations

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torchvision.models import resnet18

from mmgan.mixup import ClassifierMixup, DiscriminatorMixup, Mixable, Plan, Staged


def plan_of(layer: int, left: list[int], right: list[int], lam: float | list[float], **options: bool) -> Plan:
    return Plan(layer, torch.tensor(left), torch.tensor(right), torch.tensor(lam), **options)


def network() -> Staged:
    torch.manual_seed(0)
    stages = (nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise((3, 5, 4, 6)))
    return Staged(*stages, nn.Linear(6, 2)).double()


def images(n: int) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@st.composite
def plans(draw: st.DrawFn) -> tuple[Plan, int]:
    """Any plan, and the number of rows it is for."""
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    rows = st.lists(st.integers(0, n - 1), min_size=m, max_size=m)
    unit = st.floats(0, 1, width=32)
    lam = draw(unit | st.lists(unit, min_size=m, max_size=m))
    layer = draw(st.integers(0, 3))
    return plan_of(layer, draw(rows), draw(rows), lam, keep=draw(st.booleans())), n


@given(plans())
def test_a_plan_is_the_paper_s_line(case: tuple[Plan, int]) -> None:
    plan, n = case
    h = np.random.default_rng(0).normal(size=(n, 2, 3))
    lam = np.broadcast_to(plan.lam.double().numpy(), len(plan.left))[:, None, None]
    expected = lam * h[plan.left] + (1 - lam) * h[plan.right]
    if plan.keep:
        expected = np.concatenate([h, expected])
    np.testing.assert_allclose(plan.mix(torch.from_numpy(h)).numpy(), expected, atol=1e-12)


@given(plans())
def test_a_staged_network_mixes_where_the_plan_says(case: tuple[Plan, int]) -> None:
    plan, n = case
    f, x = network(), images(n)
    by_hand = f(plan.mix(f(x, stop=plan.layer)), start=plan.layer)
    torch.testing.assert_close(f(x, plan), by_hand)


@pytest.mark.parametrize("k", range(5))
def test_g_k_of_h_k_is_f(k: int) -> None:
    f, x = network(), images(4)
    assert torch.equal(f(f(x, stop=k), start=k), f(x))


@given(plans())
def test_lam_one_returns_the_left_rows(case: tuple[Plan, int]) -> None:
    plan, n = case
    f, x = network(), images(n)
    plan = plan._replace(lam=torch.ones_like(plan.lam), keep=False)
    torch.testing.assert_close(f(x, plan), f(x[plan.left]))
    assert torch.equal(plan.mix(x), x[plan.left])


@given(plans())
def test_a_mixed_row_depends_on_its_two_rows_alone(case: tuple[Plan, int]) -> None:
    plan, n = case
    plan = plan._replace(keep=False, lam=plan.lam.clamp(0.1, 0.9))
    f, x = network(), images(n).requires_grad_()
    for out, left, right in zip(f(x, plan), plan.left, plan.right, strict=True):
        (gradient,) = torch.autograd.grad(out.sum(), x, retain_graph=True)
        touched = set(gradient.abs().sum(1).nonzero().squeeze(1).tolist())
        assert touched == {int(left), int(right)}


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_reach_the_stages_below_unless_blocked(detach: bool) -> None:
    f = network()
    f(images(4), plan_of(2, [0, 1], [2, 3], 0.3, detach=detach)).sum().backward()
    reached = [any(p.grad is not None for p in stage.parameters()) for stage in f.stages]
    assert reached == [not detach, not detach, True, True]


def test_half_precision_states_are_mixed_by_the_targets_coefficient() -> None:
    plan = plan_of(0, [0], [1], 0.123)
    h = torch.tensor([[1.0], [0.0]], dtype=torch.bfloat16)
    assert plan.mix(h).item() == torch.tensor(0.123).bfloat16().item()
    assert plan.mix(h).dtype == torch.bfloat16


def test_channels_last_stays_channels_last() -> None:
    h = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    mixed = plan_of(0, [0, 1], [2, 3], 0.5, keep=True).mix(h)
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match="layers 0 to 3"):
        network()(images(2), plan_of(layer, [0], [1], 0.5))


# Networks nobody here wrote


def test_a_hooked_resnet_equals_splitting_it_by_hand() -> None:
    net = resnet18(num_classes=7).double()
    names = ["layer1", "layer2.0.conv1", "avgpool"]
    x, mixing = torch.randn(4, 3, 32, 32, dtype=torch.float64), Mixable(net, names).eval()
    plan = plan_of(1, [0, 1, 2], [3, 3, 0], [0.2, 0.7, 1.0])

    def stem(x: Tensor) -> Tensor:
        return net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))

    def rest(h: Tensor) -> Tensor:
        return net.fc(net.avgpool(net.layer4(net.layer3(net.layer2(h)))).flatten(1))

    torch.testing.assert_close(mixing(x, plan), rest(plan.mix(stem(x))))
    kept = plan._replace(keep=True)
    torch.testing.assert_close(mixing(x, kept), torch.cat([net(x), mixing(x, plan)]))
    torch.testing.assert_close(mixing(x, plan._replace(layer=0)), net(plan.mix(x)))
    inside = plan._replace(layer=3)
    torch.testing.assert_close(
        mixing(x, inside),
        inside.mix(net.avgpool(net.layer4(net.layer3(net.layer2(stem(x))))).flatten(1)) @ net.fc.weight.T + net.fc.bias,
    )
    assert torch.equal(mixing(x), net(x)), "without a plan nothing is changed"


def test_a_copy_of_a_hooked_network_mixes_by_itself() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    mixing = Mixable(net, ["0"])
    clone = copy.deepcopy(mixing)
    plan = plan_of(1, [0, 1], [1, 0], 0.25)
    x = torch.randn(2, 3)
    torch.testing.assert_close(clone(x, plan), mixing(x, plan))
    assert not torch.allclose(clone(x, plan), clone(x))
    assert all(not module._forward_hooks for module in clone.modules())


def test_what_hooks_cannot_mix_is_an_error() -> None:
    twice = nn.Module()
    twice.a = nn.Linear(3, 3)
    twice.forward = lambda x: twice.a(twice.a(x))  # type: ignore[method-assign]
    plan, x = plan_of(1, [0], [1], 0.5), torch.randn(2, 3)
    with pytest.raises(RuntimeError, match="more than once"):
        Mixable(twice, ["a"])(x, plan)
    with pytest.raises(RuntimeError, match="tuple, not one tensor"):
        Mixable(nn.Sequential(nn.LSTM(3, 3)), ["0"])(x, plan)
    twice.forward = lambda x: x  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="did not run"):
        Mixable(twice, ["a"])(x, plan)
    with pytest.raises(ValueError, match="no module 'b' in the network; it has a"):
        Mixable(twice, ["b"])
    with pytest.raises(ValueError, match="layers 0 to 1"):
        Mixable(twice, ["a"])(x, plan._replace(layer=2))


# Drawing plans for a classifier


def test_classifier_plans_follow_eq_1() -> None:
    mixup = ClassifierMixup(2.0, (0, 1, 2), blocks=1)
    drawn = [mixup.draw(10, torch.Generator().manual_seed(seed)) for seed in range(2000)]
    assert stats.kstest([float(plan.lam) for plan in drawn], stats.beta(2, 2).cdf).pvalue > 1e-3
    assert stats.chisquare(np.bincount([plan.layer for plan in drawn])).pvalue > 1e-3
    assert all(sorted(plan.right.tolist()) == list(range(10)) for plan in drawn)
    assert stats.chisquare(np.bincount([int(plan.right[0]) for plan in drawn])).pvalue > 1e-3
    pairs = ClassifierMixup(0.5, (0,), lam_per="pair").draw(2000, torch.Generator().manual_seed(0))
    assert stats.kstest(pairs.lam.numpy(), stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    ClassifierMixup().draw(4, torch.Generator().manual_seed(0))
    DiscriminatorMixup(lam="folded-beta").draw(4, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"layers": ()}, "layers"),
        ({"layers": (0, 0)}, "layers"),
        ({"lam_per": "row"}, "lam_per"),
        ({"blocks": 0}, "blocks"),
        ({"blocks": 3}, "8 rows does not divide into 3 blocks"),
    ],
)
def test_unusable_arguments_are_refused(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClassifierMixup(**arguments).draw(8)


# Drawing plans for a discriminator

KINDS = {"real-fake": (1, 0), "fake-real": (0, 1), "fake-fake": (0, 0), "real-real": (1, 1)}
mixups = st.builds(
    DiscriminatorMixup,
    alpha=st.floats(0.01, 1),
    layers=st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True),
    lam=st.sampled_from(["uniform", "folded-beta"]),
    lam_per=st.sampled_from(["batch", "pair"]),
    layer_per=st.sampled_from(["batch", "pair"]),
    pairs=st.lists(st.sampled_from(list(KINDS)), min_size=1, unique=True),
    share=st.sampled_from(["split", "each", "random"]),
    rows=st.sampled_from(["all", "first"]),
    target=st.sampled_from(["soft", "fake"]),
    weight=st.floats(0.1, 3),
    replace=st.booleans(),
)


@given(mixups, st.integers(2, 12), st.integers(0, 2**32))
def test_targets_are_the_four_cases_of_eq_9(mixup: DiscriminatorMixup, size: int, seed: int) -> None:
    plans = mixup.draw(size, torch.Generator().manual_seed(seed))
    expected = [] if mixup.replace and mixup.layer_per == "batch" else [1.0] * size + [0.0] * size
    for plan in plans:  # in the order of their layers
        for left, right, lam in zip(plan.left, plan.right, plan.lam.expand(len(plan.left)), strict=True):
            real1, real2 = int(left) < size, int(right) < size
            assert any((real1, real2) == KINDS[kind] for kind in mixup.pairs)
            assert left != right
            assert 0 <= lam <= (mixup.alpha if mixup.lam == "uniform" else 0.5)
            label = {(1, 0): float(lam), (0, 1): 1 - float(lam), (0, 0): 0.0, (1, 1): 1.0}[real1, real2]
            expected.append(0.0 if mixup.target == "fake" else label)
    np.testing.assert_allclose(mixup.targets(size, plans).numpy(), expected, atol=1e-6)


class Itself(Staged):
    """Four stages that change nothing: what comes out was mixed as the targets are."""

    def __init__(self) -> None:
        super().__init__(*(nn.Identity() for _ in range(5)))


@given(mixups, st.integers(2, 12), st.integers(0, 2**32))
def test_targets_are_in_the_order_of_a_network_s_rows(mixup: DiscriminatorMixup, size: int, seed: int) -> None:
    if mixup.target == "soft":
        plans = mixup.draw(size, torch.Generator().manual_seed(seed))
        y = torch.cat([torch.ones(size), torch.zeros(size)])
        torch.testing.assert_close(Itself()(y, *plans), mixup.targets(size, plans))


@given(mixups, st.sampled_from([2, 4]), st.integers(1, 3), st.integers(0, 2**32))
def test_shares_of_a_plan_add_up_to_it(mixup: DiscriminatorMixup, world: int, pairs: int, seed: int) -> None:
    if mixup.rows == "first":
        return
    size, share = 2 * pairs * world, 2 * pairs
    for plan in mixup.draw(size, torch.Generator().manual_seed(seed)):
        together = []
        for rank in range(world):
            part = plan.shard(rank, world, size)
            for left, right, lam in zip(part.left, part.right, part.lam.expand(len(part.left)), strict=True):
                together.append((*(int(r) // share * size + int(r) % share + rank * share for r in (left, right)), lam))
        whole = zip(plan.left.tolist(), plan.right.tolist(), plan.lam.expand(len(plan.left)), strict=True)
        assert sorted(together) == sorted(whole)


def test_pairs_across_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        DiscriminatorMixup(pairs=("fake-fake",)).draw(6)[0].shard(0, 2, 6)
    with pytest.raises(ValueError, match="does not divide"):
        DiscriminatorMixup().draw(7)[0].shard(0, 2, 7)
    ClassifierMixup(blocks=4).draw(8).shard(1, 4, 8)


def test_shares_of_the_minibatch() -> None:
    def kinds(plan: Plan) -> list[tuple[bool, bool]]:
        return [(bool(a < 6), bool(b < 6)) for a, b in zip(plan.left, plan.right, strict=True)]

    three = [(True, False), (False, True), (False, False)]
    assert sorted(kinds(DiscriminatorMixup().draw(6)[0])) == sorted(three * 2)
    assert sorted(kinds(DiscriminatorMixup(share="each").draw(6)[0])) == sorted(three * 6)
    first = DiscriminatorMixup(rows="first", share="each").draw(6)[0]
    assert set(zip(first.left.tolist(), first.right.tolist(), strict=True)) == {(0, 6), (6, 0), (6, 7)}
    everything = DiscriminatorMixup(pairs=tuple(KINDS), share="random", lam_per="pair", layer_per="pair")
    drawn = [everything.draw(6, torch.Generator().manual_seed(seed)) for seed in range(500)]
    counts = np.unique([2 * a + b for plans in drawn for plan in plans for a, b in kinds(plan)], return_counts=True)[1]
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > 1e-3
    assert (
        stats.chisquare(np.bincount([plan.layer for plans in drawn for plan in plans for _ in plan.left])).pvalue > 1e-3
    )


def test_lam_has_the_distribution_it_says() -> None:
    def draws(mixup: DiscriminatorMixup) -> np.ndarray:
        return mixup.draw(4000, torch.Generator().manual_seed(0))[0].lam.numpy()

    uniform = draws(DiscriminatorMixup(alpha=0.2, lam_per="pair"))
    assert stats.kstest(uniform, stats.uniform(0, 0.2).cdf).pvalue > 1e-3
    folded = draws(DiscriminatorMixup(alpha=0.2, lam="folded-beta", lam_per="pair"))
    assert stats.kstest(folded, lambda x: 2 * stats.beta(0.2, 0.2).cdf(x)).pvalue > 1e-3
    assert DiscriminatorMixup().draw(4)[0].lam.shape == ()


def test_terms_are_means_over_their_rows() -> None:
    losses = torch.tensor([1.0, 3.0, 5.0, 7.0, 10.0, 20.0])
    assert {k: float(v) for k, v in DiscriminatorMixup(weight=2).terms(losses, 2).items()} == {
        "real": 2,
        "fake": 6,
        "mix": 30,
    }
    assert {k: float(v) for k, v in DiscriminatorMixup(replace=True).terms(losses, 2).items()} == {"mix": 15}


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0},
        {"alpha": 1.01},
        {"layers": ()},
        {"layers": (0, 0)},
        {"layers": (-1,)},
        {"pairs": ()},
        {"pairs": ("real-fak",)},
        {"lam": "unifrom"},
        {"share": "all"},
        {"weight": 0},
    ],
)
def test_unusable_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"mixup.{next(iter(options))}"):
        DiscriminatorMixup(**options)
