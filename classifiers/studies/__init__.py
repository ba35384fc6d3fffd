"""The paper's small analyses: a study is one file with `SEEDS`, `units`, `run`, `verdicts` and `plot`.

    SEEDS: int                                                 how many seeds it runs by default
    units(seeds, fast) -> int                                  how often `run` reports progress
    run(seeds, fast, progress) -> dict                         the numbers, ready for JSON; the long part
    verdicts(numbers) -> list of Verdict                       what they say of the paper's claims
    plot(numbers, path)                                        the picture, from the numbers alone

A study of saved classifiers has `run(seeds, fast, progress, runs)`, with the folder they are in. `scripts/run_study.py`
runs them by name. They are small, so they run on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from mmgan.experiments.differences import Difference, verdict

Found = Literal["shows", "undecided", "the opposite shows"]


class Verdict(NamedTuple):
    """What the numbers of a study say of one claim."""

    claim: str
    """The paper's, in one sentence, with its place."""
    found: Found
    because: str
    """The numbers that decide."""


def decide(found: Difference) -> Found:
    """What a difference says of the claim that it is negative, by its 95 % interval."""
    return cast(Found, verdict(found))


def conjunction(words: Sequence[Found]) -> Found:
    """Of a claim that is several at once: it shows where all show; the opposite where that of one does."""
    return next((word for word in ("the opposite shows", "undecided") if word in words), "shows")


def by_seed(measures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    """{seed: {measure: value}}, as JSON has it, to {measure: {seed: value}}."""
    names = dict.fromkeys(name for row in measures.values() for name in row)
    return {name: {int(seed): row[name] for seed, row in measures.items()} for name in names}


def share_within(h: Tensor, labels: Tensor) -> float:
    """The share of the variance of states [N, d] that is within classes: 0 for points, 1 for classes on one another.

    1 too where all states are one, as those of a network that learnt nothing may be.
    """
    h = h.double()
    means = torch.stack([h[labels == c].mean(0) for c in labels.unique()])
    inside = h - means[torch.unique(labels, return_inverse=True)[1]]
    total = (h - h.mean(0)).square().sum()
    return (inside.square().sum() / total).item() if total > 0 else 1.0
