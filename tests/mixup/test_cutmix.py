"""CutMix against boxes rasterised pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmgan.mixup import ClassifierCutMix, DiscriminatorCutMix, Mixable, Plans, Staged
from mmgan.mixup.rules.cutmix import Boxes
from tests.mixup.cases import both_ways, box, images, seeded, seeds, small_stages

unit = st.floats(0, 1, width=32)
below_one = st.floats(0, 1, width=32, exclude_max=True)
maps = st.sampled_from([(1, 1), (2, 3), (5, 4), (8, 8), (28, 28)])


def boxes(lam: list[float], centre: list[tuple[float, float]]) -> Boxes:
    rows = torch.arange(len(lam))
    return Boxes(0, rows, rows.flip(0), torch.tensor(lam), centre=torch.tensor(centre))


@given(st.lists(st.tuples(unit, st.tuples(below_one, below_one)), min_size=1, max_size=4), maps)
def test_boxes_are_the_definition_s(pairs: list[tuple[float, tuple[float, float]]], size: tuple[int, int]) -> None:
    lam, centre = zip(*pairs, strict=True)
    plan = boxes(list(lam), list(centre))
    expected = np.stack([box(one, at, *size) for one, at in pairs])
    np.testing.assert_array_equal(plan.inside(*size).numpy(), expected)
    share = plan.share_of_left(torch.zeros(len(pairs), 2, *size))
    np.testing.assert_allclose(share.numpy(), 1 - expected.mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("lam", "centre", "rows", "columns"),
    [
        (0.75, (0.5, 0.5), range(2, 6), range(2, 6)),  # half the side
        (0.75, (0.0, 0.99), range(2), range(5, 8)),  # cut off at the border
        (0.0, (0.5, 0.5), range(8), range(8)),  # all
        (0.0, (0.0, 0.5), range(4), range(8)),
        (0.86, (0.5, 0.25), range(3, 5), range(1, 3)),  # a side of 2.99 is one of 2
        (0.99, (0.5, 0.5), range(0), range(0)),  # a side below 1 is none
        (1.0, (0.5, 0.5), range(0), range(0)),
    ],
)
def test_boxes_by_eye(lam: float, centre: tuple[float, float], rows: range, columns: range) -> None:
    expected = np.zeros((8, 8), bool)
    expected[np.ix_(rows, columns)] = True
    np.testing.assert_array_equal(boxes([lam], [centre]).inside(8, 8)[0].numpy(), expected)


@pytest.mark.parametrize("rule", [ClassifierCutMix, DiscriminatorCutMix])
@given(st.integers(2, 6), maps, seeds)
def test_every_pixel_is_one_of_the_two_rows_and_targets_are_areas(
    rule: Any, size: int, shape: tuple[int, int], seed: int
) -> None:
    plans = rule(layers=(0,)).draw(size, seeded(seed))
    (plan,) = plans.plans
    x, y = torch.rand(plans.rows, 3, *shape, generator=seeded(seed)), torch.eye(plans.rows)
    mixed, targets = plan.mix_states(x), plan.mix_targets(y, x)
    for row, target, left, right, inside in zip(
        mixed, targets, plan.left.tolist(), plan.right.tolist(), plan.inside(*shape), strict=True
    ):
        assert torch.equal(row[:, inside], x[right][:, inside])
        assert torch.equal(row[:, ~inside], x[left][:, ~inside])
        area = inside.double().mean().item()
        expected = np.zeros(plans.rows)
        expected[left] += 1 - area
        expected[right] += area
        np.testing.assert_allclose(target.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_targets_are_areas_of_the_layer_s_own_map(layer: int) -> None:
    """A box of a quarter around the corner: all of it on a map of 6 x 6, less on those of 3 x 3 and 1 x 1."""
    plan = boxes([0.5, 0.5], [(0.5, 0.5), (0.5, 0.5)])
    plans = Plans((Boxes(layer, plan.left, plan.right, plan.lam, centre=plan.centre),), 2)
    shares = [1 - 16 / 36, 1 - 4 / 9, 1.0]
    for network in both_ways([nn.AvgPool2d(2), nn.AvgPool2d(3), nn.Identity()]):
        _, y = network(torch.rand(2, 1, 6, 6), plans, torch.tensor([1.0, 0.0]))
        torch.testing.assert_close(y, torch.tensor([shares[layer], 1 - shares[layer]]))


@pytest.mark.parametrize("rule", [ClassifierCutMix, DiscriminatorCutMix])
def test_states_without_a_map_are_refused(rule: Any) -> None:
    flat = [nn.Flatten(), nn.Linear(24, 1).double(), nn.Identity()]
    for network in (Staged(*flat), Mixable(nn.Sequential(*flat), ["0", "1"])):
        plans = rule(layers=(1,)).draw(4)
        with pytest.raises(ValueError, match=r"\[N, C, H, W\], not \[\d, 24\]; choose other mixup.layers"):
            network(images(plans.rows), plans)


def test_a_box_depends_on_nothing_but_its_numbers() -> None:
    """A batch's first rows are mixed the same, whatever comes after them."""
    plans = ClassifierCutMix(layers=(1,)).draw(6, seeded(0))
    (plan,) = plans.plans
    half = Plans((plan.take(torch.arange(3)),), 6)
    network = Staged(*small_stages())
    torch.testing.assert_close(network(images(6), half), network(images(6), plans)[:3])
