"""Runs of a sweep, read from their folders: by setting, arm and seed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from mmgan.engine import files
from mmgan.engine.run import HARMLESS
from mmgan.errors import UserError
from mmgan.experiments.differences import Difference, difference, holm
from mmgan.gan.diagnose import LAMS
from mmgan.scoring import records
from mmgan.scoring.protocol import differing

T = TypeVar("T")
LAYERS = {0: "input", 1: "h1", 2: "h2"}


class Point(NamedTuple):
    """One run."""

    folder: Path
    config: dict[str, Any]
    scores: dict[str, dict[str, float]]
    """By checkpoint, last and best; empty where the run is not scored yet."""
    others: list[str]
    """Other protocols by which its end is scored."""
    stamp: dict[str, Any]
    rows: list[dict[str, Any]]
    """Of its metrics.jsonl."""

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(self.config["seed"])

    @property
    def finished(self) -> bool:
        """Whether it was trained to its end."""
        return any(row["step"] == self.config["steps"] for row in self.rows)


class Arm(NamedTuple):
    """Runs that differ in their seeds alone."""

    name: str
    mixup: Mapping[str, Any] | None
    points: list[Point]

    def values(self, checkpoint: str, measure: str) -> dict[int, float]:
        """A score by seed, of the runs that have it."""
        return {p.seed: p.scores[checkpoint][measure] for p in self.points if measure in p.scores.get(checkpoint, {})}

    def last(self, name: str) -> dict[int, Any]:
        """The last value of a metric by seed."""
        found = {p.seed: [row[name] for row in p.rows if name in row] for p in self.points}
        return {seed: values[-1] for seed, values in found.items() if values}

    def curve(self, name: str) -> dict[int, list[float]]:
        """A metric's values by step, over the runs that have it."""
        found: dict[int, list[float]] = {}
        for point in self.points:
            for row in point.rows:
                if name in row:
                    found.setdefault(row["step"], []).append(row[name])
        return dict(sorted(found.items()))

    @property
    def scored(self) -> int:
        """How many of the runs are finished and scored."""
        return sum(bool(point.scores) for point in self.points)

    @property
    def layers(self) -> str:
        """The layers that are mixed, in the paper's words."""
        return ", ".join(LAYERS.get(i, f"h{i}") for i in self.mixup["layers"]) if self.mixup else "none"


class Setting(NamedTuple):
    """Arms that differ in their mixup alone."""

    name: str
    """The options in which it differs from the other settings; empty where there is only one."""
    baseline: Arm
    arms: list[Arm]

    def compared(self, checkpoint: str, measure: str) -> list[tuple[Difference, float]]:
        """Each arm minus the baseline, and its p value adjusted for the number of arms (Holm)."""
        base = self.baseline.values(checkpoint, measure)
        found = [difference(arm.values(checkpoint, measure), base) for arm in self.arms]
        return list(zip(found, holm([one.p for one in found]), strict=True))

    @property
    def all(self) -> list[Arm]:
        """The baseline, then the arms."""
        return [self.baseline, *self.arms]

    @property
    def expected(self) -> int:
        """Runs of the arm that has most."""
        return max(len(arm.points) for arm in self.all)


def read(folders: Sequence[Path], protocol: str | None) -> tuple[list[Setting], str]:
    """The runs in `folders`, each a run or a folder of runs, by setting and arm, and the protocol they are scored by.

    `protocol` None: the one that their configurations name for the end. A damaged run is left out with a warning.
    Raises UserError where there are no runs, where scores are by unlike protocols, naming the field, and where an arm
    has a seed twice.
    """
    files = [file for folder in folders for file in sorted(folder.rglob("config.yaml"))]
    configs = {}
    for file in dict.fromkeys(files):
        if config := _unless_damaged(file.parent, partial(_config, file)):
            configs[file.parent] = config
    if not configs:
        raise UserError(f"no run of scripts/train_gan.py in {', '.join(map(str, folders))}")
    named = {str(config["score"]["final"]) for config in configs.values() if (config["score"] or {}).get("final")}
    if protocol is None and len(named) != 1:
        raise UserError(
            f"the runs name {len(named)} protocols ({', '.join(sorted(named)) or 'none'}); choose one by --protocol"
        )
    protocol = protocol or named.pop()
    points = []
    for folder, config in configs.items():
        if point := _unless_damaged(folder, partial(_point, folder, config, protocol)):
            points.append(point)
    if not points:
        raise UserError(f"no whole run of scripts/train_gan.py in {', '.join(map(str, folders))}")
    scored = [point for point in points if point.scores]
    for point in scored:
        if fields := differing(scored[0].stamp, point.stamp):
            raise UserError(
                f"{point.folder} is scored by another protocol than {scored[0].folder}: {'; '.join(fields)}; "
                "score one again by scripts/score_gan.py"
            )
    return _settings(points), protocol


