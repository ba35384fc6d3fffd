"""AdaMixUp: halves of a batch, intervals by a policy, the intrusion loss, and whose gradient goes where."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from mmgan.mixup import AdaMixUp, Staged
from mmgan.mixup.rules.adamixup import Adaptive
from tests.mixup.cases import seeded, seeds
from tests.mixup.test_plans import check_shares


@given(st.integers(1, 4), st.integers(1, 4), seeds)
def test_the_first_half_of_each_block_is_mixed_with_rows_of_all_of_it(blocks: int, half: int, seed: int) -> None:
    plans = AdaMixUp(layers=(1,)).draw(2 * half * blocks, seeded(seed), blocks)
    (plan,) = plans.plans
    share = 2 * half
    assert plan.left.tolist() == [b * share + row for b in range(blocks) for row in range(half)]
    assert torch.equal(plan.right // share, plan.left // share)
    assert len(plan.right.unique()) == len(plan.right)
    assert (plans.rows, plans.plain, plan.layer) == (share * blocks, share * blocks, 1)


@given(st.sampled_from([1, 2, 4]), st.integers(1, 3), seeds)
def test_shares_add_up(world: int, half: int, seed: int) -> None:
    check_shares(AdaMixUp().draw(2 * half * world, seeded(seed), blocks=world), world)


def test_what_cannot_be_halved_or_learnt_is_refused() -> None:
    with pytest.raises(ValueError, match="3 rows do not work"):
        AdaMixUp().draw(6, blocks=2)
    with pytest.raises(ValueError, match="policy learns from"):
        AdaMixUp(detach=True)


def test_the_policy_sees_half_the_sum_of_both_images_times_truncated_normal_numbers() -> None:
    (plan,) = AdaMixUp().draw(8, seeded(0)).plans
    assert isinstance(plan, Adaptive)
    ones, zeros = torch.ones(8, 3, 20, 20), torch.zeros(8, 3, 20, 20)
    m = {}
    for side, rows in (("left", plan.left), ("right", plan.right)):
        x = zeros.clone()
        x[rows] = 1
        m[side] = x
    both = plan.blend(ones)
    halves = [torch.randn(8, 3, 20, 20, generator=seeded(seed)) for seed in (1, 2)]
    total = sum(plan.blend(part) for part in halves)
    torch.testing.assert_close(plan.blend(halves[0] + halves[1]), total, msg="linear in the images")
    assert both.shape == (4, 3, 20, 20)
    alone = plan.left[~torch.isin(plan.left, plan.right)]
    if len(alone):
        x = zeros.clone()
        x[alone] = 2
        numbers = plan.blend(x)[torch.isin(plan.left, alone)].flatten().numpy()
        assert np.abs(numbers).max() <= 2
        assert stats.kstest(numbers, stats.truncnorm(-2, 2).cdf).pvalue > 1e-4
    assert torch.equal(both, plan.blend(ones)), "the same every time"
    assert torch.equal(plan.take(torch.tensor([2, 0])).blend(ones), both[[2, 0]])


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


class Learning:
    """A small network in float64, its rule's parts, and a batch."""

    def __init__(self, layer: int) -> None:
        torch.manual_seed(0)
        self.rule = AdaMixUp(layers=(layer,))
        self.first, self.last = nn.Sequential(nn.Linear(6, 5), nn.Tanh()).double(), nn.Linear(5, 3).double()
        self.head = self.rule.head(5).double()
        self.policy = self.rule.policy(lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh()), 4).double()
        with torch.no_grad():  # as if something had been learnt
            for p in (*self.policy.interval.parameters(), *self.head.parameters()):
                p.normal_(std=0.3, generator=seeded(7))
        self.x = torch.randn(8, 6, generator=seeded(1), dtype=torch.float64)
        self.y = F.one_hot(torch.arange(8) % 3, 3).double()
        self.drawn = self.rule.draw(8, seeded(2))

    def both(self, features: Tensor) -> Tensor:
        return torch.cat([self.last(features), self.head(features)], 1)

    def terms(self) -> tuple[dict[str, Tensor], Any]:
        plans = self.rule.complete(self.policy, self.x, self.drawn)

        class Both(nn.Module):
            def forward(inner, features: Tensor) -> Tensor:  # noqa: N805
                return self.both(features)

        outputs, targets = Staged(self.first, Both())(self.x, plans, self.y)
        return self.rule.terms(outputs, targets, plans, F.cross_entropy), plans

    def by_hand(self, lam: np.ndarray | None = None, label_lam: np.ndarray | None = None) -> tuple[float, float]:
        """Both terms in NumPy, by lam of the policy, or with lam of states and of labels held."""
        (plan,) = self.drawn.plans
        assert isinstance(plan, Adaptive)
        weight = {name: p.detach().numpy() for name, p in self.policy.named_parameters()}
        if lam is None:
            h = np.tanh(plan.blend(self.x).numpy() @ weight["backbone.0.weight"].T + weight["backbone.0.bias"])
            h = h @ weight["interval.0.weight"].T + weight["interval.0.bias"]
            abc = softmax((h @ weight["interval.1.weight"].T + weight["interval.1.bias"]).astype(np.float32))
            lam = abc[:, 0] + abc[:, 1] * plan.lam.numpy()
        lam = lam.astype(np.float64)[:, None]
        label_lam = lam if label_lam is None else label_lam.astype(np.float64)[:, None]
        x, y, left, right = self.x.numpy(), self.y.numpy(), plan.left.numpy(), plan.right.numpy()

        def below(x: np.ndarray) -> np.ndarray:
            return np.asarray(
                np.tanh(x @ self.first[0].weight.detach().numpy().T + self.first[0].bias.detach().numpy())
            )

        mixed = (
            below(lam * x[left] + (1 - lam) * x[right])
            if plan.layer == 0
            else lam * below(x)[left] + (1 - lam) * below(x)[right]
        )
        features = np.concatenate([below(x), mixed])
        with torch.no_grad():
            outputs = self.both(torch.from_numpy(features)).numpy()
        log_p, log_q = np.log(softmax(outputs[:, :3])), np.log(softmax(outputs[:, 3:]))
        soft = label_lam * y[left] + (1 - label_lam) * y[right]
        on_mixed, on_x1 = -(soft * log_p[8:]).sum(1), -(y[left] * log_p[left]).sum(1)
        intrusion = [*-log_q[:8, 1], *-log_q[8:, 0]]
        return float(np.mean([*on_mixed, *on_x1])), float(np.mean(intrusion))


