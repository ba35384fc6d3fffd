"""Differences between two arms of an experiment, paired by seed: interval, p value, correction, verdict, power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import optimize, stats

LEVEL, POWER = 0.05, 0.8
"""Level of a two-sided test, and probability of detecting a true difference."""
Found = Literal["shows", "undecided", "the opposite shows"]
"""What runs say about a claim."""


class Difference(NamedTuple):
    """One arm minus another, paired by seed: mean, 95 % confidence interval and p value (Student's t, n - 1)."""

    mean: float
    low: float
    high: float
    n: int
    p: float
    deviation: float = float("nan")
    """Standard deviation of the paired differences, over seeds."""


def difference(arm: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """`arm` minus `other` over their common seeds; for fewer than two, the interval is infinite and p NaN.

    Examples:
        >>> difference({0: 1.0, 1: 2.0}, {0: 2.0, 1: 4.0}).mean
        -1.5
    """
    seeds = sorted(arm.keys() & other.keys())
    values = np.array([arm[seed] - other[seed] for seed in seeds])
    mean = float(values.mean()) if len(values) else np.nan
    if len(values) < 2:
        return Difference(mean, -np.inf, np.inf, len(values), np.nan)
    deviation = float(values.std(ddof=1))
    error = deviation / np.sqrt(len(values))
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1) * error)
    p = 2 * float(stats.t.sf(abs(mean) / error, len(values) - 1)) if error else float(mean == 0)
    return Difference(mean, mean - half, mean + half, len(values), p, deviation)


def verdict(found: Difference, p: float | None = None, direction: str = "below") -> Found | Literal["no pairs"]:
    """The verdict on the claim that a difference is `below` or `above` 0, by its p value or by `p`, a corrected one."""
    if not found.n:
        return "no pairs"
    if not (found.p if p is None else p) < LEVEL:
        return "undecided"
    return "shows" if (found.mean < 0) == (direction == "below") else "the opposite shows"


def holm(p: Sequence[float]) -> list[float]:
    """Holm's (1979) adjustment of p values for multiple tests; NaNs stay and do not count."""
    adjusted = [float(value) for value in p]
    order = sorted((i for i, value in enumerate(adjusted) if not np.isnan(value)), key=lambda i: p[i])
    least = 0.0
    for rank, i in enumerate(order):
        least = adjusted[i] = min(1.0, max(least, (len(order) - rank) * p[i]))
    return adjusted


@cache
def _quadrature() -> Any:
    """Gauss-Legendre quadrature, which takes longer to compute than to use."""
    return np.polynomial.legendre.leggauss(200)


def power(effect: float, n: int, level: float = LEVEL) -> float:
    """The probability that a two-sided paired t test at `level` detects a true difference of `effect` deviations.

    The noncentral t distribution is computed as a mean over the distribution of the estimated deviation, because that
    of SciPy has gaps for few seeds.
    """
    nodes, weights = _quadrature()
    estimated = np.sqrt(stats.chi2.ppf((nodes + 1) / 2, n - 1) / (n - 1))
    bound, shift = stats.t.ppf(1 - level / 2, n - 1) * estimated, abs(effect) * np.sqrt(n)
    return float(weights @ (stats.norm.sf(bound - shift) + stats.norm.cdf(-bound - shift)) / 2)


def detectable(deviation: float, n: int, level: float = LEVEL) -> float:
    """The smallest true difference that `n` seeds detect with probability `POWER`, in the unit of `deviation`.

    NaN for fewer than two seeds.
    """
    if n < 2 or np.isnan(deviation):
        return float("nan")
    highest = 1.0
    while power(highest, n, level) < POWER:
        highest *= 2
    return deviation * float(optimize.brentq(lambda effect: power(effect, n, level) - POWER, 0, highest))


def needed(mean: float, deviation: float, level: float = LEVEL) -> int | None:
    """The number of seeds that detects a true difference of `mean` with probability `POWER`; None if over 10,000.

    Raises ValueError for a deviation that is not positive, for which there is no such number.
    """
    if not deviation > 0:
        raise ValueError(f"deviation must be positive, not {deviation}")
    low, high = 2, 10_000
    if not mean or power(mean / deviation, high, level) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power(mean / deviation, middle, level) >= POWER else (middle + 1, high)
    return low


def spread(values: Mapping[int, float] | Sequence[float], decimals: int = 3) -> str:
    """Mean +- standard deviation of values, or of values by seed, as text; only the mean for one, - for none."""
    found = np.array([*values.values()] if isinstance(values, Mapping) else values)
    if not len(found):
        return "-"
    return f"{found.mean():.{decimals}f}" + (f" +- {found.std(ddof=1):.{decimals}f}" if len(found) > 1 else "")


def probability(p: float) -> str:
    """A p value as text; - for NaN."""
    return "-" if np.isnan(p) else "<0.001" if p < 0.0005 else f"{p:.3f}"


def interval(found: Difference, decimals: int = 3, factor: float = 1.0) -> str:
    """A difference times `factor`, with its confidence interval, as text; - for none."""
    if not found.n:
        return "-"
    mean, low, high = (factor * value for value in found[:3])
    if found.n < 2:
        return f"{mean:+.{decimals}f} (n = 1)"
    return f"{mean:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]"
