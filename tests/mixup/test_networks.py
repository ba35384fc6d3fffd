"""Networks that carry plans out: rows of stages, and modules by name."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18

from mmgan.mixup import (
    ClassifierNoisyMixup,
    ClassifierRule,
    DiscriminatorNoisyMixup,
    DiscriminatorRule,
    Mixable,
    Plans,
    Staged,
)
from tests.mixup.cases import (
    both_ways,
    classifier_rules,
    discriminator_rules,
    images,
    plan_of,
    rules,
    seeded,
    seeds,
    sizes,
    small_stages,
)


def soft(rule: Any) -> Any:
    """A rule whose mixed rows have the targets of Eq. 9, and no noise on them."""
    rule = replace(rule, target="soft") if isinstance(rule, DiscriminatorRule) else rule
    noisy = isinstance(rule, ClassifierNoisyMixup | DiscriminatorNoisyMixup)
    return replace(rule, additive=0.0, multiplicative=0.0) if noisy else rule


softly = rules.map(soft)


@given(softly, sizes, seeds)
def test_a_row_carries_its_own_target(rule: ClassifierRule | DiscriminatorRule, size: int, seed: int) -> None:
    """Of maps filled with their target, the mixed targets are the means: at every layer, whatever the map's size."""
    plans = rule.draw(size, seeded(seed))
    y = torch.rand(plans.rows, generator=seeded(seed + 1), dtype=torch.float64)
    for network in both_ways([nn.Identity(), nn.AvgPool2d(2), nn.Identity()]):
        out, targets = network(y[:, None, None, None].expand(-1, 1, 8, 12), plans, y)
        assert len(out) == plans.plain + sum(len(plan.left) for plan in plans.plans)
        torch.testing.assert_close(out.mean((1, 2, 3)), targets, atol=1e-6, rtol=0)


@pytest.mark.parametrize("network", both_ways(small_stages()))
def test_without_a_plan_a_pass_is_the_plain_one(network: Staged | Mixable) -> None:
    x, y = images(4), torch.arange(4.0)
    plain = nn.Sequential(*small_stages())(x)
    for plans in (Plans(), Plans(rows=4), Plans(rows=4, keep=True)):
        assert torch.equal(network(x, plans), plain)
        out, targets = network(x, plans, y)
        assert torch.equal(out, plain)
        assert targets is y
    assert torch.equal(network(x), plain)
    assert network.depth == 3


@pytest.mark.parametrize("k", range(4))
def test_g_k_of_h_k_is_f(k: int) -> None:
    f, x = Staged(*small_stages()), images(4)
    assert torch.equal(f(f(x, stop=k), start=k), f(x))


@given(classifier_rules, seeds)
def test_a_pass_in_two_halves_mixes_in_the_one_that_has_the_layer(rule: ClassifierRule, seed: int) -> None:
    f, x, plans = Staged(*small_stages()), images(4), rule.draw(4, seeded(seed))
    (plan,) = plans.plans
    out, y = f(f(x, stop=plan.layer), plans, torch.arange(4.0), start=plan.layer)
    expected, expected_y = f(x, plans, torch.arange(4.0))
    assert torch.equal(out, expected)
    assert torch.equal(y, expected_y)
    with pytest.raises(ValueError, match=f"cannot mix at layer {plan.layer}"):
        f(x, plans, stop=plan.layer)


def test_the_input_is_mixed_after_preprocessing() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square()

    stages, x, plans = small_stages(), images(2), Plans((plan_of(0, [0], [1], 0.3),), 2)
    f = Staged(*stages, preprocess=Square())
    torch.testing.assert_close(f(x, plans), nn.Sequential(*stages)(0.3 * x[:1] ** 2 + 0.7 * x[1:] ** 2))
    assert torch.equal(f(f(x, stop=0), start=0), f(x))


@given(classifier_rules, seeds)
def test_gradients_reach_the_stages_below_unless_blocked(rule: ClassifierRule, seed: int) -> None:
    for layer in range(3):
        for network, stages in zip(both_ways(small := small_stages()), [small] * 2, strict=True):
            plans = replace(rule, layers=(layer,)).draw(4, seeded(seed))
            network.zero_grad()
            network(images(4), plans).sum().backward()
            reached = [any(p.grad is not None for p in stage.parameters()) for stage in stages]
            assert reached == [not rule.detach or k >= layer for k in range(3)]


