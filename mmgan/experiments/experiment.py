"""An experiment as data: its arms, its seeds, the steps that follow a run, and claims made before the runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from mmgan.engine import cli, files
from mmgan.engine.shipped import configuration
from mmgan.errors import UserError
from mmgan.experiments.published import published

FILE = "experiment.json"
"""The file in an experiment's folder that records it from the first start."""


@dataclass(frozen=True)
class Step:
    """A script to run on a run's folder once the run is complete."""

    script: str
    """evaluate_cls, attack_cls, score, the file of another script, or a function as package.module.function."""
    makes: str
    """The file that the step makes in the run's folder; the step is done once it exists."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the script. $output is the experiment's folder, $seed the run's seed, $next the arm's next seed; if a
    value is the folder of another run, such as $output/none/seed-$next, the step waits for that run."""


@dataclass(frozen=True)
class Claim:
    """A direction stated before the runs: `arm` is below, or above, `other` in `measure`."""

    arm: str
    other: str
    measure: str
    """Its name in results: fid, error, nll, fgsm/0.05."""
    direction: Literal["below", "above"] = "below"
    source: str = ""
    """Source of the claim: the id of a published figure (mmgan/experiments/published.yaml), or text."""


@dataclass(frozen=True)
class Drawing:
    """A plot of measures over a numeric option, as in the paper's Figure 9, with a line per setting of the others."""

    over: str
    """Option on the x axis, such as mixup.alpha."""
    measures: list[str]
    """Measures to plot, one panel each: is, fid."""


