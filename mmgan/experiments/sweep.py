"""Jobs shared by many workers: an Optuna storage records which are left, and their folders hold the results."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import optuna
import psutil
from filelock import FileLock, Timeout
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

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
"""The state of a job that was done but whose results are no longer in its folder."""
ORDER = (*NAMES.values(), GONE)
"""States of a job; if it has several trials, the first of these counts."""
FOR_GOOD = re.compile(
    r"password|authentication failed|certificate|pg_hba|does not (exist|support)|denied|not permitted|unknown database"
    r"|invalid",
    re.I,
)
"""Matches database errors that waiting cannot fix, such as a wrong password."""
SECRET = re.compile(r"pass|pwd|secret|token", re.I)
"""Matches the names of URL settings whose values must not be shown."""
NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "gluster", "afs", "9p", "sshfs")
"""Prefixes of the types of network file systems."""
T = TypeVar("T")


def states(jobs: Mapping[str, Job], study: optuna.Study | None, output: Path) -> dict[str, str]:
    """The state of every job by name: done, running, waiting, failed or gone."""
    return _overall(jobs, _pairs(_trials(study), output))


def _overall(jobs: Mapping[str, Job], found: Sequence[tuple[Job, str]]) -> dict[str, str]:
    """The state of every job by name, from the jobs and states of all trials."""
    by_name = {job.name: state for job, state in sorted(found, key=lambda one: ORDER.index(one[1]), reverse=True)}
    return {name: by_name.get(name, "waiting") for name in jobs}


def _trials(study: optuna.Study | None) -> list[FrozenTrial]:
    """The trials that belong to a job, except pruned ones, which do not count.

    A trial is pruned if another worker has done its job, if its worker was stopped or is gone, or if it was begun
    although the queue was empty.
    """
    trials = study.get_trials(deepcopy=False) if study else []
    return [trial for trial in trials if "job" in trial.user_attrs and trial.state in NAMES]


def _job(trial: FrozenTrial | optuna.Trial) -> Job:
    job = Job(**trial.user_attrs["job"])
    return job._replace(options=tuple(job.options), needs=tuple(job.needs))  # JSON only has lists


def _state(trial: FrozenTrial, output: Path) -> str:
    if trial.state == TrialState.COMPLETE and not made(_job(trial), output):
        return GONE
    return NAMES[trial.state]


def _pairs(trials: Iterable[FrozenTrial], output: Path) -> list[tuple[Job, str]]:
    """The job of each trial, and its state."""
    return [(_job(trial), _state(trial, output)) for trial in trials]


def made(job: Job, output: Path) -> bool:
    """Whether the results of a job exist."""
    return next((output / job.folder).glob(job.makes), None) is not None


def command_of(job: Job, output: Path, scripts: Path) -> list[str]:
    """The command of a job; scripts named by a single word are in the folder `scripts`."""
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
    """The sweep of the folder `output` in a storage, which is a database's URL or an SQLite file.

    None if there is none yet and `create` is false. Raises UserError if the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)  # the worker reports what failed
    identity = output / "sweep.id"
    with errors_of(storage):
        if not create and not (identity.exists() and _may_exist(storage)):
            return None
        if create and not identity.exists():
            files.write(identity, uuid.uuid4().hex)
        if isinstance(storage, Path):  # not as a URL, where ?, % and { have special meanings
            connect = partial(sqlite3.connect, storage, timeout=60, check_same_thread=False)
            opened = RDBStorage("sqlite:///sweep.db", engine_kwargs={"creator": connect})
        else:
            opened = RDBStorage(*_engine_of(storage))
        name = f"sweep {identity.read_text()}"
        if not create and name not in optuna.get_all_study_names(opened):
            return None
        return optuna.create_study(storage=opened, study_name=name, load_if_exists=True)


def _engine_of(storage: str) -> tuple[str, dict[str, Any]]:
    """The URL for SQLAlchemy and its connection settings, by which a lost server is noticed within half a minute.

    PostgreSQL uses the driver that `mmgan[postgresql]` installs, unless the URL names another. Connection settings in
    the URL take precedence.
    """
    url = make_url(storage)
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "postgresql" and url.get_driver_name() in ("psycopg", "psycopg2"):
        keep = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
        ours = {"connect_timeout": 10, **keep}
        options["connect_args"] = {name: value for name, value in ours.items() if name not in url.query}
    return url.render_as_string(hide_password=False), options