@given(discriminator_rules, seeds)
def test_gradients_of_a_discriminator_are_never_blocked(rule: DiscriminatorRule, seed: int) -> None:
    network = Staged(*small_stages())
    network(images(8), rule.draw(4, seeded(seed))).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("layer", [-1, 3])
@pytest.mark.parametrize("network", both_ways(small_stages()))
def test_a_layer_that_is_not_there_is_refused(network: Staged | Mixable, layer: int) -> None:
    with pytest.raises(ValueError, match=f"at layer {layer}; this pass has layers 0 to 2"):
        network(images(2), Plans((plan_of(layer, [0], [1], 0.5),), 2))


# Networks nobody here wrote


def test_a_hooked_resnet_equals_splitting_it_by_hand() -> None:
    net = resnet18(num_classes=7).double()
    x = torch.randn(4, 3, 32, 32, generator=seeded(0), dtype=torch.float64)
    mixing = Mixable(net, ["layer1", "layer2.0.conv1", "avgpool"]).eval()
    left, right, lam = torch.tensor([0, 1, 2]), torch.tensor([3, 3, 0]), torch.tensor([0.2, 0.7, 1.0])

    def mixed(h: Tensor) -> Tensor:
        share = lam.double().reshape(-1, *[1] * (h.ndim - 1))
        return share * h[left] + (1 - share) * h[right]

    def stem(x: Tensor) -> Tensor:
        return net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))

    def pooled(h: Tensor) -> Tensor:
        return net.avgpool(net.layer4(net.layer3(net.layer2(h)))).flatten(1)

    def at(layer: int, keep: bool = False) -> Plans:
        return Plans((plan_of(layer, left.tolist(), right.tolist(), lam.tolist()),), 4, keep=keep)

    torch.testing.assert_close(mixing(x, at(1)), net.fc(pooled(mixed(stem(x)))))
    torch.testing.assert_close(mixing(x, at(1, keep=True)), torch.cat([net(x), mixing(x, at(1))]))
    torch.testing.assert_close(mixing(x, at(0)), net(mixed(x)))
    torch.testing.assert_close(mixing(x, at(3)), net.fc(mixed(pooled(stem(x)))))
    assert torch.equal(mixing(x), net(x))


def test_a_copy_of_a_hooked_network_mixes_by_itself() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    mixing = Mixable(net, ["0"])
    clone = copy.deepcopy(mixing)
    plans, x = Plans((plan_of(1, [0, 1], [1, 0], 0.25),), 2), torch.randn(2, 3)
    torch.testing.assert_close(clone(x, plans), mixing(x, plans))
    assert not torch.allclose(clone(x, plans), clone(x))
    assert hooks(clone) == 0


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


class Net(nn.Module):
    """Linear modules a, b and c, run as a test says."""

    def __init__(self, *order: str) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(3, 3) for _ in range(3))
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        for name in self.order:
            x = self.get_submodule(name)(x)
        return x


def at(*layers: int, rows: int = 2) -> Plans:
    return Plans(tuple(plan_of(layer, [0], [1], 0.3) for layer in layers), rows, keep=True)


@pytest.mark.parametrize("layers", [(1,), (2,), (1, 2), (0, 1), (0, 2), (0, 1, 2)])
def test_names_in_another_order_than_the_modules_run_in_are_refused(layers: tuple[int, ...]) -> None:
    network = Mixable(Net("a", "b"), ["b", "a"])
    with pytest.raises(RuntimeError, match="'a' runs before 'b'"):
        network(torch.randn(2, 3), at(*layers), torch.randn(2))
    assert hooks(network) == 0


@pytest.mark.parametrize("layers", [(2,), (1, 2), (0, 2)])
def test_a_module_within_another_comes_before_it(layers: tuple[int, ...]) -> None:
    net = nn.Sequential(OrderedDict(block=nn.Sequential(OrderedDict(inner=nn.Linear(3, 3)))))
    with pytest.raises(RuntimeError, match=r"'block.inner' runs before 'block'"):
        Mixable(net, ["block", "block.inner"])(torch.randn(2, 3), at(*layers))
    Mixable(net, ["block.inner", "block"])(torch.randn(2, 3), at(*layers))