@dataclass(frozen=True)
class Experiment:
    """A sweep of runs, the steps that follow each run, and the claims to decide."""

    script: str
    """train_gan, train_cls, the file of another script, or a function as package.module.function."""
    title: str = "Experiment"
    about: str = ""
    """What the experiment is and what it is a proxy for, shown at the top of its page."""
    configs: list[str] = field(default_factory=list)
    """Configurations of all runs, files or names of mmgan's (gan/digits), merged from left to right."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of all runs, which override `configs`; $seed stands for the run's seed."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of every arm that does not set `seed`."""
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options by name of the arm; `configs` lists further configurations, and `seed` lists seeds for this arm."""
    grids: list[dict[str, list[Any]]] = field(default_factory=list)
    """Options and their values; every combination in a grid is an arm named after its values; `seed` lists the seeds.
    """
    steps: list[Step] = field(default_factory=list)
    """Steps that follow each run."""
    makes: str = "checkpoints/step-*"
    """File, or pattern of files, that a run makes in its folder; the run is done once it exists, and is repeated if it
    disappears."""
    baseline: str | None = None
    """Arm that the report compares all others with; null: only the claims are compared."""
    claims: list[Claim] = field(default_factory=list)
    """Claims that the runs should decide."""
    drawing: Drawing | None = None
    """Plot of measures against an option; null: none."""
    planned: bool = False
    """Planned beforehand: after the start only storage and timeout may change, and the report says so."""
    storage: str | None = None
    """URL of Optuna's storage, for sharing among workers on several machines; null: an SQLite file in the output
    folder."""
    timeout: int = 300
    """Seconds without a sign of life from a worker after which another one takes over its run."""
    dry_run: bool = False
    """List the runs and their states without starting any."""

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ValueError(f"timeout must be positive, not {self.timeout}")
        if "seed" in self.options:
            raise ValueError("options: seed is not allowed here; set seeds")
        for makes in (self.makes, *(step.makes for step in self.steps)):
            check_makes(makes)
        if not self.arms and not self.grids:
            raise ValueError("arms and grids are both empty; write one arm as arms: {NAME: {}}")
        for name in self.arms:
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ValueError(f"arms: {name!r} must be letters, digits, '.', '_' and '-', because it names a folder")
            configs = self.arms[name].get("configs", [])
            if not isinstance(configs, list):
                raise ValueError(f"arms.{name}.configs must be a list, not {configs!r}")
        for grid in self.grids:
            empty = [key for key, values in grid.items() if not values]
            if empty:
                raise ValueError(f"{empty[0]} has no values; write a single one as [VALUE]")
        made = [step.makes for step in self.steps]
        if len(set(made)) < len(made):
            raise ValueError("two steps have the same makes; each must make a different file")
        names = {arm for arm, _, _ in self.points()}
        if len(set(self.claims)) < len(self.claims):
            raise ValueError("claims: one occurs twice")
        for claim in self.claims:
            if claim.arm == claim.other:
                raise ValueError(f"claims: {claim.arm} is compared with itself")
            for arm in (claim.arm, claim.other):
                if arm not in names:
                    raise ValueError(f"claims: unknown arm {arm}; the arms are {', '.join(sorted(names))}")
            if re.fullmatch(r"[a-z]+-[\w.-]+", claim.source) and claim.source not in published():
                raise ValueError(f"claims: no published figure is called {claim.source}")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline: unknown arm {self.baseline}; the arms are {', '.join(sorted(names))}")

    def points(self) -> Iterator[tuple[str, dict[str, Any], list[int]]]:
        """Every arm: name, options and seeds."""
        for name, options in self.arms.items():
            yield name, {key: value for key, value in options.items() if key != "seed"}, self._seeds(options)
        for grid in self.grids:
            free = {key: values for key, values in grid.items() if key != "seed"}
            for values in product(*free.values()):
                point = dict(zip(free, values, strict=True))
                yield arm_name(point), point, self._seeds(grid)

    def _seeds(self, options: Mapping[str, Any]) -> list[int]:
        seeds = options.get("seed", self.seeds)
        if not isinstance(seeds, list) or not seeds or not all(type(one) is int for one in seeds):
            raise ValueError(f"seed must be a list of whole numbers, not {seeds!r}")
        return seeds

    def plan(self) -> dict[str, Any]:
        """What may not change once a planned experiment has begun: everything except storage, timeout and dry_run."""
        return {key: value for key, value in asdict(self).items() if key not in ("storage", "timeout", "dry_run")}

    def hash(self, common: Sequence[str] = ()) -> str:
        """SHA-256 of the plan, the options in the configurations that it names, and `common`, options of all runs.

        Comments in a configuration are not part of it. Raises UserError if a configuration is missing or not YAML.
        """
        lines = self.lines(common).values()
        named = {path for line in lines for word, path in pairwise(line) if word == "--config"}
        contents = {path: files.read_yaml(configuration(path)) for path in sorted(named)}
        text = json.dumps([self.plan(), contents, list(common)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def lines(self, common: Sequence[str] = ()) -> dict[str, list[str]]:
        """Every run: its folder within the experiment's folder, and its options as a command line.

        `common` are further options of all runs, which override the experiment's. Runs are ordered by seed, so that a
        stopped sweep has equally many runs of every arm. Raises UserError if two runs have the same folder, or two arms
        the same options.
        """
        runs = [(seed, arm, options) for arm, options, seeds in self.points() for seed in seeds]
        found: dict[str, list[str]] = {}
        same: dict[tuple[str, ...], str] = {}
        for seed, arm, options in sorted(runs, key=lambda run: run[0]):
            name = f"{arm}/seed-{seed}"
            if name in found:
                raise UserError(f"the sweep has {name} twice; drop it from one of the arms or grids")
            own = {key: value for key, value in options.items() if key != "configs"}
            shared = {key: value for key, value in self.options.items() if key not in own}
            words = [word for path in (*self.configs, *options.get("configs", ())) for word in ("--config", path)]
            words += [*_line(shared, seed), *common, *_line(own, seed), "--seed", str(seed)]
            if (other := same.setdefault(tuple(words), arm)) != arm:
                raise UserError(f"the arms {other} and {arm} have the same options; drop one of them")
            found[name] = words
        return found


class Job(NamedTuple):
    """A process of a sweep: a run or a step that follows one."""

    name: str
    """The run's folder within the sweep's folder; for a step, followed by the file that it makes."""
    folder: str
    script: str
    options: tuple[str, ...]
    """$output stands for the sweep's folder."""
    makes: str
    needs: tuple[str, ...]
    """Runs that must be done first."""
    first: bool
    """Whether this is the run itself, which gets its folder as --output; a step gets it as its first argument."""


