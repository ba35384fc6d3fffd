"""Records of scores: those of a run in RUN/scores.json, and any of them as tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmgan.engine import files
from mmgan.errors import UserError
from mmgan.scoring.protocol import PROTOCOLS, comparable

Record = dict[str, Any]
"""`checkpoint` (best, last, a step, or "images"), `step`, `protocol` (a name), `dimension` of the features, `stamp`,
`scores`, `floor` of `num_floor` real images, what was scored (`fake`) and compared with (`real`), and `duplicates`."""
KEYS: dict[str, type | tuple[type, ...]] = {
    "checkpoint": (str, int),
    "step": int,
    "protocol": str,
    "stamp": dict,
    "scores": dict,
}
"""The keys of every record, and their types."""
LATER = ("fake", "real", "duplicates")
"""Keys that records of earlier versions may lack."""


def read(run: Path) -> list[Record]:
    """The records of a run, oldest first, without scores that are not finite, named after its folder.

    Raises UserError for a damaged file.
    """
    file = run / "scores.json"
    if not file.exists():
        return []
    try:
        records: list[Record] = json.loads(files.read(file))
        for record in records:
            for key, kind in KEYS.items():
                if not isinstance(record[key], kind):
                    raise TypeError(f"{key} is {record[key]!r}")
            for key in LATER:
                if not isinstance(record.get(key, {}), dict):
                    raise TypeError(f"{key} is {record[key]!r}")
            if "fake" not in record:  # of an earlier version, whose floor was of other images
                record.pop("floor", None)
            record["fake"] = record.get("fake", {}) | {"name": f"{run}:{record['checkpoint']}"}
            for part in {"scores", "floor"} & record.keys():
                record[part] = {name: score for name, score in record[part].items() if math.isfinite(score)}
    except (UserError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); remove it and score the run again") from error
    return records


def keep(run: Path, record: Record) -> None:
    """Add a record, replacing one of the same checkpoint by the same protocol; of the same weights, it keeps the rest.

    The rest is whatever the new record lacks, such as scores by other metrics.
    """
    others = []
    for old in read(run):
        if any(old[key] != record[key] for key in ("checkpoint", "protocol", "stamp")):
            others.append(old)
        elif old["step"] == record["step"] and old["fake"].get("hash") in (None, record["fake"]["hash"]):
            both = {part: old[part] | record[part] for part in ("scores", "floor") if part in old and part in record}
            record = old | {key: value for key, value in record.items() if value is not None} | both
    files.write(run / "scores.json", json.dumps([*others, record], indent=1, allow_nan=False) + "\n")


def beside(record: Record, run: Path) -> Record:
    """The record of another run's same checkpoint, to compare with `record`.

    Raises UserError if there is none, and, naming the fields, if it is by another protocol.
    """
    others = [one for one in read(run) if one["checkpoint"] == record["checkpoint"]]
    if not others:
        raise UserError(f"{run} has no score of its {record['checkpoint']} checkpoint; score it first")
    other = next((one for one in others if one["stamp"] == record["stamp"]), others[-1])
    comparable(other["stamp"], record["stamp"])
    return other


def summary(*made: Record) -> str:
    """Records of one protocol as a table, with a description of the measurement and notes on the scores."""
    stamp, seeds = made[0]["stamp"], made[0]["fake"].get("seeds", [])
    rows = [(name_of(record), record["scores"]) for record in made]
    if floored := next((record for record in made if "floor" in record), None):
        n = floored["num_floor"]
        rows.append((f"floor: {n} real images against {stamp['num_reference'] - n} others", floored["floor"]))
    spread = f", mean +- standard deviation over seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    notes = [*_notes_on_all(floored or made[0])]
    for record in made:
        notes += [f"{name_of(record)}: {note}" if len(made) > 1 else note for note in _notes_on_one(record)]
    by = f"{made[0]['protocol']}: " if made[0]["protocol"] in PROTOCOLS else ""
    return "\n".join([by + described(made[0]) + spread, table(rows), *notes])


def described(record: Record) -> str:
    """A description of the record's protocol."""
    stamp = record["stamp"]
    split = stamp.get("reference", "")
    real = stamp.get("data") if split != "all" else record.get("real", {}).get("name", stamp.get("data"))
    count = " ".join(str(part) for part in (stamp.get("num_reference"), "" if split == "all" else split) if part)
    more = stamp.get("is_samples", stamp.get("num_samples"))
    few = "" if more == stamp.get("num_samples") else f" ({more} for IS)"
    return f"{stamp.get('num_samples')} images{few} against {count} images of {real}, {stamp.get('extractor')} features"


def name_of(record: Record) -> str:
    """What was scored, as a table names it: images, or a run's checkpoint, weights and seeds."""
    fake, stamp = record["fake"], record["stamp"]
    if "source" in record:
        return f"{fake['name']} (published: {record['source']})"
    if (checkpoint := record["checkpoint"]) == "images":
        return str(fake["name"])
    where = fake["name"].removesuffix(f":{checkpoint}")
    step = "" if checkpoint == record["step"] else f" (step {record['step']})"
    seeds = fake.get("seeds", [stamp.get("seed", 0)])
    said = "" if seeds == [0] else f", {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
    return f"{where}, {checkpoint}{step}, {stamp.get('generator')}{said}"


def _notes_on_all(record: Record) -> Iterator[str]:
    """What is to be known of every score by the record's protocol."""
    stamp = record["stamp"]
    fewest = min(stamp["num_samples"], stamp["num_reference"])
    if record["dimension"] is not None and fewest <= record["dimension"]:
        yield (
            f"{fewest} images do not span {record['dimension']} features: their covariance is singular, and FID is "
            "biased upwards, the more so the fewer there are; compare only with FIDs of equally many images"
        )
    if "fid" in record.get("floor", {}) and record["num_floor"] < stamp["num_samples"]:
        yield "the floor's FID is biased upwards because it has fewer images than the samples"
    if n := record.get("duplicates", {}).get("real"):
        yield f"{n} of the real images repeat an earlier one"
    if changed := record.get("real", {}).get("changed"):
        yield f"real images were changed: {changed}"


def _notes_on_one(record: Record) -> Iterator[str]:
    """What is to be known of the images scored."""
    scores, of = record["scores"], record.get("num_held_out")
    repeated = record.get("duplicates", {})
    if n := repeated.get("fake"):
        yield f"{n} of the images scored repeat an earlier one"
    if n := repeated.get("both"):
        yield f"{n} of the images scored are pixel-for-pixel among the real ones"
    if "num_classes" in record and (n := sum(name.startswith("fid/") for name in scores)) < record["num_classes"]:
        yield f"intra_fid covers {n} of the {record['num_classes']} real classes; the others have too few images"
    if "kid" in scores and "kid_std" not in scores:
        size = record["stamp"]["kid"][1]
        yield f"KID's spread needs more than the {size} images of a subset on both sides"
    if changed := record["fake"].get("changed"):
        yield f"images scored were changed: {changed}"
    if "fid_gap" in scores:
        spread = f" +- {scores['fid_gap_std']:.2g}" if "fid_gap_std" in scores else ""
        yield (
            f"FID to {of} real images {scores['fid_train']:.4g}, to {of} held-out ones {scores['fid_held_out']:.4g}, "
            f"difference {scores['fid_gap']:+.4g}{spread}; copies of these real images would have "
            f"{-record['fid_apart']:.4g}, and new ones about 0 if both sets are drawn alike"
        )


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
