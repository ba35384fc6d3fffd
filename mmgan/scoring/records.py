"""The scores of a run: RUN/scores.json, and tables of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmgan.engine import files
from mmgan.errors import UserError
from mmgan.scoring.protocol import differing

Record = dict[str, Any]
"""`checkpoint` (best, last or a step), `step`, `protocol` (a name), `dimension` of the features, `stamp`, `scores`, and
`floor` of `num_floor` real images."""
KEYS: dict[str, type | tuple[type, ...]] = {
    "checkpoint": (str, int),
    "step": int,
    "protocol": str,
    "stamp": dict,
    "scores": dict,
}
"""The keys of every record, and their types."""


def read(run: Path) -> list[Record]:
    """The records of a run, oldest first, without scores that are not finite; raises UserError for a damaged file."""
    file = run / "scores.json"
    if not file.exists():
        return []
    try:
        records: list[Record] = json.loads(files.read(file))
        for record in records:
            for key, kind in KEYS.items():
                if not isinstance(record[key], kind):
                    raise TypeError(f"{key} is {record[key]!r}")
            for part in {"scores", "floor"} & record.keys():
                record[part] = {name: score for name, score in record[part].items() if math.isfinite(score)}
    except (UserError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); remove it and score the run again") from error
    return records


def keep(run: Path, record: Record) -> None:
    """Add a record, replacing one of the same checkpoint by the same protocol, whose other metrics are kept.

    Records of mmgan score contain more than scores, so they only replace one with the same metrics.
    """
    before = read(run)
    twins = [old for old in before if _replaced(old, record)]
    others = [old for old in before if old not in twins]
    for old in twins:
        if old["step"] == record["step"]:
            for part in {"scores", "floor"} & record.keys() & old.keys():
                if part == "scores" or old.get("num_floor") == record.get("num_floor"):
                    record = {**record, part: old[part] | record[part]}
            if record.get("dimension") is None:
                record = {**record, "dimension": old.get("dimension")}
    files.write(run / "scores.json", json.dumps([*others, record], indent=1, allow_nan=False) + "\n")


def _replaced(old: Record, new: Record) -> bool:
    alike = all(old[key] == new[key] for key in ("checkpoint", "protocol")) and same(old, new)
    return alike and ("fake" not in new or old["scores"].keys() == new["scores"].keys())


def same(a: Record, b: Record) -> bool:
    """Whether two records may be compared."""
    return not differing(a["stamp"], b["stamp"])


def table(rows: Sequence[tuple[str, dict[str, float]]]) -> str:
    """Scores as aligned columns, one line each: mean +- standard deviation, if there is one."""
    lines = cells(rows)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines)


def cells(rows: Sequence[tuple[str, dict[str, float]]]) -> list[list[str]]:
    """The cells of such a table as text, with the column heads first."""
    names = [
        name
        for name in ("is", "fid", "kid", "precision", "recall", "density", "coverage", "intra_fid")
        if any(name in scores for _, scores in rows)
    ]

    def cell(scores: dict[str, float], name: str) -> str:
        if name not in scores:
            return "-"
        spread = scores.get(f"{name}_std")
        return f"{scores[name]:.4g}" + (f" +- {spread:.2g}" if spread is not None else "")

    lines = [["", *(name if len(name) > 3 else name.upper() for name in names)]]
    return lines + [[label, *(cell(scores, name) for name in names)] for label, scores in rows]
