"""The paper's small analyses: a study is one file with a docstring and the names below.

    SEEDS: int                                                 number of seeds by default
    READS_RUNS: bool                                           whether it reads saved classifiers
    units(setting) -> int                                      how often `run` reports progress
    run(setting) -> dict                                       the numbers, ready for JSON; the long part
    verdicts(numbers) -> list of Verdict                       what they say about the paper's claims
    plot(numbers, path)                                        the picture, from the numbers alone

The first line of the docstring is the study's title, and the rest describes the study; both go into its record.
`scripts/run_study.py` runs studies by name. They are small and run on the CPU, but saved classifiers use a GPU if there
is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

from mmgan.data import DataChange
from mmgan.experiments.differences import Difference, Found, verdict


@dataclass(frozen=True)
class Setting:
    """How to run a study."""

    seeds: Sequence[int]
    fast: bool = False
    """Run a version that takes a few seconds and whose numbers mean nothing."""
    progress: Callable[[str], None] = lambda _: None
    """Called with the name of every part of the work once it is done."""
    runs: Path | None = None
    """Folder of the saved classifiers."""
    data: DataChange = field(default_factory=DataChange)
    """Where their images are now."""


class Verdict(NamedTuple):
    """What the numbers of a study say about one claim."""

    claim: str
    """The paper's claim, in one sentence, with its place."""
    found: Found
    because: str
    """The numbers that decide it."""


def decide(found: Difference) -> Found:
    """What a difference says about the claim that it is negative, by its 95 % interval."""
    return cast(Found, verdict(found))


def conjunction(words: Sequence[Found]) -> Found:
    """The verdict on several claims at once: it shows if all show; the opposite shows if it does for any one."""
    return next((word for word in ("the opposite shows", "undecided") if word in words), "shows")


def by_seed(measures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    """Turn {seed: {measure: value}}, as in JSON, into {measure: {seed: value}}."""
    names = dict.fromkeys(name for row in measures.values() for name in row)
    return {name: {int(seed): row[name] for seed, row in measures.items()} for name in names}


def share_within(h: Tensor, labels: Tensor) -> float:
    """The fraction of the variance of states [N, d] that lies within classes.

    It is 0 if each class is a single point, and 1 if the classes' means coincide or all states are equal, as in a
    network that has learnt nothing.
    """
    h = h.double()
    means = torch.stack([h[labels == c].mean(0) for c in labels.unique()])
    inside = h - means[torch.unique(labels, return_inverse=True)[1]]
    total = (h - h.mean(0)).square().sum()
    return (inside.square().sum() / total).item() if total > 0 else 1.0
