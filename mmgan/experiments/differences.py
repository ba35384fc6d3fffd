"""Differences between arms of an experiment, paired by seed, what they say, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
    """Of an arm to another, paired by seed: mean, 95 % confidence interval and p value (Student's t, n - 1 degrees)."""

    mean: float
    low: float
    high: float
    n: int
    p: float

    def finite(self) -> dict[str, float | None]:
        """By name, for JSON: None for what is endless or no number."""
        return {key: value if np.isfinite(value) else None for key, value in self._asdict().items()}


def difference(arm: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """`arm` minus `other` over the seeds both have; for fewer than two the interval is endless and p not a number."""
    seeds = sorted(arm.keys() & other.keys())
    values = np.array([arm[seed] - other[seed] for seed in seeds])
    mean = float(values.mean()) if len(values) else np.nan
    if len(values) < 2:
        return Difference(mean, -np.inf, np.inf, len(values), np.nan)
    error = values.std(ddof=1) / np.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * error)
    p = 2 * float(stats.t.sf(abs(mean) / error, len(values) - 1)) if error else float(mean == 0)
    return Difference(mean, mean - half, mean + half, len(values), p)


def verdict(found: Difference) -> str:
    """What a difference says of the claim that it is negative; without a pair of runs there is no verdict."""
    if not found.n:
        return "no runs"
    if found.high < 0:
        return "shows"
    if found.low > 0:
        return "the opposite shows"
    return "undecided"


def spread(values: Mapping[int, float] | Sequence[float], decimals: int = 3) -> str:
    """Mean +- standard deviation of values, or of values by seed, as text; the mean of one, - for none."""
    found = np.array([*values.values()] if isinstance(values, Mapping) else values)
    if not len(found):
        return "-"
    return f"{found.mean():.{decimals}f}" + (f" +- {found.std(ddof=1):.{decimals}f}" if len(found) > 1 else "")


def interval(found: Difference | None, decimals: int = 3, factor: float = 1.0) -> str:
    """A difference times `factor`, with its confidence interval, as text; - for none."""
    if found is None or not found.n:
        return "-"
    mean, low, high = (factor * value for value in found[:3])
    if found.n < 2:
        return f"{mean:+.{decimals}f} (n = 1)"
    return f"{mean:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]"


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) adjustment of p values for there being several; those that are no numbers stay and do not count."""
    adjusted = [float(value) for value in p]
    order = sorted((i for i, value in enumerate(adjusted) if not np.isnan(value)), key=lambda i: p[i])
    least = 0.0
    for rank, i in enumerate(order):
        least = adjusted[i] = min(1.0, max(least, (len(order) - rank) * p[i]))
    return adjusted
