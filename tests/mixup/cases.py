"""What these tests share: rules with any options, small networks, and the equations one pair at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from mmgan.mixup import (
    AdaMixUp,
    ClassifierCutMix,
    ClassifierMixup,
    ClassifierNoisyMixup,
    ClassifierRule,
    DiscriminatorCutMix,
    DiscriminatorMixup,
    DiscriminatorNoisyMixup,
    DiscriminatorRule,
    Mixable,
    Plan,
    Plans,
    Staged,
)
from mmgan.mixup.rules.cutmix import Boxes
from mmgan.mixup.rules.noisy import Noisy

KINDS = {"real-fake": (True, False), "fake-real": (False, True), "fake-fake": (False, False), "real-real": (True, True)}
"""Kinds of pairs: whether their left and their right row are real."""
PRESETS: dict[str, DiscriminatorRule] = {
    "paper": DiscriminatorMixup(),
    "eq11": DiscriminatorMixup(generator_weight=0),
    "split": DiscriminatorMixup(lam_per="batch", share="split", generator_weight=0),
    "official-code": DiscriminatorMixup(
        alpha=0.2, lam="folded-beta", pairs=("real-fake",), share="split", target="fake", generator_weight=0
    ),
    "official-code with fake-fake": DiscriminatorMixup(
        alpha=0.2, lam="folded-beta", pairs=("real-fake", "fake-fake"), target="fake", weight=2, generator_weight=0
    ),
    "zhang": DiscriminatorMixup(
        alpha=0.2, layers=(0,), pairs=tuple(KINDS), share="random", replace=True, generator_weight=0
    ),
    "a layer for every pair": DiscriminatorMixup(layer_per="pair"),
    "a layer for every pair, replacing": DiscriminatorMixup(layer_per="pair", replace=True),
    "cutmix": DiscriminatorCutMix(),
}

layers = st.lists(st.integers(0, 2), min_size=1, unique=True)
per = st.sampled_from(["batch", "pair"])
classifier: dict[str, st.SearchStrategy[Any]] = {"layers": layers, "detach": st.booleans()}
discriminator: dict[str, st.SearchStrategy[Any]] = {
    "layers": layers,
    "layer_per": per,
    "pairs": st.lists(st.sampled_from(list(KINDS)), min_size=1, unique=True),
    "share": st.sampled_from(["each", "split", "random"]),
    "rows": st.sampled_from(["all", "first"]),
    "target": st.sampled_from(["soft", "fake"]),
    "weight": st.floats(0.1, 3),
    "generator_weight": st.just(0.0) | st.floats(0.1, 3),
    "replace": st.booleans(),
}
uniform = {"alpha": st.floats(0.1, 1), "lam": st.sampled_from(["uniform", "folded-beta"]), "lam_per": per}
noise = {"additive": st.floats(0, 1), "multiplicative": st.floats(0, 1)}
OPTIONS: dict[type[Any], dict[str, st.SearchStrategy[Any]]] = {
    ClassifierMixup: classifier | {"alpha": st.floats(0.1, 5), "lam_per": per},
    AdaMixUp: {"layers": layers, "detach": st.just(value=False)},
    ClassifierNoisyMixup: classifier | {"alpha": st.floats(0.1, 5), "lam_per": per} | noise,
    ClassifierCutMix: classifier | {"alpha": st.floats(0.1, 5)},
    DiscriminatorMixup: discriminator | uniform,
    DiscriminatorNoisyMixup: discriminator | uniform | noise,
    DiscriminatorCutMix: discriminator | {"alpha": st.floats(0.1, 5)},
}
"""Every rule, and any value of each of its options."""


def built(base: type[Any]) -> st.SearchStrategy[Any]:
    """The rules derived from `base`, with any options."""
    return st.one_of([st.builds(rule, **options) for rule, options in OPTIONS.items() if issubclass(rule, base)])


classifier_rules: st.SearchStrategy[ClassifierRule] = built(ClassifierRule).filter(lambda rule: not rule.learns)
"""Those that mix every row (AdaMixUp, which mixes one half of a batch, has a file of its own)."""
discriminator_rules: st.SearchStrategy[DiscriminatorRule] = built(DiscriminatorRule)
rules: st.SearchStrategy[ClassifierRule | DiscriminatorRule] = classifier_rules | discriminator_rules
sizes = st.integers(2, 5)
seeds = st.integers(0, 2**32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


drawn = st.builds(lambda rule, size, seed: rule.draw(size, seeded(seed)), rules, sizes, seeds)
"""Plans of any rule."""


def plan_of(layer: int, left: list[int], right: list[int], lam: float | list[float], **options: Any) -> Plan:
    return Plan(layer, torch.tensor(left), torch.tensor(right), torch.tensor(lam), **options)


def images(n: int, seed: int = 1) -> Tensor:
    """Double precision [n, 1, 4, 6]."""
    return torch.randn(n, 1, 4, 6, generator=seeded(seed), dtype=torch.float64)


def small_stages() -> list[nn.Module]:
    """Three stages, maps of two sizes, from images to logits [N]; the same weights every time."""
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh()),
        nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Tanh()),
        nn.Sequential(nn.Flatten(), nn.Linear(18, 1), nn.Flatten(0)),
    ]
    return [stage.double() for stage in stages]


def both_ways(stages: Sequence[nn.Module]) -> list[Staged | Mixable]:
    """The same network as a row of stages, and as one whose modules are named."""
    return [Staged(*stages), Mixable(nn.Sequential(*stages), [str(k) for k in range(len(stages) - 1)])]


def box(lam: float, centre: Sequence[float], height: int, width: int) -> np.ndarray:
    """CutMix's box, pixel by pixel: bool [height, width].

    The root is torch's, which is not always the nearest single: where a side is a whole number, that decides a pixel.
    """
    r = (1 - torch.tensor(lam)).sqrt().numpy()
    (top, bottom), (first, last) = (
        (int(np.float32(c) * size) - int(r * size) // 2, int(np.float32(c) * size) + int(r * size) // 2)
        for c, size in zip(centre, (height, width), strict=True)
    )
    inside = np.zeros((height, width), bool)
    for i, j in product(range(height), range(width)):
        inside[i, j] = top <= i < bottom and first <= j < last
    return inside


class Mixed(NamedTuple):
    """One mixed row."""

    output: Tensor
    """What the network returns for it, without the batch dimension."""
    left: int
    right: int
    share: float
    """How much of it is the left row."""


def one_by_one(stages: Sequence[nn.Module], x: Tensor, plans: Plans) -> Iterator[Mixed]:
    """The mixed rows of `x` [N, ...], each computed from its two source rows alone, in the order of layers."""

    def run(h: Tensor, some: Sequence[nn.Module]) -> Tensor:
        for stage in some:
            h = stage(h)
        return h

    for plan in plans.plans:
        lams = plan.lam.expand(len(plan.left)).tolist()
        for m, (left, right, lam) in enumerate(zip(plan.left.tolist(), plan.right.tolist(), lams, strict=True)):
            h1, h2 = (run(x[row : row + 1], stages[: plan.layer]) for row in (left, right))
            if isinstance(plan, Boxes):
                inside = box(lam, plan.centre[m].tolist(), *h1.shape[2:])
                h, share = torch.where(torch.from_numpy(inside), h2, h1), 1 - float(inside.mean())
            else:
                h, share = lam * h1 + (1 - lam) * h2, lam
            if isinstance(plan, Noisy):
                u, n = (drawn[m] for drawn in plan.noise(run(x, stages[: plan.layer])))
                h = (1 + plan.multiplicative * u) * h + plan.additive * n
            h = h.detach() if plan.detach else h
            yield Mixed(run(h, stages[plan.layer :])[0], left, right, share)


def eq_9(row: Mixed, size: int, target: str) -> float:
    """The target of a mixed row of `size` real rows and the fakes after them."""
    label = {(True, False): row.share, (False, True): 1 - row.share, (False, False): 0.0, (True, True): 1.0}
    return 0.0 if target == "fake" else label[row.left < size, row.right < size]