@pytest.mark.parametrize("layer", [0, 1])
def test_both_terms_agree_with_numpy(layer: int) -> None:
    """Mixed rows and x1 are classified; u and x1 are told from mixed rows: 4 and 4, 4 and 4 and 4 of them."""
    learning = Learning(layer)
    terms, _ = learning.terms()
    assert [term.item() for term in (terms["supervised"], terms["intrusion"])] == pytest.approx(
        learning.by_hand(), rel=1e-6
    )


@pytest.mark.parametrize("layer", [0, 1])
def test_lam_has_its_gradient_through_the_states_alone(layer: int) -> None:
    """Against differences, the labels' lam held."""
    learning = Learning(layer)
    terms, plans = learning.terms()
    (plan,) = plans.plans
    found = torch.autograd.grad(sum(terms.values()), plan.lam)[0].numpy()
    lam, eps = plan.lam.detach().double().numpy(), 1e-5
    for i in range(4):
        moved = [lam + sign * eps * np.eye(4)[i] for sign in (1, -1)]
        up, down = (sum(learning.by_hand(one, lam)) for one in moved)
        assert found[i] == pytest.approx((up - down) / (2 * eps), rel=1e-3, abs=1e-6)
    assert plan.lam.requires_grad
    assert not plan.mix_targets(learning.y, learning.x).requires_grad


@pytest.mark.parametrize("name", ["supervised", "intrusion"])
def test_each_term_alone_reaches_its_parts_and_goes_down_by_its_gradient(name: str) -> None:
    learning = Learning(0)
    parts: dict[str, nn.Module] = {part: getattr(learning, part) for part in ("policy", "first", "head", "last")}
    before = learning.terms()[0][name]
    before.backward()
    squares = {
        part: sum(p.grad.square().sum().item() for p in module.parameters() if p.grad is not None)
        for part, module in parts.items()
    }
    assert {part for part, square in squares.items() if square} == {
        *("policy", "first"),
        "last" if name == "supervised" else "head",
    }
    for part, module in parts.items():  # alone, by as much as its gradient says; labels' lam moves with the policy's
        if not squares[part] or (part, name) == ("policy", "supervised"):
            continue
        step = 1e-4 / squares[part] ** 0.5
        with torch.no_grad():
            for p in module.parameters():
                p.sub_(step * p.grad)
            lower = learning.terms()[0][name]
            for p in module.parameters():
                p.add_(step * p.grad)
        assert before.item() - lower.item() == pytest.approx(step * squares[part], rel=0.05), part


def test_policies_that_follow_the_gradient_make_mixes_that_are_told_from_images() -> None:
    """The policy alone learns, on the intrusion term: its own loss goes down."""
    learning = Learning(0)
    before = learning.terms()[0]["intrusion"].item()
    descent = torch.optim.SGD(learning.policy.parameters(), 0.1)
    for _ in range(50):
        descent.zero_grad()
        learning.terms()[0]["intrusion"].backward()
        descent.step()
    assert learning.terms()[0]["intrusion"].item() < before


@given(seeds)
def test_lam_lies_in_the_interval_within_0_and_1(seed: int) -> None:
    learning = Learning(0)
    learning.drawn = learning.rule.draw(8, seeded(seed))
    (plan,) = learning.rule.complete(learning.policy, learning.x, learning.drawn).plans
    assert isinstance(plan, Adaptive)
    assert ((plan.low >= 0) & (plan.lam >= plan.low) & (plan.lam <= plan.low + plan.width + 1e-6)).all()
    assert (plan.low + plan.width <= 1 + 1e-6).all()
    watched = learning.rule.watch(learning.rule.complete(learning.policy, learning.x, learning.drawn))
    assert watched["interval/high"].item() == pytest.approx((plan.low + plan.width).mean().item())
    assert watched["interval/low"].item() == pytest.approx(plan.low.mean().item())


def test_a_policy_starts_with_thirds() -> None:
    torch.manual_seed(0)
    policy = AdaMixUp().policy(nn.Flatten, 12)
    torch.testing.assert_close(policy(torch.rand(5, 12)), torch.full((5, 3), 1 / 3), atol=1e-3, rtol=0)
