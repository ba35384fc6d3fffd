"""Reads published.yaml, the figures quoted from the paper and from others, and shows them as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from mmgan.engine import files
from mmgan.engine.values import arguments


class Figure(NamedTuple):
    """One measure in one setting, by arm."""

    id: str
    place: str
    """Table, section or appendix of the paper, or the other system that was measured."""
    setting: str
    measure: str
    """Its name in our results, if we measure it."""
    unit: str
    values: Mapping[str, str]
    """By arm, as printed: `5.12`, or `4.96 +- 0.19` with its spread."""
    note: str = ""


@cache
def published() -> dict[str, Figure]:
    """All figures by id, in the order of the file; raises ValueError for an incomplete entry."""
    entries = files.read_yaml(Path(__file__).with_suffix(".yaml"))
    figures = {name: Figure(**arguments(Figure, {"id": name, **entry}, name)) for name, entry in entries.items()}
    for figure in figures.values():
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", figure.id):
            raise ValueError(f"{figure.id} is not in kebab-case")
        if not figure.values or not all(isinstance(text, str) for text in figure.values.values()):
            raise ValueError(f"{figure.id}.values must be a mapping to text, because a number would lose a final zero")
        for text in figure.values.values():
            number(text)
    return figures


def number(text: str) -> float:
    """The number in `5.12`, or the mean in `4.96 +- 0.19`; raises ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?: \+- \d+(?:\.\d+)?)?", text)
    if not found:
        raise ValueError(f"{text!r} is neither a number nor a mean with its spread")
    return float(found[1])


def table() -> str:
    """All figures as a Markdown table, in the order of the file; a place is named only in the first of its rows."""
    lines = ["| place | setting | measure | values | id |", "|---|---|---|---|---|"]
    before = ""
    for figure in published().values():
        values = ", ".join(f"{arm} {text}" for arm, text in figure.values.items())
        unit, note = figure.unit and f", {figure.unit}", figure.note and f". {figure.note}"
        place = "" if figure.place == before else figure.place
        before = figure.place
        lines.append(f"| {place} | {figure.setting} | {figure.measure}{unit} | {values}{note} | `{figure.id}` |")
    return "\n".join(lines).replace("|  |", "| |") + "\n"
