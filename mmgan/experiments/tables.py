"""Tables of runs: what their arms are, what distinguishes them, and their measures by arm."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from mmgan.experiments.differences import spread
from mmgan.experiments.experiment import plain
from mmgan.experiments.measures import Measure, describe, layer_name
from mmgan.experiments.results import Result, arms_of, values_of


def text_of(value: Any) -> str:
    """A setting as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text_of(one)}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def distinct(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The options that distinguish arms, by arm."""
    keys = list(dict.fromkeys(key for config in arms.values() for key in config))
    values = {key: {plain(config[key]) for config in arms.values() if key in config} for key in keys}
    absent = {key for key in keys if any(key not in config for config in arms.values())}
    shown = [key for key in keys if len(values[key]) > 1 or (key in absent and key.endswith(".class"))]
    shown += [key for key in keys if key in absent and any(config.get(key, 0) is None for config in arms.values())]
    return {arm: {key: config[key] for key in dict.fromkeys(shown) if key in config} for arm, config in arms.items()}


def setting(key: str, value: Any) -> str:
    """An option and its value as text."""
    if value is None:
        return f"no {key}"
    if key.endswith(".class"):
        return f"{key.removesuffix('.class')} {value}"
    if key.endswith("layers") and isinstance(value, list) and all(isinstance(one, int) for one in value):
        return f"{key} {{{', '.join(map(layer_name, value))}}}"
    return f"{key} {text_of(value)}"


def shared(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The options whose value is the same in all arms that have them, as text."""
    found = []
    for key in dict.fromkeys(key for config in arms.values() for key in config):
        values = [config[key] for config in arms.values() if key in config]
        if all(value == values[0] for value in values[1:]):
            found.append(f"`{key}` {text_of(values[0])}" + (", if present" if len(values) < len(arms) else ""))
    return found


def of_arms(arms: Mapping[str, Mapping[str, Any]], results: Sequence[Result]) -> list[list[str]]:
    """A row for each arm: its runs, their seeds, and what distinguishes it."""
    rows = [["arm", "runs", "seeds", "what distinguishes it"]]
    for arm, options in distinct(arms).items():
        own = [one for one in results if one.arm == arm]
        scored = [one.seed for one in own if not one.unscored]
        count = str(len(own)) if len(scored) == len(own) else f"{len(scored)} of {len(own)}"
        words = "; ".join(setting(key, value) for key, value in options.items())
        rows.append([f"`{arm}`", count, _ranges(scored) or "-", words or "-"])
    return rows


def _ranges(seeds: Iterable[int]) -> str:
    """Seeds as text; four or more in a row as a range: 0, 3, 100 to 115."""
    parts = []
    for _, group in groupby(enumerate(sorted(seeds)), key=lambda pair: pair[1] - pair[0]):
        row = [str(seed) for _, seed in group]
        parts.append(f"{row[0]} to {row[-1]}" if len(row) > 3 else ", ".join(row))
    return ", ".join(parts)


def _cells(results: Sequence[Result], arm: str, name: str) -> str:
    measure, values = described(results, name), values_of(results, arm, name)
    count = f" (n = {len(values)})" if values and len(values) < sum(one.arm == arm for one in results) else ""
    return spread([measure.factor * value for value in values.values()], measure.decimals) + count


def described(results: Sequence[Result], name: str) -> Measure:
    """The description of a measure, with enough decimals for three digits of its largest value."""
    measure = describe(name)
    largest = max((abs(measure.factor * one.measures[name]) for one in results if name in one.measures), default=0.0)
    decimals = 2 - math.floor(math.log10(largest)) if largest else 0
    return measure._replace(decimals=max(measure.decimals, min(decimals, 12)))


def by_arm(results: Sequence[Result], names: Sequence[str]) -> list[list[str]]:
    """A row for each arm, and a column for each measure: mean and standard deviation."""
    head = ["arm", "n", *(describe(name).title for name in names)]
    counts = {arm: sum(one.arm == arm for one in results) for arm in arms_of(results)}
    return [head, *([f"`{arm}`", str(n), *(_cells(results, arm, name) for name in names)] for arm, n in counts.items())]


def by_measure(results: Sequence[Result], names: Sequence[str]) -> list[list[str]]:
    """A row for each measure, and a column for each arm that has any of them: mean and standard deviation."""
    arms = [arm for arm in arms_of(results) if any(values_of(results, arm, name) for name in names)]
    head = ["", *(f"`{arm}`" for arm in arms)]
    return [head, *([describe(name).title, *(_cells(results, arm, name) for arm in arms)] for name in names)]
