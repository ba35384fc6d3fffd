"""Many runs shared by many workers: which are left is kept in an Optuna storage, what they made in their folders."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import yaml
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mmgan.engine import files
from mmgan.engine.checkpoint import steps
from mmgan.engine.stop import PARENT
from mmgan.errors import UserError

NAMES = {
    TrialState.COMPLETE: "done",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.FAIL: "failed",
}
GONE = "gone"
"""The state of a run that was done and whose folder holds no checkpoint any more."""
ORDER = (*NAMES.values(), GONE)
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


def runs_of(config: SweepConfig, options: Sequence[str] = ()) -> dict[str, list[str]]:
    """Every run of a sweep: its folder within the sweep's, and its options as a command line.

    `options` are more that all runs have, as a command line, over those of `config`. By seeds, so that a sweep that is
    stopped has as many of every arm. Raises UserError where two have one folder.
    """
    points = [dict(zip(grid, values, strict=True)) for grid in config.grids for values in product(*grid.values())]
    found: dict[str, list[str]] = {}
    for point in sorted(points, key=lambda point: point.get("seed", 0)):
        name = _name(point)
        if name in found:
            raise UserError(f"the sweep has {name} twice; drop it from one of the grids")
        common = {key: value for key, value in config.options.items() if key not in point}
        found[name] = ["--config", config.run, *_line(common), *options, *_line(point)]
    return found


def _line(options: Mapping[str, Any]) -> list[str]:
    return [word for key, value in options.items() for word in (f"--{key}", _plain(value))]


def _name(point: Mapping[str, Any]) -> str:
    """ARM/seed-S, where ARM tells the values of the other options."""
    arm = [f"{key.rpartition('.')[2]}-{_plain(value)}" for key, value in point.items() if key != "seed"]
    words = [re.sub(r"[^\w.]+", "-", word).strip("-") for word in arm]
    return f"{'_'.join(words) or 'run'}/seed-{point.get('seed', 0)}"


def _plain(value: Any) -> str:
    """A value as an option's text: YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=1e9).removesuffix("\n...\n").strip()


def states(names: Sequence[str], study: optuna.Study | None, output: Path) -> dict[str, str]:
    """How far every run is, by its name: done, running, waiting, failed or gone."""
    found = dict.fromkeys(names, "waiting")
    for trial in sorted(_trials(study), key=lambda trial: ORDER.index(_state(trial, output)), reverse=True):
        found[trial.user_attrs["run"]] = _state(trial, output)
    return {name: found[name] for name in names}


def _trials(study: optuna.Study | None) -> list[FrozenTrial]:
    """The trials that were made for a run, without those that a worker began when the queue was empty."""
    trials = study.get_trials(deepcopy=False) if study else []
    return [trial for trial in trials if "run" in trial.user_attrs and trial.state in NAMES]


def _state(trial: FrozenTrial, output: Path) -> str:
    if trial.state == TrialState.COMPLETE and not steps(output / trial.user_attrs["run"] / "checkpoints"):
        return GONE
    return NAMES[trial.state]