def jobs_of(experiment: Experiment, common: Sequence[str] = ()) -> dict[str, Job]:
    """All jobs of an experiment by name; each run is followed by its steps."""
    lines = experiment.lines(common)
    jobs: dict[str, Job] = {}
    seeds = {arm: own for arm, _, own in experiment.points()}
    for name, line in lines.items():
        jobs[name] = Job(name, name, experiment.script, tuple(line), experiment.makes, (), True)
        arm, _, seed = name.rpartition("/seed-")
        own = seeds[arm]
        following = own[(own.index(int(seed)) + 1) % len(own)]
        for step in experiment.steps:
            options = tuple(word.replace("$next", str(following)) for word in _line(step.options, int(seed)))
            named = [word.removeprefix("$output/") for word in options if word.startswith("$output/")]
            if unknown := [other for other in named if other not in lines]:
                raise UserError(
                    f"the step that makes {step.makes} names {unknown[0]}, which is not a run of this sweep"
                )
            needs = (name, *named)
            own_name = f"{name} {step.makes}"
            jobs[own_name] = Job(own_name, name, step.script, options, step.makes, needs, False)
    return jobs


def begin(experiment: Experiment, output: Path, common: Sequence[str] = ()) -> None:
    """Record the experiment, its hash and the time in its folder, before its first run.

    Raises UserError if the folder's experiment was planned beforehand and differs.
    """
    file, now = output / FILE, experiment.hash(common)
    kept = read_plan(file) if file.exists() else {}
    if kept.get("planned") and kept.get("hash") != now:
        raise UserError(
            f"{output} holds an experiment that was planned beforehand, with another hash ({str(kept['hash'])[:12]}, "
            f"not {now[:12]}): arms, options, claims, configurations or seeds have changed, or it was begun by an "
            "earlier version of mmgan; choose another --output, or continue with that version"
        )
    if kept.get("hash") == now:
        return
    time = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"hash": now, "planned": experiment.planned and not kept, "begun": kept.get("begun", time)}
    record |= {"changed": time if kept else None, "options": list(common), "experiment": experiment.plan()}
    files.write(file, json.dumps(record, indent=1) + "\n")


def read_plan(file: Path) -> dict[str, Any]:
    """The record made by `begin`: `experiment` is an Experiment. Raises UserError for a damaged file."""
    kept = files.read_json(file)
    keys = {"hash": str, "planned": bool, "begun": str, "experiment": dict}
    try:
        if not isinstance(kept, dict) or not all(isinstance(kept.get(key), kind) for key, kind in keys.items()):
            raise UserError(f"it lacks one of {', '.join(keys)}")
        return {**kept, "experiment": cli.config_of(Experiment, kept["experiment"])}
    except UserError as error:
        raise UserError(
            f"{file} is damaged ({error}); remove it, and the next start of the sweep will write it again"
        ) from error


def check_makes(makes: str) -> None:
    """Raise ValueError if this is not a pattern of files in a run's folder."""
    try:
        next(Path("/nowhere").glob(makes), None)
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"makes must be a file, or a pattern of files, in the run's folder, not {makes!r}") from error


def _line(options: Mapping[str, Any], seed: int) -> list[str]:
    words = [(f"--{key}", plain(value).replace("$seed", str(seed))) for key, value in options.items()]
    return [word for pair in words for word in pair]


def arm_name(point: Mapping[str, Any]) -> str:
    """The name of an arm, from the values of its options."""
    named = [f"{key.rpartition('.')[2]}-{plain(value)}" for key, value in point.items()]
    return "_".join(re.sub(r"[^\w.]+", "-", word).strip("-") for word in named) or "run"


def plain(value: Any) -> str:
    """A value as an option's text: YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1e9).removesuffix("\n...\n").strip()
