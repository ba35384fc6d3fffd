"""Tables of a report, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmgan.statistics import Difference


def head(*cells: str) -> list[str]:
    """The first two lines of a table."""
    return [row(*cells), row(*["---"] * len(cells))]


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and, for two values or more, standard deviation."""
    if not values:
        return "-"
    deviation = f" +- {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


def interval(found: Difference | None, factor: float, digits: int) -> str:
    """A difference and its confidence interval, times `factor`."""
    if found is None or not found.n:
        return "-"
    mean, low, high = (factor * value for value in found[:3])
    if found.n < 2:
        return f"{mean:+.{digits}f} (n = 1)"
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
