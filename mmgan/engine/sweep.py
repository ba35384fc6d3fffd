"""Many runs shared by many workers: which are left is kept in an Optuna storage, what they made in their folders."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import TrialState

from mmgan.engine.stop import PARENT
from mmgan.errors import UserError

STUDY = "sweep"
NAMES = {
    TrialState.COMPLETE: "done",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.FAIL: "failed",
}
"""States of a run, of several trials of it the first of these."""


@dataclass(frozen=True)
class SweepConfig:
    """A grid of runs."""

    run: str
    """Configuration that all runs start from, a YAML file of the script's."""
    grids: list[dict[str, list[Any]]]
    """Options and their values; every combination within a grid is a run. Options of seeds are named seed."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options that all runs have, over those of `run`."""
    storage: str | None = None
    """URL of Optuna's storage, which workers on several machines share; null: an SQLite file in the output folder."""
    timeout: int = 300
    """Seconds without a sign of life after which another worker takes up a worker's run."""
    dry_run: bool = False
    """List the runs and how far they are, and start none."""

    def __post_init__(self) -> None:
        if self.timeout < 1:
            raise ValueError(f"timeout must be positive, not {self.timeout}")
        for grid in self.grids:
            empty = [key for key, values in grid.items() if not values]
            if empty:
                raise ValueError(f"{empty[0]} has no values; a single one is written [VALUE]")


def runs_of(config: SweepConfig) -> dict[str, list[str]]:
    """Every run of a sweep: its folder within the sweep's, and its options as a command line.

    By seeds, so that a sweep that is stopped has as many of every arm. Raises UserError where two have one folder.
    """
    points = [dict(zip(grid, values, strict=True)) for grid in config.grids for values in product(*grid.values())]
    found: dict[str, list[str]] = {}
    for point in sorted(points, key=lambda point: point.get("seed", 0)):
        name = _name(point)
        if name in found:
            raise UserError(f"the sweep has {name} twice; drop it from one of the grids")
        options = [(f"--{key}", _plain(value)) for key, value in (config.options | point).items()]
        found[name] = ["--config", config.run, *(part for option in options for part in option)]
    return found


def _name(point: Mapping[str, Any]) -> str:
    """ARM/seed-S, where ARM tells the values of the other options."""
    arm = [f"{key.rpartition('.')[2]}-{_plain(value)}" for key, value in point.items() if key != "seed"]
    words = [re.sub(r"[^\w.]+", "-", word).strip("-") for word in arm]
    return f"{'_'.join(words) or 'run'}/seed-{point.get('seed', 0)}"


def _plain(value: Any) -> str:
    """A value as an option's text: YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1e9).removesuffix("\n...\n").strip()


def states(names: Sequence[str], study: optuna.Study | None) -> dict[str, str]:
    """How far every run is, by its name: done, running, waiting or failed."""
    found = dict.fromkeys(names, "waiting")
    trials = study.get_trials(deepcopy=False) if study else []
    for state in reversed(NAMES):
        found |= {t.user_attrs["run"]: NAMES[state] for t in trials if t.state == state and "run" in t.user_attrs}
    return {name: found[name] for name in names}


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings that heartbeats are experimental, as they have been since 2021."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def open_study(url: str, timeout: int, create: bool) -> optuna.Study | None:
    """The sweep in a storage; None where there is none yet and `create` is false. Raises UserError for a bad URL."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # what failed is said by the worker
    if not create and url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return None
    try:
        with _quietly():
            storage = RDBStorage(
                url,
                heartbeat_interval=max(1, timeout // 3),
                grace_period=timeout,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=20),
            )
        if create:
            return optuna.create_study(storage=storage, study_name=STUDY, load_if_exists=True)
        return optuna.load_study(storage=storage, study_name=STUDY)
    except KeyError:
        return None
    except Exception as error:  # every database has its own
        raise UserError(f"storage {url} cannot be opened: {str(error).splitlines()[0]}") from error


class Worker:
    """Takes one run of a sweep after the other, until none is left that nobody else has.

    A run is a process of its own, whose options are in the storage; it ends when its worker does.
    """

    def __init__(self, script: Path, runs: Mapping[str, Sequence[str]], output: Path, url: str, timeout: int) -> None:
        """`runs`: folder within `output` and options of each. Raises UserError where one cannot be had."""
        self.script, self.runs, self.output, self.timeout = script, runs, output, timeout
        self.child: subprocess.Popen[bytes] | None = None
        self.signal = 0
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {output} ({error.strerror}); choose another --output") from error
        with FileLock(output / ".sweep.lock"):  # one worker at a time makes tables and fills the queue
            study = open_study(url, timeout, create=True)
            assert study is not None
            self.study = study
            trials = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.FAIL]
            known = {t.user_attrs.get("run"): t.user_attrs.get("options") for t in trials}
            for name, options in runs.items():
                if name not in known:
                    study.enqueue_trial({}, user_attrs={"run": name, "options": options})
                elif known[name] != list(options):
                    raise UserError(f"{output} holds a sweep whose {name} has other options; choose another --output")

    def work(self) -> dict[str, str]:
        """Work, and wait for what others have taken, which may come back; the states in the end.

        After SIGINT or SIGTERM the run at hand saves and is put back in the queue.
        """
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while not self.signal:
                found = states(list(self.runs), self.study).values()
                if "waiting" in found:
                    self.study.optimize(self._objective, n_trials=1, catch=(RunError,))
                elif "running" in found:
                    with _quietly():
                        fail_stale_trials(self.study)
                    time.sleep(min(self.timeout / 3, 10))
                else:
                    break
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return states(list(self.runs), self.study)

    def _objective(self, trial: optuna.Trial) -> float:
        """Do the run that `trial` was queued for; its numbers are in its folder, so the value is 0."""
        name = trial.user_attrs.get("run")
        if name is None or self._elsewhere(trial, name):
            raise optuna.TrialPruned  # another worker was quicker
        self._wait_for_the_folder(self.output / name)
        print(f"{name}: started", flush=True)
        options = trial.user_attrs["options"]
        command = [sys.executable, str(self.script), *options, "--output", str(self.output / name)]
        with subprocess.Popen(command, start_new_session=True, env=os.environ | {PARENT: str(os.getpid())}) as child:
            self.child = child
            if self.signal:
                child.send_signal(self.signal)
            code = child.wait()
            self.child = None
        if code == 0:
            return 0.0
        if self.signal:
            self.study.enqueue_trial({}, user_attrs={"run": name, "options": options})
            raise RunError("stopped")
        print(f"{name}: failed with exit code {code}; it is tried again when a worker starts", flush=True)
        raise RunError(f"exit code {code}")

    def _wait_for_the_folder(self, folder: Path) -> None:
        """A killed worker's run goes on to the end of its step, or of a long score; till then the folder is its own."""
        folder.mkdir(parents=True, exist_ok=True)
        while not self.signal:
            try:
                with FileLock(folder / ".lock").acquire(timeout=1):
                    return
            except Timeout:
                continue

    def _elsewhere(self, trial: optuna.Trial, name: str) -> bool:
        return any(
            other.state == TrialState.COMPLETE or (other.state == TrialState.RUNNING and other.number < trial.number)
            for other in self.study.get_trials(deepcopy=False)
            if other.number != trial.number and other.user_attrs.get("run") == name
        )

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        if self.child:
            self.child.send_signal(number)


class RunError(Exception):
    """A run did not come to its end."""
