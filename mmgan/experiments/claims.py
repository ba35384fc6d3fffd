"""Decisions on the claims of an experiment, from its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmgan.experiments.differences import LEVEL, Difference, difference, holm, interval, verdict
from mmgan.experiments.measures import Measure, corrected_with
from mmgan.experiments.published import published
from mmgan.experiments.results import Result, values_of
from mmgan.experiments.tables import described


class Decision(NamedTuple):
    """The decision on a claim, from the runs of its two arms."""

    claim: Mapping[str, Any]
    measure: Measure
    found: Difference
    """The claim's arm minus its other, paired by seed."""
    p: float
    """p value, corrected for all claims about measures that count as one (`corrected_with`)."""
    verdict: str
    level: float
    """The level at which the correction tests the smallest p of those claims."""

    @property
    def text(self) -> str:
        """The claim, without its measure."""
        return f"`{self.claim['arm']}` {self.claim['direction']} `{self.claim['other']}`"

    @property
    def interval(self) -> str:
        """The difference with its confidence interval."""
        return interval(self.found, self.measure.decimals, self.measure.factor)


def decisions(claims: Sequence[Mapping[str, Any]], results: Sequence[Result]) -> list[Decision]:
    """The decisions on the claims of an experiment."""
    found = [
        difference(values_of(results, one["arm"], one["measure"]), values_of(results, one["other"], one["measure"]))
        for one in claims
    ]
    p, levels = [float("nan")] * len(found), [LEVEL] * len(found)
    families = [corrected_with(one["measure"]) for one in claims]
    for name in set(families):
        own = [i for i, one in enumerate(families) if one == name]
        for i, value in zip(own, holm([found[i].p for i in own]), strict=True):
            p[i] = value
            levels[i] = LEVEL / max(1, sum(found[k].n > 1 for k in own))
    words = [verdict(one, q, claim["direction"]) for claim, one, q in zip(claims, found, p, strict=True)]
    measures = [described(results, one["measure"]) for one in claims]
    return [Decision(*one) for one in zip(claims, measures, found, p, words, levels, strict=True)]


def source(claim: Mapping[str, Any]) -> str:
    """The source of a claim, with the published numbers of its two arms."""
    figure = published().get(claim["source"])
    if figure is None:
        return str(claim["source"]) or "-"
    values = [figure.values.get(claim[key], "-") for key in ("other", "arm")]
    numbers = f": {values[0]} to {values[1]} {figure.unit}".rstrip() if "-" not in values else ""
    return f"{figure.place}, {figure.setting}{numbers}"