def test_what_hooks_cannot_mix_is_an_error() -> None:
    x = torch.randn(2, 3)
    cases: list[tuple[nn.Module, list[str], tuple[int, ...], str]] = [
        (Net("a", "a"), ["a"], (1,), "'a' runs more than once"),
        (Net("a", "b", "b"), ["a", "b"], (1, 2), "'b' runs more than once"),
        (Net("a", "b", "a"), ["a", "b"], (1,), "'a' runs more than once"),
        (Net("a", "b", "a"), ["a", "b"], (2,), "'b' runs before 'a'"),
        (nn.Sequential(nn.LSTM(3, 3)), ["0"], (1,), "'0' returns tuple, not one tensor"),
        (Net("b"), ["a"], (1,), "'a' did not run"),
        (Net("a", "c"), ["a", "b", "c"], (1, 2, 3), "'c' runs before 'b', or without it"),
        (Net("a", "c"), ["a", "b", "c"], (1, 2), "'b' did not run"),
    ]
    for net, names, layers, words in cases:
        network = Mixable(net, names)
        with pytest.raises(RuntimeError, match=words):
            network(x, at(*layers))
        assert hooks(network) == 0
    with pytest.raises(ValueError, match="no module 'd' in the network; it has a, b, c"):
        Mixable(Net(), ["d"])
    with pytest.raises(ValueError, match="no module '' in the network"):
        Mixable(Net(), [""])


def test_a_module_that_nothing_is_mixed_at_may_run_as_it_likes() -> None:
    x = torch.randn(2, 3)
    for net in (Net("a", "a", "b"), Net("b")):
        out = Mixable(net, ["a", "b"])(x, at(2))
        torch.testing.assert_close(out[:2], net(x))
        torch.testing.assert_close(out[2:], 0.3 * net(x)[:1] + 0.7 * net(x)[1:])


class Checkpointed(nn.Module):
    """A body that is computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.body, self.reentrant = nn.Sequential(nn.Linear(3, 4), nn.Tanh()), reentrant

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", checkpoint(self.body, x, use_reentrant=self.reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_gradient_is_the_same_with_activation_checkpointing(layer: int, reentrant: bool) -> None:
    network = nn.Sequential(Checkpointed(reentrant), nn.Linear(4, 2))
    plain = copy.deepcopy(nn.Sequential(network[0].body, network[1]))
    x = torch.randn(2, 3, requires_grad=True)
    Mixable(network, ["0"])(x, at(layer)).square().sum().backward()
    Mixable(plain, ["0"])(x, at(layer)).square().sum().backward()
    for parameter, same in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, same.grad)
    assert x.grad is not None


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["0.body.0", "0.body"])
def test_a_mix_that_checkpointing_would_undo_is_refused(name: str, reentrant: bool) -> None:
    """The body is computed again in the backward pass, when the hooks are gone: its gradient was that of no mix."""
    network = Mixable(nn.Sequential(Checkpointed(reentrant), nn.Linear(4, 2)), [name])
    x = torch.randn(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match=f"'{name}' is inside a part that activation checkpointing runs again"):
        network(x, at(1))
    assert hooks(network) == 0
    network(x, at(0)).sum().backward()


def test_a_mixable_network_may_itself_be_checkpointed() -> None:
    """Then its hooks are there again when it runs again."""
    network = Mixable(Net("a", "b"), ["a", "b"])
    x = torch.randn(2, 3, requires_grad=True)
    (expected,) = torch.autograd.grad(network(x, at(1, 2)).square().sum(), x)
    checkpoint(network, x, at(1, 2), use_reentrant=True).square().sum().backward()
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("layers", [(0,), (1,), (0, 1)])
def test_hooks_are_gone_after_a_pass(layers: tuple[int, ...]) -> None:
    network = Mixable(Net("a"), ["a"])
    network(torch.randn(2, 3), at(*layers))
    assert hooks(network) == 0
    network = Mixable(nn.Sequential(nn.Linear(3, 3), nn.Linear(2, 3)), ["0"])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        network(torch.randn(2, 3), at(*layers))
    assert hooks(network) == 0


def test_a_module_that_changes_the_number_of_rows_is_refused() -> None:
    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat(x.chunk(2, 1))

    for network in (Staged(Halves(), nn.Identity()), Mixable(nn.Sequential(Halves()), ["0"])):
        with pytest.raises(ValueError, match="for 2 rows at layer 1, not 4"):
            network(torch.randn(2, 4), at(1))
