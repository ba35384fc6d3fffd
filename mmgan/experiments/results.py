"""Runs read from their folders, each once: configuration, measurements and protocols.

A run's folder may hold

    scores.json                        scores of a GAN's checkpoints
    evaluation.json                    a classifier on test images
    attack.json, attack-NAME.json      a classifier under attack
    result.json                        anything else: {"protocol": {...}, "measures": {name: number},
                                       "curves": {group: {panel: [[x, ...], [y, ...]]}}}, all but measures optional
    metrics.jsonl                      measurements during training
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mmgan.engine import files
from mmgan.engine.changes import differences
from mmgan.errors import UserError
from mmgan.experiments.measures import ATTACKS, layer_name

Curves = dict[str, dict[str, list[list[float]]]]
"""By group and panel: x and y."""
SEEDS = {"seed", "data.subset_seed"}
"""Options in which repetitions of a run differ."""
DAMAGE = (
    UserError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    RecursionError,
    ArithmeticError,
)


@dataclass
class Result:
    """One run."""

    folder: Path
    config: dict[str, Any]
    """Its options by their full names: `mixup.alpha`; a section's class is `mixup.class`."""
    arm: str = ""
    seed: int = 0
    measures: dict[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    protocols: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the measures depend on apart from the run's own options, by file."""
    others: list[str] = field(default_factory=list)
    """Other protocols of a GAN's final scores, if it has none by the requested one."""
    checks: list[dict[str, Any]] = field(default_factory=list)
    """Checks for masked gradients: name, passed (null if not measured), found, meaning."""
    notes: list[str] = field(default_factory=list)
    """What was left out."""
    unscored: str = ""
    """Why it has no measures; empty if it has some."""


def read(folders: Sequence[Path], protocol: str | None = None) -> list[Result]:
    """The runs in `folders`, each a run or a folder of runs at any depth, with the names of their arms.

    `protocol` selects the scores of GANs; None: the final protocol in their configurations. A damaged run is left out
    with a warning. Raises UserError if there are no runs; if measures are by different protocols, naming the field; if
    a run is not a repetition of others in its arm; and if an arm has a seed twice.
    """
    found = []
    for file in dict.fromkeys(file for folder in folders for file in sorted(folder.rglob("config.yaml"))):
        try:
            config = options_of(files.read_yaml(file))
            if type(seed := config.get("seed", 0)) is not int:
                raise TypeError(f"seed is {seed!r}")
            found.append(Result(file.parent, config, seed=seed))
        except DAMAGE as error:
            _left_out(file.parent, error)
    where = ", ".join(map(str, folders))
    if not found:
        raise UserError(f"there are no runs in {where}: no folder with a config.yaml")
    protocol = protocol or _named(found)
    whole = []
    for result in found:
        try:
            _fill(result, protocol)
            whole.append(result)
        except DAMAGE as error:
            _left_out(result.folder, error)
    if not whole:
        raise UserError(f"all runs in {where} are damaged")
    others = sorted({name for one in whole for name in one.others} - {protocol})
    if others and not any(f"scores, {protocol}" in one.protocols for one in whole):
        raise UserError(f"no run was scored by {protocol}; --protocol can be {', '.join(others)}")
    _same_protocols(whole)
    name_arms(whole)
    return whole


def _left_out(folder: Path, error: BaseException) -> None:
    reason = " ".join(f"{type(error).__name__ if not isinstance(error, UserError) else ''} {error}".split())[:200]
    warnings.warn(f"{folder} is damaged and left out ({reason})", stacklevel=3)


def _named(found: Sequence[Result]) -> str | None:
    """The only GAN protocol that configurations name or, if none do, that scores use; None if there is none."""
    named = {str(one.config["score.final"]) for one in found if one.config.get("score.final")}
    for one in [] if named else found:
        with suppress(*DAMAGE):  # damage is reported when the file is read
            named |= {str(record["protocol"]) for record in files.read_json(one.folder / "scores.json")}
    if len(named) > 1:
        raise UserError(
            f"the runs name {len(named)} protocols ({', '.join(sorted(named))}); choose one with --protocol"
        )
    return next(iter(named), None)


def options_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options of a configuration by their full names.

    Examples:
        >>> options_of({"mixup": {"class_path": "a.B", "init_args": {"alpha": 1.0}}, "seed": 3})
        {'mixup.class': 'B', 'mixup.alpha': 1.0, 'seed': 3}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if not isinstance(value, dict):
            found[name] = value
        elif "class_path" in value:
            found[f"{name}.class"] = str(value["class_path"]).rpartition(".")[2]
            found |= options_of(value.get("init_args") or {}, f"{name}.")
        else:
            found |= options_of(value, f"{name}.")
    return found


def _fill(result: Result, protocol: str | None) -> None:
    """Read the run's measurements; raises one of DAMAGE for a damaged file."""
    folder = result.folder
    rows = files.read_rows(folder / "metrics.jsonl")
    if (folder / "scores.json").exists():
        _scores(result, protocol)
    if (folder / "evaluation.json").exists():
        _evaluation(result, files.read_json(folder / "evaluation.json"))
    for file in sorted(folder.glob("attack*.json")):
        if not file.stem.endswith(".begun"):
            _attack(result, file.stem, files.read_json(file))
    if (folder / "result.json").exists():
        _result(result, files.read_json(folder / "result.json"))
    if not result.measures and not result.unscored:
        ended = "steps" not in result.config or any(row["step"] == result.config["steps"] for row in rows)
        result.unscored = "not scored, evaluated or attacked" if ended else "not finished"
    _metrics(result, rows)


def _take(result: Result, name: str, protocol: dict[str, Any], measures: Mapping[str, Any]) -> None:
    """Add the finite measures in one file, and what they depend on."""
    for key, value in measures.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{key} is {value!r}")
        if math.isfinite(value):
            result.measures[str(key)] = float(value)
        else:
            result.notes.append(f"{key} is {value} and was left out")
    result.protocols[name] = protocol


def _scores(result: Result, protocol: str | None) -> None:
    """Scores of the last and the best checkpoint."""
    records = files.read_json(result.folder / "scores.json")
    newest = {str(record["checkpoint"]): record for record in records if record["protocol"] == protocol}
    others = sorted({str(record["protocol"]) for record in records if record["checkpoint"] == "last"} - {protocol})
    last = newest.get("last")
    if last is None or last["step"] != result.config.get("steps", last["step"]):  # scored manually before the end
        result.others = others
        result.unscored = f"not scored by {protocol}" + (f", but by {', '.join(others)}" if others else "")
        return
    measures = {key: value for key, value in last["scores"].items() if not key.endswith("_std")}
    if "best" in newest:
        best = newest["best"]["scores"].items()
        measures |= {f"best/{key}": value for key, value in best if not key.endswith("_std")}
    stamp = {key: value for key, value in last["stamp"].items() if key != "labels"}  # an option of conditional runs
    _take(result, f"scores, {protocol}", stamp, measures)


def _evaluation(result: Result, found: Mapping[str, Any]) -> None:
    """A classifier on test images; smaller is better except for the accuracy under each deformation."""
    if not found["finished"]:
        result.unscored = "evaluated before its training had finished"
        return
    lams = list(found["lams"])
    curves = {layer: _curve([lams, curve])[1] for layer, curve in found["interpolated_nll"].items()}
    names = ("error", "nll", "ece", "knn_1", "knn_5", "knn_20", "train_error", "train_nll")
    measures = {key: found[key] for key in names if key in found}
    measures |= {f"interpolated/{layer_name(layer)}": np.mean(curve) for layer, curve in curves.items()}
    if deformed := found.get("deformed_accuracy"):
        measures["deformed"] = 1 - np.mean(list(deformed.values()))
        measures |= {f"deformed/{name}": accuracy for name, accuracy in deformed.items()}
    keys = ("data", "images", "split", "num_images", "checkpoint", "seed", "pairs")
    _take(result, "evaluation", {key: found[key] for key in keys}, measures)
    result.curves["NLL of interpolated targets over lam (Fig. 2)"] = {
        f"mixed at {layer_name(layer)}": [lams, curve] for layer, curve in curves.items()
    }


def _attack(result: Result, name: str, found: Mapping[str, Any]) -> None:
    """A classifier under attack; measures are accuracies, so larger is better."""
    if not found["finished"]:
        result.unscored = "attacked before its training had finished"
        return
    space = name.removeprefix("attack").lstrip("-")
    prefix = f"{space}/" if space else ""
    measures = {f"{prefix}{key}": found[key]["accuracy"] for key in ("clean", "unbounded")}
    group = f"Accuracy over eps, {space}" if space else "Accuracy over eps"
    for attack, title in ATTACKS.items():
        rows = found.get(attack, ())
        if rows and [row["eps"] for row in rows] != found["eps"]:
            raise ValueError(f"{attack} has different eps")
        measures |= {f"{prefix}{attack}/{row['eps']:.4g}": row["accuracy"] for row in rows}
        points = [(0.0, found["clean"]["accuracy"]), *((row["eps"], row["accuracy"]) for row in rows)]
        if rows:
            x, y = zip(*points, strict=True)
            result.curves.setdefault(group, {})[title] = [list(x), [100 * value for value in y]]
    keys = ("data", "images", "split", "num_images", "checkpoint", "seed", "norm", "space", "loss", "eps", "iterations")
    _take(result, name, {key: found[key] for key in (*keys, "step_size", "restarts")}, measures)
    for check in found["checks"]:
        words = [check[key] for key in ("name", "found", "meaning")]
        if check["passed"] not in (True, False, None) or not all(isinstance(word, str) for word in words):
            raise ValueError("a check is damaged")
        result.checks.append({**check, "name": f"{check['name']}, {space}" if space else check["name"]})


def _result(result: Result, found: Mapping[str, Any]) -> None:
    """Measurements of a user's script."""
    _take(result, "result", dict(found.get("protocol", {})), found["measures"])
    for group, panels in found.get("curves", {}).items():
        result.curves[str(group)] = {str(panel): _curve(xy) for panel, xy in panels.items()}


def _curve(xy: Any) -> list[list[float]]:
    """The x and y of a curve; raises ValueError if they are not two rows of equally many finite numbers."""
    x, y = xy
    if not x or len(x) != len(y) or not all(map(_number, [*x, *y])):
        raise ValueError("a curve must be two rows of equally many finite numbers")
    return [[float(value) for value in axis] for axis in (x, y)]


def _metrics(result: Result, rows: Sequence[Mapping[str, Any]]) -> None:
    """Curves over training, the last diagnostics, and the training time, from the valid values in rows."""

    def curve(name: str, x: str) -> list[list[float]]:
        points = [(row[x], row[name]) for row in rows if _number(row.get(name)) and _number(row.get(x))]
        return [list(axis) for axis in zip(*points, strict=True)] if points else []

    for group, name, x in (
        ("FID while training", "score/fid", "step"),
        ("Validation NLL over epochs (Fig. 8)", "validation/nll", "epoch"),
    ):
        if points := curve(name, x):
            result.curves[group] = {f"over {x}s": points}
    last = {key: value for row in rows for key, value in row.items()}
    result.measures |= {key: last[key] for key in last if key.startswith("d/") and _number(last[key])}
    seen = [last[key] for key in ("d/real", "d/held_out", "d/fake") if _number(last.get(key))]
    if len(seen) == 3 and seen[0] > seen[2]:
        result.measures["d/overfit"] = (seen[0] - seen[1]) / (seen[0] - seen[2])
    if norms := [last[key] for key in last if key.startswith("spectral_norm/") and _number(last[key])]:
        result.measures |= {"spectral_norm/least": min(norms), "spectral_norm/largest": max(norms)}
    for key in sorted(last):
        path = last[key]
        if key.startswith("path/") and isinstance(path, list) and len(path) > 2 and all(map(_number, path)):
            layer, lams = layer_name(key.removeprefix("path/")), [round(x, 6) for x in np.linspace(0, 1, len(path))]
            group = "Logits on paths from fake to real, over the share of the real image"
            result.curves.setdefault(group, {})[f"mixed at {layer}"] = [lams, path]
            if path[0] != path[-1] and math.isfinite(bent := bend(path)):
                result.measures[f"bend/{layer}"] = bent
    speeds = [(row["step"], row["steps_per_second"]) for row in rows if _number(row.get("steps_per_second"))]
    starts = [0, *(step for step, _ in speeds)]
    seconds = sum((step - start) / speed for start, (step, speed) in zip(starts, speeds, strict=False) if speed > 0)
    if 0 < seconds < math.inf:
        result.measures["minutes"] = seconds / 60


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def bend(path: Sequence[float]) -> float:
    """The mean distance of a path's logits, fake to real, from the line between its ends, relative to their rise.

    Examples:
        >>> bend([-1.0, 0.0, 1.0])
        0.0
    """
    line = np.linspace(path[0], path[-1], len(path))
    return float(np.abs(np.array(path) - line).mean() / abs(path[-1] - path[0]))


def _same_protocols(results: Sequence[Result]) -> None:
    """Raise UserError, naming the field, if the same kind of measure is by different protocols."""
    first: dict[str, Result] = {}
    for result in results:
        for name, own in result.protocols.items():
            reference = first.setdefault(name, result)
            other = reference.protocols[name]
            unlike = [key for key in {**other, **own} if other.get(key) != own.get(key)]
            if unlike:
                fields = "; ".join(f"{key} {own.get(key)}, not {other.get(key)}" for key in unlike)
                raise UserError(
                    f"{result.folder} was measured by a different protocol from {reference.folder} ({name}): {fields}; "
                    "measure one of them again"
                )


def name_arms(results: Sequence[Result]) -> None:
    """Give runs that differ only in their seeds the name of one arm: that of the folder around them, or their own.

    Raises UserError if an arm has a seed twice, or if neighbouring seed-N folders are not repetitions.
    """
    groups: list[list[Result]] = []
    for result in results:
        group = next((one for one in groups if not _changes(result.config, one[0].config)), None)
        if group is None:
            groups.append(group := [])
        twin = next((one for one in group if one.seed == result.seed), None)
        if twin:
            raise UserError(f"{twin.folder} and {result.folder} are the same run with the same seed; keep one of them")
        group.append(result)
    parents = [{result.folder.parent for result in group} for group in groups]
    for i, (group, own) in enumerate(zip(groups, parents, strict=True)):
        others = set().union(*(other for j, other in enumerate(parents) if j != i))
        for result in group:
            if result.folder.parent in others and re.fullmatch(r"seed-\d+", result.folder.name):
                other = next(one for one in results if one not in group and one.folder.parent == result.folder.parent)
                what = "; ".join(_changes(result.config, other.config))
                raise UserError(f"{result.folder} is not a repetition of {other.folder}: {what}")
        if len(own) == 1 and all(re.fullmatch(r"seed-\d+", result.folder.name) for result in group):
            name = next(iter(own)).name
        else:
            name = " and ".join(sorted({result.folder.name for result in group}))
        for result in group:
            result.arm = name
    names = [group[0].arm for group in groups]
    for group in groups:
        if names.count(group[0].arm) > 1:
            for result in group:
                result.arm = str(result.folder.parent if len({r.folder for r in group}) > 1 else result.folder)


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key old, not new` for every option that differs, except seeds and those that change no result."""
    before, after = ({key: value for key, value in config.items() if key not in SEEDS} for config in (old, new))
    return differences(before, after)


def values_of(results: Iterable[Result], arm: str, measure: str) -> dict[int, float]:
    """An arm's values of a measure by seed."""
    return {one.seed: one.measures[measure] for one in results if one.arm == arm and measure in one.measures}


def arms_of(results: Iterable[Result]) -> list[str]:
    """The arms, in order of appearance."""
    return list(dict.fromkeys(one.arm for one in results))


def curves_of(results: Iterable[Result], group: str, panel: str) -> dict[str, list[list[list[float]]]]:
    """The curves of a panel by arm: x and y of every run that has one."""
    found: dict[str, list[list[list[float]]]] = {}
    for one in results:
        if panel in one.curves.get(group, {}):
            found.setdefault(one.arm, []).append(one.curves[group][panel])
    return found