def away(storage: str | Path, error: BaseException | None) -> bool:
    """Whether `error` means that a database is unreachable now but may be reachable later."""
    if isinstance(storage, Path) or make_url(storage).get_backend_name() == "sqlite":
        return False
    while error:
        if isinstance(error, PendingRollbackError):  # the connection was lost within a transaction
            return True
        if isinstance(error, OperationalError | InterfaceError):
            return not FOR_GOOD.search(re.sub('"[^"]*"', "", str(error.orig)))  # without the user's names
        error = error.__cause__
    return False


def network_file_system(path: Path, mounts: Iterable[tuple[str, str]]) -> str | None:
    """The type of the file system of `path` if it is a network one, given mount points and types; otherwise None."""
    above = [(Path(point), kind) for point, kind in mounts if path.resolve().is_relative_to(point)]
    above.reverse()  # of two at the same mount point, the later one covers the earlier
    kind = max(above, key=lambda mount: len(mount[0].parts), default=(path, ""))[1]
    return kind if kind.removeprefix("fuse.").startswith(NETWORK) else None


def _file_of(storage: str | Path) -> Path | None:
    """The file of an SQLite database; None for a server."""
    if isinstance(storage, Path):
        return storage
    url = make_url(storage)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _may_exist(storage: str | Path) -> bool:
    """Whether a database may exist; connecting to a missing SQLite file would create it."""
    file = _file_of(storage)
    return file is None or file.exists()


@contextmanager
def errors_of(storage: str | Path) -> Iterator[None]:
    """Turn anything a storage raises into a UserError, which names it without its password."""
    if isinstance(storage, str):
        try:
            make_url(storage)
        except (SQLAlchemyError, ValueError) as error:
            raise UserError("storage is not the URL of a database, such as postgresql://USER@HOST/NAME") from error
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # every database has different ones
        advice = "the runs are kept: fix that and run the same command again"
        raise UserError(f"{_failure(storage, error)}; {advice}") from error


def _failure(storage: str | Path, error: BaseException) -> str:
    """A storage's error as one line that names it without its password."""
    shown, secrets = str(storage), []
    if isinstance(storage, str):
        url = make_url(storage)
        hidden = [value for name, values in url.normalized_query.items() if SECRET.search(name) for value in values]
        secrets = [secret for secret in (url.password, *hidden) if secret]
        shown = url.set(query={}).render_as_string(hide_password=True)
    while isinstance(error, StorageInternalError | UserError) and error.__cause__:
        error = error.__cause__
    text = str(error).partition("\n")[0]
    for secret in secrets:
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    if isinstance(error, ImportError):
        text += " (the driver for PostgreSQL is in mmgan[postgresql])"
    return f"storage {shown} failed: {text}"