def open_study(storage: str | Path, output: Path, create: bool) -> optuna.Study | None:
    """The sweep of the folder `output` in a storage, a database's URL or an SQLite file.

    None where there is none yet and `create` is false. Raises UserError where the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the worker reports what failed
    identity = output / "sweep.id"
    with errors_of(storage):
        if not create and not (identity.exists() and _may_exist(storage)):
            return None
        if create and not identity.exists():
            files.write(identity, uuid.uuid4().hex)
        if isinstance(storage, Path):  # not as a URL, in which ?, % and { have meanings of their own
            connect = partial(sqlite3.connect, storage, timeout=60, check_same_thread=False)
            opened = RDBStorage("sqlite:///sweep.db", engine_kwargs={"creator": connect})
        else:
            opened = RDBStorage(storage)
        name = f"sweep {identity.read_text()}"
        if not create and name not in optuna.get_all_study_names(opened):
            return None
        return optuna.create_study(storage=opened, study_name=name, load_if_exists=True)


def _may_exist(storage: str | Path) -> bool:
    """Whether there may be a database; to connect to an SQLite file would make it."""
    if isinstance(storage, str):
        url = make_url(storage)
        if url.get_backend_name() != "sqlite" or not url.database:
            return True
        storage = Path(url.database)
    return storage.exists()


@contextmanager
def errors_of(storage: str | Path) -> Iterator[None]:
    """Turn whatever a storage raises into a UserError, which names it without its password."""
    shown, secrets = str(storage), []
    if isinstance(storage, str):
        try:
            url = make_url(storage)
        except (SQLAlchemyError, ValueError) as error:
            raise UserError("storage is no URL of a database; one looks like postgresql://USER@HOST/NAME") from error
        secrets = [str(secret) for secret in (url.password, *url.query.values()) if secret]
        shown = url.set(query={}).render_as_string(hide_password=True)
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # every database has its own
        text = str(error.__cause__ if isinstance(error, StorageInternalError) else error).partition("\n")[0]
        for secret in secrets:
            text = text.replace(secret, "***")
        raise UserError(
            f"storage {shown} failed: {text}; the runs are kept: put that right and run the same command again"
        ) from error


def _enqueue(study: optuna.Study, name: str, options: Sequence[str]) -> None:
    study.enqueue_trial({}, user_attrs={"run": name, "options": list(options)})


class Worker:
    """Takes one run of a sweep after the other, until none is left that nobody else has.

    A run is a process of its own, whose options are in the storage; it ends when its worker does.
    """

    def __init__(
        self, script: Path, runs: Mapping[str, Sequence[str]], output: Path, storage: str | Path, timeout: int
    ) -> None:
        """`runs`: folder within `output` and options of each. Raises UserError where one cannot be had."""
        self.script, self.runs, self.output, self.storage, self.timeout = script, runs, output, storage, timeout
        self.child: subprocess.Popen[bytes] | None = None
        self.signal = 0
        with files.writing(output):
            output.mkdir(parents=True, exist_ok=True)
            with FileLock(output / ".sweep.lock"), errors_of(storage):  # one worker at a time makes tables and queue
                self.study = self._opened()

    def _opened(self) -> optuna.Study:
        """The study, with every run in its queue that is not done and that nobody has."""
        study = open_study(self.storage, self.output, create=True)
        assert study is not None
        trials = [trial for trial in _trials(study) if _state(trial, self.output) not in ("failed", GONE)]
        known = {trial.user_attrs["run"]: trial.user_attrs["options"] for trial in trials}
        for name, options in self.runs.items():
            if name not in known:
                _enqueue(study, name, options)
            elif known[name] != list(options):
                raise UserError(f"{self.output} holds a sweep whose {name} has other options; choose another --output")
        return study

    def work(self) -> dict[str, str]:
        """Work, and wait for what others have taken, which may come back; the states in the end.

        After SIGINT or SIGTERM the run at hand saves and is put back in the queue. Raises UserError where the storage
        fails.
        """
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with errors_of(self.storage):
                while not self.signal:
                    self._take_back()
                    found = states(list(self.runs), self.study, self.output).values()
                    if "waiting" in found:
                        trial = self.study.ask()
                        self.study.tell(trial, *self._result(trial), skip_if_finished=True)
                    elif "running" in found:
                        time.sleep(min(self.timeout / 3, 10))
                    else:
                        break
                return states(list(self.runs), self.study, self.output)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take_back(self) -> None:
        """Queue again the runs of workers without a sign of life; should one of them live, its result is ignored."""
        for trial in _trials(self.study):
            started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            alive = max(started, trial.user_attrs.get("alive", 0.0))
            if trial.state == TrialState.RUNNING and abs(time.time() - alive) > self.timeout:  # clocks jump both ways
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                _enqueue(self.study, trial.user_attrs["run"], trial.user_attrs["options"])

    def _result(self, trial: optuna.Trial) -> tuple[float | None, TrialState]:
        """Do the run that `trial` was queued for; its numbers are in its folder, so the value is 0."""
        name = trial.user_attrs.get("run")
        if name is None or self._elsewhere(trial, name):
            return None, TrialState.PRUNED  # another worker was quicker
        self._wait_for_the_folder(trial, self.output / name)
        print(f"{name}: started", flush=True)
        options = trial.user_attrs["options"]
        command = [sys.executable, str(self.script), *options, "--output", str(self.output / name)]
        with subprocess.Popen(command, start_new_session=True, env=os.environ | {PARENT: str(os.getpid())}) as child:
            self.child = child
            if self.signal:
                child.send_signal(self.signal)
            while (code := self._code(child)) is None:
                self._sign_of_life(trial)
            self.child = None
        if code == 0:
            return 0.0, TrialState.COMPLETE
        if self.signal:
            _enqueue(self.study, name, options)
        else:
            print(f"{name}: failed with exit code {code}; it is tried again when a worker starts", flush=True)
        return None, TrialState.FAIL

    def _code(self, child: subprocess.Popen[bytes]) -> int | None:
        """The exit code of a run; None if it still runs after a third of the timeout."""
        try:
            return child.wait(self.timeout / 3)
        except subprocess.TimeoutExpired:
            return None

    def _sign_of_life(self, trial: optuna.Trial) -> None:
        """Said in vain while the storage fails; what it says of the run's end decides."""
        with suppress(Exception):
            trial.set_user_attr("alive", time.time())

    def _wait_for_the_folder(self, trial: optuna.Trial, folder: Path) -> None:
        """A killed worker's run goes on to the end of its step, or of a long score; till then the folder is its own."""
        folder.mkdir(parents=True, exist_ok=True)
        while not self.signal:
            try:
                with FileLock(folder / ".lock").acquire(timeout=1):
                    return
            except Timeout:
                self._sign_of_life(trial)

    def _elsewhere(self, trial: optuna.Trial, name: str) -> bool:
        others = [other for other in _trials(self.study) if other.user_attrs["run"] == name]
        return any(
            _state(other, self.output) == "done" or (other.state == TrialState.RUNNING and other.number < trial.number)
            for other in others
            if other.number != trial.number
        )

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        if self.child:
            self.child.send_signal(number)
