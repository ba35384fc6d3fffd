"""Many jobs shared by many workers: which are left is kept in an Optuna storage, what they made in their folders."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import FrameType

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from mmgan.engine import files
from mmgan.engine.stop import PARENT
from mmgan.errors import UserError
from mmgan.experiments.experiment import Job

NAMES = {
    TrialState.COMPLETE: "done",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.FAIL: "failed",
}
GONE = "gone"
"""The state of a job that was done and whose folder no longer holds what it made."""
ORDER = (*NAMES.values(), GONE)
"""States of a job; of several trials of it, the first of these counts."""


def states(jobs: Mapping[str, Job], study: optuna.Study | None, output: Path) -> dict[str, str]:
    """How far every job is, by its name: done, running, waiting, failed or gone."""
    return _overall(jobs, [(_job(trial), _state(trial, output)) for trial in _trials(study)])


def _overall(jobs: Mapping[str, Job], found: Sequence[tuple[Job, str]]) -> dict[str, str]:
    """The state of every job, by its name, from the jobs and states of all trials."""
    by_name = {job.name: state for job, state in sorted(found, key=lambda one: ORDER.index(one[1]), reverse=True)}
    return {name: by_name.get(name, "waiting") for name in jobs}


def _trials(study: optuna.Study | None) -> list[FrozenTrial]:
    """The trials that were made for a job, without those that a worker began when the queue was empty."""
    trials = study.get_trials(deepcopy=False) if study else []
    return [trial for trial in trials if "job" in trial.user_attrs and trial.state in NAMES]


def _job(trial: FrozenTrial | optuna.Trial) -> Job:
    job = Job(**trial.user_attrs["job"])
    return job._replace(options=tuple(job.options), needs=tuple(job.needs))  # JSON has lists alone


def _state(trial: FrozenTrial, output: Path) -> str:
    if trial.state == TrialState.COMPLETE and not made(_job(trial), output):
        return GONE
    return NAMES[trial.state]


def made(job: Job, output: Path) -> bool:
    """Whether what a job makes is there."""
    return next((output / job.folder).glob(job.makes), None) is not None


def command_of(job: Job, output: Path, scripts: Path) -> list[str]:
    """The process of a job; the scripts that it may name by a word alone are in `scripts`."""
    if job.script.endswith(".py"):
        start = [job.script]
    elif "." in job.script:
        start = ["-m", "mmgan.experiments.call", job.script]
    else:
        start = [str(scripts / f"{job.script}.py")]
    folder = str(output / job.folder)
    options = [word.replace("$output", str(output)) for word in job.options]
    return [sys.executable, *start, *([*options, "--output", folder] if job.first else [folder, *options])]


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


class Worker:
    """Takes one job of a sweep after the other, until none is left that nobody else has.

    A job is a process of its own; it ends when its worker does. Its options are in the storage.
    """

    def __init__(
        self,
        jobs: Mapping[str, Job],
        output: Path,
        storage: str | Path,
        timeout: int,
        scripts: Path = Path("scripts"),
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """`begin` is called once the folder is there, before anything is queued.

        Raises UserError where the folder or the storage cannot be had.
        """
        self.jobs, self.output, self.storage, self.timeout, self.scripts = jobs, output, storage, timeout, scripts
        self.child: subprocess.Popen[bytes] | None = None
        self.signal = 0
        self.queued: set[str] = set()
        with files.writing(output):
            output.mkdir(parents=True, exist_ok=True)
            with self._alone():  # one worker at a time makes the tables
                study = open_study(storage, output, create=True)
            assert study is not None
            self.study = study
            self._queue(("failed", GONE), begin)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One worker at a time; and what the storage raises is a UserError."""
        with FileLock(self.output / ".sweep.lock"), errors_of(self.storage):
            yield

    def _queue(self, again: Sequence[str] = (GONE,), begin: Callable[[], None] = lambda: None) -> None:
        """Put every job in the queue that nobody has, whose needs are done, or whose state is one of `again`.

        This worker does so once for each job. `begin` is called before. Raises UserError where the storage has a job
        with other options.
        """
        with self._alone():
            trials = [(_job(trial), _state(trial, self.output)) for trial in _trials(self.study)]
            known = {job.name: job for job, state in trials if state not in ("failed", GONE)}
            unlike = [name for name, job in self.jobs.items() if known.get(name, job) != job]
            if unlike:
                raise UserError(
                    f"{self.output} holds a sweep whose {unlike[0]} has other options; choose another --output"
                )
            begin()
            tried, found = {job.name for job, _ in trials}, _overall(self.jobs, trials)
            for name, job in self.jobs.items():
                new = name not in tried or found[name] in again
                if new and name not in self.queued and all(found[need] == "done" for need in job.needs):
                    self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        self.queued.add(job.name)
        self.study.enqueue_trial({}, user_attrs={"job": job._asdict()})

    def work(self) -> dict[str, str]:
        """Work, and wait for what others have taken, which may come back; the states in the end.

        After SIGINT or SIGTERM the job at hand saves and is put back in the queue. Raises UserError where the storage
        fails.
        """
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with errors_of(self.storage):
                while not self.signal:
                    self._take_back()
                    self._queue()
                    found = {trial.state for trial in _trials(self.study)}
                    if TrialState.WAITING in found:
                        trial = self.study.ask()
                        self.study.tell(trial, *self._result(trial), skip_if_finished=True)
                        if len(self.jobs) > 1 and "job" in trial.user_attrs:
                            print(self.progress(), flush=True)
                    elif TrialState.RUNNING in found:
                        time.sleep(min(self.timeout / 3, 10))
                    else:
                        break
                return states(self.jobs, self.study, self.output)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def progress(self) -> str:
        """How many jobs are done, running and left, and when the rest will be, if they take as long as those before."""
        trials = _trials(self.study)
        found = _overall(self.jobs, [(_job(trial), _state(trial, self.output)) for trial in trials])
        seconds: dict[str, list[float]] = {}
        for trial in trials:
            if trial.state == TrialState.COMPLETE and trial.duration:
                seconds.setdefault(_job(trial).makes, []).append(trial.duration.total_seconds())
        running = [name for name, state in found.items() if state == "running"]
        left = [name for name, state in found.items() if state in ("waiting", GONE)]
        line = f"{len(found) - len(running) - len(left)} of {len(found)} done"
        line += f", {len(running)} running, {len(left)} left"
        times = [seconds.get(self.jobs[name].makes, []) for name in left]
        if left and all(times):
            rest = sum(sum(one) / len(one) for one in times) / (len(running) + 1)
            ready = datetime.now() + timedelta(seconds=rest)
            line += f"; the rest by {ready:%H:%M}" + (f" on {ready:%d %B}" if rest > 43_200 else "")
        return line

    def _take_back(self) -> None:
        """Queue again the jobs of workers without a sign of life; should one of them live, its result is ignored."""
        for trial in _trials(self.study):
            started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            alive = max(started, trial.user_attrs.get("alive", 0.0))
            if trial.state == TrialState.RUNNING and abs(time.time() - alive) > self.timeout:  # clocks jump both ways
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                self._enqueue(_job(trial))

    def _result(self, trial: optuna.Trial) -> tuple[float | None, TrialState]:
        """Do the job that `trial` was queued for; what it made is in its folder, so the value is 0."""
        if "job" not in trial.user_attrs or self._elsewhere(trial):
            return None, TrialState.PRUNED  # another worker was quicker
        job = _job(trial)
        self._wait_for_the_folder(trial, self.output / job.folder)
        print(f"{job.name}: started", flush=True)
        command = command_of(job, self.output, self.scripts)
        with subprocess.Popen(command, start_new_session=True, env=os.environ | {PARENT: str(os.getpid())}) as child:
            self.child = child
            if self.signal:
                child.send_signal(self.signal)
            while (code := self._code(child)) is None:
                self._sign_of_life(trial)
            self.child = None
        if code == 0 and made(job, self.output):
            return 0.0, TrialState.COMPLETE
        if self.signal:
            self._enqueue(job)
        else:
            how = f"failed with exit code {code}" if code else f"ended without making {job.makes}"
            print(f"{job.name}: {how}; it is tried again when a worker starts", flush=True)
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

    def _elsewhere(self, trial: optuna.Trial) -> bool:
        others = [other for other in _trials(self.study) if _job(other).name == _job(trial).name]
        return any(
            _state(other, self.output) == "done" or (other.state == TrialState.RUNNING and other.number < trial.number)
            for other in others
            if other.number != trial.number
        )

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        if self.child:
            self.child.send_signal(number)