class Worker:
    """Does the jobs of a sweep one by one, and waits for those of other workers, until none is left that it can do.

    A job is a separate process, which ends when its worker does. Its options are in the storage.
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
        """`begin` is called once the folder exists, before anything is queued.

        Raises UserError if the folder or the storage cannot be used.
        """
        self.jobs, self.output, self.storage, self.timeout, self.scripts = jobs, output, storage, timeout, scripts
        self.child: subprocess.Popen[bytes] | None = None
        self.signal = 0
        self.queued: set[str] = set()
        """Jobs that this worker has queued; it tries none twice."""
        self.failed: set[str] = set()
        """Jobs that had failed when this worker started, which it tries again."""
        with errors_of(storage):
            file = _file_of(storage)
        mounts = ((mount.mountpoint, mount.fstype) for mount in psutil.disk_partitions(all=True))
        if file and (kind := network_file_system(file.parent, mounts)):
            print(
                f"{file} is on a network file system ({kind}), where SQLite may lose data written by several "
                "machines; for workers on more than one, set --storage to the URL of a database server",
                flush=True,
            )
        with files.writing(output):
            output.mkdir(parents=True, exist_ok=True)
            self.study = self._patiently(self._open)
            self._patiently(partial(self._begin, begin))

    def _open(self) -> optuna.Study:
        with self._alone():  # one worker at a time creates the tables
            study = open_study(self.storage, self.output, create=True)
        assert study is not None
        return study

    def _patiently(self, ask: Callable[[], T]) -> T:
        """The result of `ask`; while a database server is unreachable, says so and retries until there is a signal."""
        waited = False
        while True:
            try:
                answer = ask()
            except Exception as error:
                if self.signal or not away(self.storage, error):
                    raise
                if not waited:
                    print(f"{_failure(self.storage, error)}; waiting for it", flush=True)
                waited = True
                time.sleep(1)
            else:
                return answer

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One worker at a time; errors of the storage become UserErrors."""
        lock = FileLock(self.output / ".sweep.lock")
        for seconds in count(1):
            try:
                lock.acquire(timeout=1)
                break
            except Timeout:
                if self.signal:
                    raise UserError(f"{lock.lock_file} is held by another worker") from None
                if seconds == 10:
                    print(f"{lock.lock_file} is held by another worker, which may be suspended; waiting", flush=True)
        try:
            with errors_of(self.storage):
                yield
        finally:
            lock.release()

    def _begin(self, begin: Callable[[], None]) -> None:
        """Call `begin` and note failed jobs; raises UserError if the storage has a job with different options."""
        with self._alone():
            trials = _pairs(_trials(self.study), self.output)
            known = {job.name: job for job, state in trials if state not in ("failed", GONE)}
            unlike = [name for name, job in self.jobs.items() if known.get(name, job) != job]
            if unlike:
                raise UserError(
                    f"{self.output} holds a sweep whose {unlike[0]} has different options; choose another --output"
                )
            begin()
            self.failed = {name for name, state in _overall(self.jobs, trials).items() if state == "failed"}

    def work(self) -> dict[str, str]:
        """Do jobs, and wait for those of other workers, which may return to the queue; returns the final states.

        After SIGINT or SIGTERM, the current job saves its state and is put back in the queue. Raises UserError if the
        storage fails.
        """
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with errors_of(self.storage):
                waiting = False
                while not self.signal:
                    trial, others = self._patiently(self._next)
                    if trial:
                        waiting = False
                        self._do(trial)
                        if len(self.jobs) > 1 and "job" in trial.user_attrs:
                            print(self._patiently(self.progress), flush=True)
                    elif others:
                        if not waiting:
                            print(f"waiting for other workers to do {', '.join(others)}", flush=True)
                        waiting = True
                        self._pause(min(self.timeout / 3, 10))
                    else:
                        break
                return self._patiently(lambda: states(self.jobs, self.study, self.output))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _next(self) -> tuple[optuna.Trial | None, list[str]]:
        """The next job, if one is left, and the names of those that others are doing.

        Jobs are queued one at a time, so that the steps of a run come before the next run.
        """
        self._take_back()
        with self._alone():
            trials = _trials(self.study)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)  # left by a worker killed just here
            if not waiting and (job := self._first(trials)):
                self.study.enqueue_trial({}, user_attrs={"job": job._asdict()})
                self.queued.add(job.name)
                waiting = True
            others = [_job(trial).name for trial in trials if trial.state == TrialState.RUNNING]
            return self.study.ask() if waiting else None, others

    def _first(self, trials: Sequence[FrozenTrial]) -> Job | None:
        """The first job that is left for this worker and whose needs are done."""
        pairs = _pairs(trials, self.output)
        tried, found = {job.name for job, _ in pairs}, _overall(self.jobs, pairs)
        for name, job in self.jobs.items():
            failed = found[name] == GONE or (found[name] == "failed" and name in self.failed)
            left = name not in tried or (failed and name not in self.queued)
            if left and all(found[need] == "done" for need in job.needs):
                return job
        return None

    def progress(self) -> str:
        """Numbers of jobs done, running and left, and when all will be done if they take as long as earlier ones."""
        trials = _trials(self.study)
        found = _overall(self.jobs, _pairs(trials, self.output))
        seconds: dict[str, list[float]] = {}
        for trial in trials:
            if trial.state == TrialState.COMPLETE and trial.duration:
                seconds.setdefault(_job(trial).makes, []).append(trial.duration.total_seconds())
        count = Counter(found.values())
        left = [name for name, state in found.items() if state in ("waiting", GONE)]
        line = f"{count['done']} of {len(found)} done, {count['running']} running, {len(left)} left"
        line += f", {count['failed']} failed" if count["failed"] else ""
        times = [seconds.get(self.jobs[name].makes, []) for name in left]
        if left and all(times):
            rest = sum(sum(one) / len(one) for one in times) / (count["running"] + 1)
            ready = datetime.now() + timedelta(seconds=rest)
            line += f"; the rest by {ready:%H:%M}" + (f" on {ready:%d %B}" if rest > 43_200 else "")
        return line

    def _take_back(self) -> None:
        """Release the jobs of workers without a sign of life, unless somebody holds the job's lock.

        A worker that is suspended, or cut off from the storage, shows no sign of life but holds the lock.
        """
        for trial in _trials(self.study):
            started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            alive = max(started, trial.user_attrs.get("alive", 0.0))
            if trial.state == TrialState.RUNNING and abs(time.time() - alive) > self.timeout:  # clocks jump both ways
                with self._lock(_job(trial)) as lock:
                    if lock:
                        self._tell(trial, TrialState.PRUNED)

    def _do(self, trial: optuna.Trial) -> None:
        """Do the job that `trial` was queued for, unless it is no longer needed, and record how it ended."""
        if "job" not in trial.user_attrs:  # no worker has queued it
            self._patiently(partial(self._tell, trial, TrialState.PRUNED))
            return
        job = _job(trial)
        with self._lock(job, wait=True) as lock:
            state = TrialState.PRUNED
            if lock and not self.signal and self._patiently(partial(self._left, trial)):
                state = self._result(job, trial, lock)
            self._patiently(partial(self._tell, trial, state))

    def _result(self, job: Job, trial: optuna.Trial, lock: int) -> TrialState:
        """Do a job; its process inherits the lock and so holds it even if this worker is killed."""
        print(f"{job.name}: started", flush=True)
        command = command_of(job, self.output, self.scripts)
        environment = os.environ | {PARENT: str(os.getpid())}
        with subprocess.Popen(command, start_new_session=True, env=environment, pass_fds=[lock]) as child:
            self.child = child
            if self.signal:
                child.send_signal(self.signal)
            while (code := self._code(child)) is None:
                self._sign_of_life(trial)
            self.child = None
        if code == 0 and made(job, self.output):
            return TrialState.COMPLETE
        if self.signal:
            return TrialState.PRUNED
        how = f"failed with exit code {code}" if code else f"ended without making {job.makes}"
        print(f"{job.name}: {how}; it will be tried again when a worker starts", flush=True)
        return TrialState.FAIL

    def _tell(self, trial: optuna.Trial | FrozenTrial, state: TrialState) -> None:
        """Record how a job ended; its value is 0, because its results are in its folder."""
        with self._alone():
            value = 0.0 if state == TrialState.COMPLETE else None
            self.study.tell(trial.number, value, state, skip_if_finished=True)

    def _code(self, child: subprocess.Popen[bytes]) -> int | None:
        """The exit code of a run; None if it still runs after a third of the timeout."""
        try:
            return child.wait(self.timeout / 3)
        except subprocess.TimeoutExpired:
            return None

    def _sign_of_life(self, trial: optuna.Trial) -> None:
        """Record that this worker is alive; failures of the storage are ignored, since the job's end is what counts."""
        with suppress(Exception):
            trial.set_user_attr("alive", time.time())

    @contextmanager
    def _lock(self, job: Job, wait: bool = False) -> Iterator[int | None]:
        """Hold a job's lock and yield its descriptor; None if another process has it.

        With `wait`, it is None only after a signal. A process that outlives a killed worker keeps the lock until it
        ends.
        """
        path = self.output / ".jobs" / f"{job.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            held = said = False
            while not held:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    held = True
                except BlockingIOError:
                    if self.signal or not wait:
                        break
                    if not said:
                        print(f"{job.name}: another process is still working on it; waiting", flush=True)
                    said = True
                    time.sleep(1)
            yield file.fileno() if held else None

    def _left(self, trial: optuna.Trial) -> bool:
        """Whether the job that `trial` was queued for still has to be done by this worker."""
        trials = _trials(self.study)
        done = [_job(one).name for one in trials if _state(one, self.output) == "done"]
        return _job(trial).name not in done and any(one.number == trial.number for one in trials)

    def _pause(self, seconds: float) -> None:
        """Sleep, but wake up soon after a signal."""
        end = time.monotonic() + seconds
        while not self.signal and (left := end - time.monotonic()) > 0:
            time.sleep(min(1, left))

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        if self.child:
            self.child.send_signal(number)