def _unless_damaged(folder: Path, read: Callable[[], T]) -> T | None:
    """What `read` reads of the run in `folder`; None, with a warning that names the run, where it is damaged."""
    try:
        return read()
    except (
        UserError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        yaml.YAMLError,
    ) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        warnings.warn(f"{folder} is damaged and left out ({reason})", stacklevel=2)
        return None


def _config(file: Path) -> dict[str, Any]:
    """The configuration of a GAN's run, its types checked as far as a report needs them; empty for other runs."""
    if not file.is_file():
        raise UserError(f"{file.name} is no file")
    config = yaml.safe_load(file.read_text())
    if not isinstance(config, dict) or not config:
        raise UserError(f"{file.name} holds no options")
    if "n_dis" not in config:
        return {}
    config = _unfolded(config)
    json.dumps(config)
    int(config["seed"]), int(config["steps"]), (config["score"] or {}).get("final")
    if config["mixup"]:
        float(config["mixup"]["alpha"]), [LAYERS.get(int(layer)) for layer in config["mixup"]["layers"]]
    return config


def _unfolded(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose sections hold their class's name beside its options."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and "class_path" in value:
            value = {"class": value["class_path"].rpartition(".")[2], **value.get("init_args", {})}  # noqa: PLW2901
        found[key] = _unfolded(value) if isinstance(value, dict) else value
    return found


def _point(folder: Path, config: dict[str, Any], protocol: str) -> Point:
    found = records.read(folder)
    newest = {record["checkpoint"]: record for record in found if record["protocol"] == protocol}
    scores = {
        which: {measure: float(score) for measure, score in newest[which]["scores"].items()}
        for which in ("last", "best")
        if which in newest
    }
    last = newest.get("last", {})
    if last and last["step"] != config["steps"]:  # scored by hand before the end
        scores = {}
    at_end = [record for record in found if (record["checkpoint"], record["step"]) == ("last", config["steps"])]
    others = sorted({str(record["protocol"]) for record in at_end} - {protocol})
    rows = [_clean(row) for row in files.read_rows(folder / "metrics.jsonl")]
    return Point(folder, config, scores if "last" in scores else {}, others, dict(last.get("stamp", {})), rows)


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row that are what they should be: numbers, and for paths a number for each of LAMS."""

    def plain(key: str, value: Any) -> bool:
        if key.startswith("path/"):
            return isinstance(value, list) and len(value) == len(LAMS) and all(plain("", one) for one in value)
        return isinstance(value, int | float)

    return {key: value for key, value in row.items() if plain(key, value)}


def _settings(points: Sequence[Point]) -> list[Setting]:
    """Runs by what differs in their configurations."""
    flat = [_flat(point.config) for point in points]
    differ = {key for key in set().union(*flat) if len({json.dumps(one.get(key)) for one in flat}) > 1}
    differ -= HARMLESS | {"seed"}
    outside = sorted(key for key in differ if not key.startswith("mixup"))
    mixups = [point.config["mixup"] for point in points if point.config["mixup"]]
    keys = set().union(*mixups)
    mixed = sorted(key for key in keys if len({json.dumps(one.get(key)) for one in mixups}) > 1)
    groups: dict[str, list[Point]] = {}
    for point, one in zip(points, flat, strict=True):
        groups.setdefault(", ".join(f"{key} {one.get(key)}" for key in outside), []).append(point)
    found = []
    for name, members in groups.items():
        arms = _arms(members, mixed)
        baselines = [arm for arm in arms if arm.mixup is None]
        if not baselines:
            raise UserError(f"no baseline, a run with mixup null, among the runs{name and f' with {name}'}")
        found.append(Setting(name, baselines[0], [arm for arm in arms if arm.mixup]))
    return sorted(found, key=lambda setting: -sum(len(arm.points) for arm in setting.arms))


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _arms(points: Sequence[Point], keys: Sequence[str]) -> list[Arm]:
    """Runs by their mixup; `keys` are the options of it that differ anywhere."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(json.dumps(point.config["mixup"]), []).append(point)
    found = []
    for text, members in groups.items():
        mixup = json.loads(text)
        seeds = [point.seed for point in members]
        if len(set(seeds)) < len(seeds):
            twins = [str(p.folder) for p in members if seeds.count(p.seed) > 1]
            raise UserError(f"{' and '.join(twins[:2])} are the same run with the same seed; keep one")
        arm = Arm("baseline", mixup, sorted(members, key=lambda point: point.seed))
        if mixup:
            others = [f"{key} {mixup[key]}" for key in keys if key not in ("alpha", "layers") and key in mixup]
            arm = arm._replace(name=", ".join([f"{{{arm.layers}}} alpha {mixup['alpha']}", *others]))
        found.append(arm)
    return sorted(found, key=lambda arm: (arm.mixup["layers"], arm.mixup["alpha"]) if arm.mixup else ([], 0.0))
