"""All scores in some folders as tables, one per protocol, so that a table only contains comparable numbers."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mmgan.engine import files
from mmgan.errors import UserError
from mmgan.scoring import records
from mmgan.scoring.records import Record

SIGNIFICANCE = 0.05
OF_IMAGES = ("seed", "generator")
"""Entries of a stamp that describe the scored images rather than the protocol."""


class Entry(NamedTuple):
    """A row of a table."""

    name: str
    """What was scored."""
    record: Record


def tables(folders: list[Path], form: Literal["text", "markdown", "csv"] = "text") -> None:
    """Print every score in some folders, in one table per protocol, lowest FID first.

    Args:
        folders: folders of runs, and of records saved by mmgan score --output
        form: text, markdown or csv
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries(folders):
        by = {key: value for key, value in entry.record["stamp"].items() if key not in OF_IMAGES}
        groups.setdefault(json.dumps(by, sort_keys=True), []).append(entry)
    if not groups:
        raise UserError(f"there are no scores in {', '.join(map(str, folders))}")
    print("\n\n".join(_table(sorted(group, key=_rank), form) for group in groups.values()))


def entries(folders: Sequence[Path]) -> list[Entry]:
    """Every record in `folders`: a run's scores, and files of one record each.

    A published result is such a file with a `source` that says where it is from. A damaged file is left out with a
    warning. Raises UserError for a missing folder.
    """
    there: dict[Path, Path] = {}  # each once, even in nested folders
    for folder in folders:
        if not folder.exists():
            raise UserError(f"{folder} does not exist")
        for file in sorted(folder.rglob("*.json")) if folder.is_dir() else [folder]:
            there.setdefault(file.resolve(), file)
    found: list[Entry] = []
    for file in there.values():
        try:
            whole = records.read(file.parent) if file.name == "scores.json" else _record(file)
            found += [Entry(records.name_of(one), _checked(one)) for one in whole]
        except (UserError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            warnings.warn(f"{file} is damaged and left out ({error})", stacklevel=2)
    return found


def _checked(record: Record) -> Record:
    """The record itself; raises ValueError if its scores or seeds are not numbers."""
    if not all(type(score) in (int, float) and math.isfinite(score) for score in record["scores"].values()):
        raise ValueError("its scores are not finite numbers")
    seeds = record.get("fake", {}).get("seeds", [])
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise ValueError("its seeds are not a list of numbers")
    return record


def _record(file: Path) -> list[Record]:
    """The record in a file; none if the file holds anything else."""
    try:
        found = json.loads(files.read(file))
    except (UserError, ValueError, RecursionError):
        return []
    whole = isinstance(found, dict) and isinstance(found.get("fake"), dict) and "name" in found["fake"]
    whole = whole and isinstance(found.get("stamp"), dict) and isinstance(found.get("scores"), dict)
    return [found] if whole and ("source" in found or "checkpoint" in found) else []


def _rank(entry: Entry) -> tuple[float, str]:
    return entry.record["scores"].get("fid", float("inf")), entry.name


def _table(group: Sequence[Entry], form: str) -> str:
    head = records.described(group[0].record)
    rows = [(entry.name, entry.record["scores"]) for entry in group]
    if form == "text":
        return "\n".join([head, records.table(rows), *_differences(group)])
    lines = records.cells(rows)
    if form == "markdown":
        lines.insert(1, ["---"] * len(lines[0]))
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return "\n\n".join([head, table, *_differences(group)])
    out = io.StringIO()
    names = sorted({name for _, scores in rows for name in scores})
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["", *names, "protocol"])
    writer.writerows([name, *(scores.get(key, "") for key in names), head] for name, scores in rows)
    return out.getvalue().rstrip("\n")


def _differences(group: Sequence[Entry]) -> list[str]:
    """For adjacent entries with several sampling seeds, whether their FIDs differ by more than noise."""
    from scipy.stats import ttest_ind_from_stats  # noqa: PLC0415  # takes a second to import

    said = []
    for better, worse in itertools.pairwise(group):
        counts = [len(entry.record.get("fake", {}).get("seeds", [])) for entry in (better, worse)]
        if min(counts) > 1 and all("fid_std" in entry.record["scores"] for entry in (better, worse)):
            facts = [
                (entry.record["scores"]["fid"], entry.record["scores"]["fid_std"], n)
                for entry, n in zip((better, worse), counts, strict=True)
            ]
            p = ttest_ind_from_stats(*facts[0], *facts[1], equal_var=False).pvalue
            verdict = "more than" if p < SIGNIFICANCE else "no more than"
            said.append(
                f"{better.name} is {facts[1][0] - facts[0][0]:.3g} below {worse.name} in FID: {verdict} the noise of "
                f"sampling (Welch's t-test, p = {p:.2g}), which does not include the noise of training"
            )
    return said
