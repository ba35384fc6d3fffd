"""A grid of runs, shared by workers that come, stop and are killed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.experiments.experiment import Experiment, Job, begin, jobs_of
from mmgan.experiments.sweep import Worker, open_study, states
from mmgan.gan.config import GANConfig, ScoreConfig
from mmgan.scoring import Inception
from tests.conftest import ENVIRONMENT, ROOT, SMALL, result, run, same, train, wait_for, wait_for_step
from tests.conftest import begin as start
from tests.hosts import Host

pytestmark = pytest.mark.slow

STEPS = 40
OPTIONS: dict[str, Any] = dict(zip([key.removeprefix("--") for key in SMALL[::2]], map(int, SMALL[1::2]), strict=True))
OPTIONS |= {"steps": STEPS, "log_every": 5, "checkpoint_every": 10, "tracker": None}
GRIDS = [{"mixup": [None], "seed": [0, 1]}, {"mixup.alpha": [0.5], "mixup.layers": [[0, 1]], "seed": [0, 1]}]
NAMES = ["mixup-null/seed-0", "alpha-0.5_layers-0-1/seed-0", "mixup-null/seed-1", "alpha-0.5_layers-0-1/seed-1"]


def sweep(folder: Path, **changes: Any) -> list[str]:
    """The options of a small sweep, whose configuration is written to `folder`."""
    file = folder / "sweep.yaml"
    config = {"script": "train_gan", "configs": ["configs/gan/digits.yaml"], "options": OPTIONS, "grids": GRIDS}
    config |= {"timeout": 4} | changes
    file.write_text(yaml.safe_dump(config))
    return ["--config", str(file), "--output", str(folder / "runs")]


def starts(folder: Path) -> int:
    return len(json.loads((folder / "environment.json").read_text()))


def rest_of(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=280)
    return said


def test_the_runs_of_a_killed_worker_are_resumed_by_another_and_none_is_done_twice(tmp_path: Path) -> None:
    options = sweep(tmp_path)
    killed, other = start("sweep", *options), start("sweep", *options)
    wait_for_step(killed)
    killed.send_signal(signal.SIGKILL)
    rest_of(killed)  # to the end of what it started
    said = rest_of(other)
    assert other.returncode == 0, said
    assert said.splitlines()[-1] == "4 jobs: 4 done"
    runs = {name: tmp_path / "runs" / name for name in NAMES}
    counts = sorted(starts(folder) for folder in runs.values())
    assert counts in ([1, 1, 1, 2], [1, 1, 1, 1])  # the killed worker's run may have been at its very end
    assert ("resuming after step" in said) == (counts[-1] == 2)
    for name, folder in runs.items():
        state, rows = result(folder)
        assert state["step"] == STEPS
        assert [row["step"] for row in rows if "loss/real" in row] == list(range(5, STEPS + 1, 5)), name

    interrupted = max(NAMES, key=lambda name: starts(runs[name]))
    mixup = ["--mixup", "null"] if "null" in interrupted else ["--mixup.alpha", "0.5", "--mixup.layers", "[0,1]"]
    plain = [*mixup, "--seed", interrupted[-1], "--steps", str(STEPS)]
    train(tmp_path / "alone", *plain, "--log_every", "5", "--checkpoint_every", "10")
    assert same(result(tmp_path / "alone")[0], result(runs[interrupted])[0])

    again = run("sweep", *options)
    assert again.stdout.splitlines() == ["4 jobs: 4 done"]
    assert sorted(starts(folder) for folder in runs.values()) == counts


def test_a_worker_that_is_stopped_puts_its_run_back(tmp_path: Path) -> None:
    options = sweep(tmp_path, grids=GRIDS[:1])
    worker = start("sweep", *options)
    wait_for_step(worker)
    worker.send_signal(signal.SIGTERM)
    said = rest_of(worker)
    assert worker.returncode == 128 + signal.SIGTERM, said
    assert "back in the queue" in said
    listed = run("sweep", *options, "--dry_run").stdout.splitlines()
    assert listed[-1] == "2 jobs: 2 waiting"
    assert "step-0000" in listed[0]
    assert not (tmp_path / "runs" / "mixup-null" / "seed-1").exists()
    done = run("sweep", *options)
    assert done.stdout.splitlines()[-1] == "2 jobs: 2 done", done.stderr
    assert starts(tmp_path / "runs" / "mixup-null" / "seed-0") == 2


def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again_by_the_next_worker(tmp_path: Path) -> None:
    options = sweep(tmp_path, options=OPTIONS | {"steps": 5}, grids=[{"mixup": [None], "seed": [0, 1]}])
    taken = tmp_path / "runs" / "mixup-null" / "seed-0"
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("not a run")
    done = run("sweep", *options)
    assert done.returncode == 2
    assert "2 jobs: 1 done, 1 failed" in done.stdout
    assert done.stderr.splitlines()[-1] == "error: mixup-null/seed-0 failed; the lines above say why"
    assert "is neither empty nor a run" in done.stderr
    (taken / "notes.txt").unlink()
    done = run("sweep", *options)
    assert done.stdout.splitlines()[-1] == "2 jobs: 2 done"


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = run("sweep", *sweep(tmp_path), "--dry_run")
    assert done.stdout.splitlines() == [
        *(f"waiting  {name}  last checkpoint: none yet" for name in NAMES),
        "4 jobs: 4 waiting",
    ]
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_one_run_of_the_grid_is_told_before_any_starts(tmp_path: Path) -> None:
    done = run("sweep", *sweep(tmp_path, grids=[{"mixup.alpha": [0.5, 7.0]}]))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "alpha-7.0/seed-0: " in done.stderr
    assert not (tmp_path / "runs").exists()


def experiment(**changes: Any) -> Experiment:
    """What a configuration of these options is."""
    return cli.config_of(Experiment, {"script": "train_gan"} | changes)


def test_a_grid_is_every_combination_of_its_values_by_seeds() -> None:
    grids: list[dict[str, list[Any]]] = [{"lr": [1e-4, 1e-3], "seed": [1, 0]}, {"loss": ["hinge"], "data.subset": [5]}]
    found = experiment(configs=["a.yaml"], grids=grids, options={"steps": 7, "lr": 3.0, "x": "$seed"}).lines()
    assert list(found) == [
        "lr-0.0001/seed-0",
        "lr-0.001/seed-0",
        "loss-hinge_subset-5/seed-0",
        "lr-0.0001/seed-1",
        "lr-0.001/seed-1",
    ]
    expected = "--config a.yaml --steps 7 --x 1 --lr 0.001 --seed 1"
    assert " ".join(found["lr-0.001/seed-1"]) == expected


def test_an_arm_has_a_name_and_may_have_configurations_and_seeds_of_its_own() -> None:
    arms = {"plain": {"mixup": None}, "other": {"configs": ["b.yaml"], "seed": [4], "lr": 0.5}}
    found = experiment(configs=["a.yaml"], arms=arms, seeds=[0, 1], options={"lr": 3.0}).lines(["--steps", "9"])
    assert list(found) == ["plain/seed-0", "plain/seed-1", "other/seed-4"]
    assert " ".join(found["plain/seed-1"]) == "--config a.yaml --lr 3.0 --steps 9 --mixup null --seed 1"
    assert " ".join(found["other/seed-4"]) == "--config a.yaml --config b.yaml --steps 9 --lr 0.5 --seed 4"


def test_a_step_follows_its_run_and_waits_for_another_that_it_names() -> None:
    steps = [{"script": "attack_cls", "makes": "attack.json", "options": {"transfer": "$output/a/seed-$next", "x": 1}}]
    jobs = jobs_of(experiment(arms={"a": {}, "b": {"lr": 1}}, seeds=[3, 5], steps=steps))
    assert [name for name, job in jobs.items() if job.first] == ["a/seed-3", "b/seed-3", "a/seed-5", "b/seed-5"]
    job = jobs["b/seed-5 attack.json"]
    assert (job.folder, job.needs) == ("b/seed-5", ("b/seed-5", "a/seed-3"))
    assert job.options == ("--transfer", "$output/a/seed-3", "--x", "1")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grids": [{"lr": []}]}, "lr has no values"),
        ({}, "arms and grids are both empty"),
        ({"arms": {"../a": {}}}, "it names a folder"),
        ({"arms": {"a": {"seed": 3}}}, "seed must be a list of whole numbers, not 3"),
        ({"arms": {"a": {}}, "baseline": "b"}, "baseline: unknown arm b; the arms are a"),
        ({"arms": {"a": {}}, "claims": [{"arm": "a", "other": "b", "measure": "fid"}]}, "claims: unknown arm b"),
        (
            {"arms": {"a": {}, "b": {}}, "claims": [{"arm": "a", "other": "b", "measure": "f", "source": "table-9"}]},
            "no published figure is called table-9",
        ),
        ({"arms": {"a": {}}, "steps": [{"script": "x", "makes": "y"}] * 2}, "two steps have the same makes"),
        ({"arms": {"a": {}}, "steps": [{"script": "x", "makes": "/y"}]}, "makes must be a file, or a pattern of files"),
        ({"arms": {"a": {"configs": "a.yaml"}}}, "arms.a.configs must be a list"),
        ({"arms": {"a": {}}, "options": {"seed": 3}}, "options: seed is not allowed here; set seeds"),
        ({"arms": {"a": {}}, "claims": [{"arm": "a", "other": "a", "measure": "f"}]}, "a is compared with itself"),
        (
            {"arms": {"a": {}, "b": {}}, "claims": [{"arm": "a", "other": "b", "measure": "f"}] * 2},
            "one occurs twice",
        ),
    ],
)
def test_an_experiment_that_cannot_be_meant_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        experiment(**changes)


def test_two_runs_of_one_folder_two_arms_that_are_one_and_a_step_on_no_run_are_refused() -> None:
    with pytest.raises(UserError, match="seed-0 twice"):
        experiment(grids=[{"lr": [1]}, {"lr": [1]}]).lines()
    with pytest.raises(UserError, match="the arms a and b have the same options"):
        experiment(arms={"a": {"lr": 1}, "b": {"lr": 1}}).lines()
    with pytest.raises(UserError, match="names nnoe/seed-0, which is not a run of this sweep"):
        jobs_of(
            experiment(arms={"a": {}}, steps=[{"script": "x", "makes": "y", "options": {"z": "$output/nnoe/seed-0"}}])
        )


@pytest.mark.parametrize(
    "change",
    [
        {"script": "../outside"},
        {"script": "OUTSIDE"},
        {"steps": [{"script": "score", "makes": "x", "options": {"extractor": "outside.Own"}}]},
    ],
)
def test_a_file_makes_no_code_run_that_is_not_ours(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "outside.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    change = {key: str(tmp_path / "outside") if value == "OUTSIDE" else value for key, value in change.items()}
    options = sweep(tmp_path, **change)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "PYTHONPATH", str(tmp_path))
        done = run("sweep", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "imported").exists()


def test_a_sweep_that_is_refused_leaves_the_plan_of_the_one_before(tmp_path: Path) -> None:
    first = experiment(arms={"a": {}}, title="first")
    jobs = {name: job._replace(script=str(quick(tmp_path))) for name, job in jobs_of(first).items()}
    database = tmp_path / "runs" / "sweep.db"
    Worker(jobs, tmp_path / "runs", database, 9, begin=lambda: begin(first, tmp_path / "runs")).work()
    second = experiment(arms={"a": {"lr": 3}}, title="second")
    with pytest.raises(UserError, match="has different options"):
        Worker(jobs_of(second), tmp_path / "runs", database, 9, begin=lambda: begin(second, tmp_path / "runs"))
    assert json.loads((tmp_path / "runs" / "experiment.json").read_text())["experiment"]["title"] == "first"


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_experiment_of_ours_can_be_parsed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    under = [file.with_name(name) for name in re.findall(r"over configs/sweeps/([\w.]+\.yaml)", file.read_text())]
    options = [word for one in (*under, file) for word in ("--config", str(one))]
    found = cli.parse(Experiment, "", [*options, "--output", "o"]).config
    assert len(jobs_of(found)) > 8
    assert len(found.hash()) == 64


def a_run(name: str, *options: str) -> Job:
    """A job that a script does by itself."""
    return Job(name, name, "", options, "checkpoints/step-*", (), True)


def test_other_options_for_a_run_in_the_storage_are_refused_and_more_runs_are_welcome(tmp_path: Path) -> None:
    a, b = two(quick(tmp_path)).values()
    file = tmp_path / "sweep.db"
    assert Worker({"a": a}, tmp_path, file, timeout=9).work() == {"a": "done"}
    assert Worker({"a": a, "b": b}, tmp_path, file, timeout=9).work() == DONE
    with pytest.raises(UserError, match="whose b has different options"):
        Worker({"b": b._replace(options=("--lr", "3"))}, tmp_path, file, timeout=9)


SCRIPT = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
(folder / "checkpoints" / "step-000001").mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as file:
    file.write("x")
"""
"""A run that is over at once, in place of training."""


def quick(folder: Path, *lines: str) -> Path:
    """A script that does as a run does, and then `lines`."""
    file = folder / "quick.py"
    file.write_text("\n".join([SCRIPT, *lines]))
    return file


def two(script: Path) -> dict[str, Job]:
    """Two runs of a script."""
    return {name: a_run(name)._replace(script=str(script)) for name in "ab"}


def work(script: Path, output: Path, storage: str | Path | None = None, timeout: int = 9) -> dict[str, str]:
    return Worker(two(script), output, storage or output / "sweep.db", timeout).work()


DONE = {"a": "done", "b": "done"}


def test_the_steps_of_a_run_come_before_the_next_run(tmp_path: Path) -> None:
    step = tmp_path / "step.py"
    step.write_text("import pathlib, sys\n(pathlib.Path(sys.argv[1]) / 'measured').touch()\n")
    steps = [{"script": str(step), "makes": "measured"}]
    jobs = jobs_of(experiment(script=str(quick(tmp_path)), arms={"a": {}}, seeds=[0, 1], steps=steps))
    assert list(jobs) == ["a/seed-0", "a/seed-0 measured", "a/seed-1", "a/seed-1 measured"]
    output = tmp_path / "runs"
    assert set(Worker(jobs, output, output / "sweep.db", 9).work().values()) == {"done"}
    made = [output / name for name in ("a/seed-0/starts", "a/seed-0/measured", "a/seed-1/starts", "a/seed-1/measured")]
    times = [file.stat().st_mtime_ns for file in made]
    assert times == sorted(times)


@pytest.mark.parametrize("name", ["what", "what?", "what?2", "a%20b", "a b#c", "{SCHEMA_VERSION}", "a{b"])
def test_a_sweep_keeps_its_database_in_its_folder_whatever_the_folders_name(tmp_path: Path, name: str) -> None:
    output = tmp_path / "d" / name
    assert work(quick(tmp_path), output) == DONE
    assert (output / "sweep.db").stat().st_size > 0
    assert sorted(path.name for path in tmp_path.rglob("*.db*")) == ["sweep.db"]
    assert [path.name for path in (tmp_path / "d").iterdir()] == [name]


def test_two_folders_with_one_storage_are_two_sweeps(tmp_path: Path) -> None:
    url, script = f"sqlite:///{tmp_path / 'shared.db'}", quick(tmp_path)
    for name in ("one", "two"):
        assert open_study(url, tmp_path / name, create=False) is None
        assert work(script, tmp_path / name, url) == DONE
        assert (tmp_path / name / "b" / "starts").read_text() == "x"


def test_a_finished_run_whose_folder_is_gone_is_not_done_and_is_made_again(tmp_path: Path) -> None:
    script, output = quick(tmp_path), tmp_path / "runs"
    assert work(script, output) == DONE
    shutil.rmtree(output / "b")
    assert states(two(script), open_study(output / "sweep.db", output, create=False), output)["b"] == "gone"
    assert work(script, output) == DONE
    assert [(output / name / "starts").read_text() for name in "ab"] == ["x", "x"]


WORKER = """
import sys
from pathlib import Path
from mmgan.engine import cli
from mmgan.experiments.experiment import Job
from mmgan.experiments.sweep import Worker
script, output, timeout, *url = sys.argv[1:]
jobs = {name: Job(name, name, script, (), "checkpoints/step-*", (), True) for name in "ab"}
storage = url[0] if url else Path(output) / "sweep.db"
cli.run(lambda: print(Worker(jobs, Path(output), storage, int(timeout)).work()))
"""


def worker(script: Path, output: Path, timeout: int, *url: str, host: Host | None = None) -> subprocess.Popen[str]:
    """A worker that is a process of its own, for two runs of a script."""
    line = [sys.executable, "-uc", WORKER, str(script), str(output), str(timeout), *url]
    line, pipe = host.line(*line) if host else line, subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def until_told(folder: Path) -> list[str]:
    """Lines of a job that does not end before the file `go` is in the folder."""
    return ["print('at work', flush=True)", f"while not pathlib.Path({str(folder / 'go')!r}).exists(): time.sleep(0.1)"]


def test_what_a_killed_worker_left_at_work_is_waited_for_and_resumed(tmp_path: Path) -> None:
    """Though the job, a script of any kind, does not look whether its worker lives."""
    script, output = quick(tmp_path, *until_told(tmp_path), "(folder / 'end').touch()"), tmp_path / "runs"
    killed = worker(script, output, 1)
    wait_for(killed, "at work")
    killed.kill()
    quick(tmp_path, "print(folder.name, 'after the end:', (folder / 'end').exists(), flush=True)")
    other = worker(script, output, 1)
    wait_for(other, "waiting for other workers to do a")
    time.sleep(3)  # longer than the timeout
    (tmp_path / "go").touch()
    said = rest_of(other)
    assert "a after the end: True" in said
    assert said.splitlines()[-1] == str(DONE)
    rest_of(killed)


def test_a_worker_that_is_suspended_for_longer_than_the_timeout_keeps_its_job(tmp_path: Path) -> None:
    script, output = quick(tmp_path, *until_told(tmp_path)), tmp_path / "runs"
    suspended = worker(script, output, 1)
    wait_for(suspended, "at work")
    suspended.send_signal(signal.SIGSTOP)
    try:
        (tmp_path / "go").touch()
        other = worker(script, output, 1)
        wait_for(other, "waiting for other workers to do a")
        time.sleep(3)
    finally:
        suspended.send_signal(signal.SIGCONT)
    assert [rest_of(one).splitlines()[-1] for one in (suspended, other)] == [str(DONE)] * 2
    assert [(output / name / "starts").read_text() for name in "ab"] == ["x", "x"]


def test_a_worker_that_waits_for_another_is_stopped_by_a_signal(tmp_path: Path) -> None:
    script, output = quick(tmp_path, *until_told(tmp_path)), tmp_path / "runs"
    one = worker(script, output, 9)
    wait_for(one, "at work")
    with FileLock(output / ".sweep.lock"):
        (tmp_path / "go").touch()
        wait_for(one, "is held by another worker")
        one.send_signal(signal.SIGTERM)
        assert "is held by another worker" in rest_of(one)
    assert work(quick(tmp_path), output, timeout=1) == DONE


def test_a_run_that_nobody_gave_a_sign_of_life_for_is_taken_up(tmp_path: Path) -> None:
    output = tmp_path / "runs"
    left = Worker(two(quick(tmp_path)), output, output / "sweep.db", timeout=1)
    assert left._next()[0], "a is taken, and its worker is gone"
    assert states(left.jobs, left.study, output) == {"a": "running", "b": "waiting"}
    assert work(quick(tmp_path), output, timeout=1) == DONE


@pytest.mark.parametrize(
    "damage",
    [
        "database.unlink()",
        "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))",
    ],
    ids=["deleted", "full"],
)
def test_a_database_that_fails_gets_one_line_and_the_same_command_recovers(tmp_path: Path, damage: str) -> None:
    output = tmp_path / "runs"
    script = quick(
        tmp_path, "import os", "database = folder.parent / 'sweep.db'", "if folder.name == 'a':", f"  {damage}"
    )
    broken = worker(script, output, 2)
    *_, line = rest_of(broken).splitlines()
    assert broken.returncode == 2, line
    assert line.startswith(f"error: storage {output / 'sweep.db'} failed: ")
    quick(tmp_path)
    assert rest_of(worker(script, output, 2)).splitlines()[-1] == str(DONE)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nowhere://me:secret@host/x", "storage nowhere://me:***@host/x failed: "),
        ("sqlite:////no/such/folder/x.db?password=secret", "storage sqlite:////no/such/folder/x.db failed: "),
        ("me:secret@host", "storage is not the URL of a database"),
        ("postgresql://me:secret@host:port/x", "storage is not the URL of a database"),
    ],
)
def test_a_storage_that_cannot_be_opened_gets_one_line_without_its_password(
    tmp_path: Path, url: str, shown: str
) -> None:
    with pytest.raises(UserError) as caught:
        Worker({}, tmp_path, url, timeout=9)
    assert str(caught.value).startswith(shown)
    assert "secret" not in str(caught.value)


def test_what_all_runs_need_is_checked_first_and_an_option_of_all_runs_is_merged_into_its_section(
    tmp_path: Path,
) -> None:
    inception = {"class_path": "Inception", "init_args": {"weights": str(tmp_path / "a")}}
    options = {"score": {"every": 7, "final": None, "extractor": inception}, "steps": 5}
    more = ["--score.extractor.weights", str(tmp_path / "b")]
    config_file = str(ROOT / "configs" / "gan" / "digits.yaml")
    runs = experiment(configs=[config_file], arms={"run": {}}, seeds=[3], options=options).lines(more)
    config = cli.parse(GANConfig, "", [*runs["run/seed-3"], "--output", "o"]).config
    assert config.score == ScoreConfig(every=7, final=None, extractor=Inception(weights=more[1]))
    assert (config.steps, config.seed) == (5, 3)
    own = f"--options.score.extractor.weights={more[1]}"
    done = run("sweep", *sweep(tmp_path, options=OPTIONS | options), own, "--dry_run")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, "4 jobs: 4 waiting")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: mixup-null/seed-0: no Inception weights (")
    assert more[1] in line
    assert not (tmp_path / "runs").exists()


def test_a_sweep_of_classifiers_with_steps_survives_a_killed_worker(tmp_path: Path) -> None:
    options = ["--data.name", "digits", "--network.width", "0.0625", "--epochs", "2", "--milestones", "[1]"]
    common = dict(
        zip([key.removeprefix("--") for key in options[::2]], map(yaml.safe_load, options[1::2]), strict=True)
    )
    common |= {"network.depth": 18, "log_every": 2, "checkpoint_every": 1, "tracker": None, "data.subset_seed": "$seed"}
    attack = {"num_images": 10, "iterations": 2, "restarts": 1, "eps": [0.1], "transfer": "$output/none/seed-$next"}
    config = {
        "script": "train_cls",
        "options": common,
        "seeds": [0, 1],
        "arms": {"none": {"mixup": None}},
        "timeout": 4,
    }
    config |= {
        "steps": [
            {"script": "evaluate_cls", "makes": "evaluation.json", "options": {"deformations": False}},
            {"script": "attack_cls", "makes": "attack.json", "options": attack},
        ]
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
    words = ["--config", str(tmp_path / "sweep.yaml"), "--output", str(tmp_path / "runs")]
    killed, other = start("sweep", *words), start("sweep", *words)
    wait_for_step(killed)
    killed.send_signal(signal.SIGKILL)
    rest_of(killed)
    said = rest_of(other)
    assert other.returncode == 0, said
    assert said.splitlines()[-1] == "6 jobs: 6 done"
    assert "6 of 6 done, 0 running, 0 left" in said
    for seed in (0, 1):
        folder = tmp_path / "runs" / "none" / f"seed-{seed}"
        made = json.loads((folder / "attack.json").read_text())
        assert made["source"] == str(tmp_path / "runs" / "none" / f"seed-{1 - seed}")
        assert json.loads((folder / "evaluation.json").read_text())["run_seed"] == seed
    again = run("sweep", *words)
    assert again.stdout.splitlines() == ["6 jobs: 6 done"]


FUNCTION = """
import json
from pathlib import Path

def work(output: Path, seed: int = 0, level: float = 0.0) -> None:
    \"\"\"Measure something.

    Args:
        output: folder
        seed: seed
        level: level
    \"\"\"
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.yaml").write_text(f"{{level: {level}, seed: {seed}}}")
    values = {"measures": {"loss": level + 0.01 * seed}, "protocol": {"by": "hand"}}
    (output / "result.json").write_text(json.dumps(values))
"""


def test_a_function_of_one_s_own_is_swept_and_reported_once_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    (tmp_path / "own_work.py").write_text(FUNCTION)
    config: dict[str, Any] = {"script": "own_work.work", "makes": "result.json", "seeds": [0, 1], "title": "My own"}
    config |= {"arms": {"high": {"level": 2.0}, "low": {"level": 1.0}}, "baseline": "high"}
    config |= {"claims": [{"arm": "low", "other": "high", "measure": "loss"}], "planned": True}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
    words = ["--config", str(tmp_path / "sweep.yaml"), "--output", str(tmp_path / "runs")]
    refused = run("sweep", *words)
    assert refused.returncode == 2
    assert "own_work.work is not a script of mmgan's; allow the file to name it with --trust" in refused.stderr
    done = run("sweep", *words, "--trust")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "4 jobs: 4 done"
    reported = run("report", str(tmp_path / "runs"), "--output", str(tmp_path / "page"))
    assert reported.returncode == 0, reported.stderr
    page = (tmp_path / "page.md").read_text()
    assert page.startswith("# My own\n")
    assert "| `low` below `high` | loss | 2 | -1.000 [-1.000, -1.000] | <0.001 | **shows** |" in page

    config["seeds"] = [0, 1, 2]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
    changed = run("sweep", *words, "--trust")
    assert changed.returncode == 2
    assert "holds an experiment that was planned beforehand, with another hash" in changed.stderr


def test_a_function_that_makes_nothing_has_failed(tmp_path: Path) -> None:
    script = quick(tmp_path)
    script.write_text("pass")
    assert work(script, tmp_path / "runs") == {"a": "failed", "b": "failed"}


def test_an_experiment_keeps_its_hash_and_says_when_it_has_changed(tmp_path: Path) -> None:
    small = experiment(arms={"a": {}})
    begin(small, tmp_path)
    kept = json.loads((tmp_path / "experiment.json").read_text())
    assert (kept["hash"], kept["planned"], kept["changed"]) == (small.hash(), False, None)
    begin(experiment(arms={"a": {}}, timeout=7), tmp_path)
    assert json.loads((tmp_path / "experiment.json").read_text()) == kept, "timeout is the worker's"
    larger = experiment(arms={"a": {}, "b": {"lr": 1}}, planned=True)
    begin(larger, tmp_path)
    kept = json.loads((tmp_path / "experiment.json").read_text())
    assert (kept["hash"], kept["planned"]) == (larger.hash(), False), "it was not planned when it began"
    assert kept["changed"]
    (tmp_path / "c.yaml").write_text("a: 1")
    with_file = experiment(arms={"a": {}}, configs=[str(tmp_path / "c.yaml")])
    before = with_file.hash()
    (tmp_path / "c.yaml").write_text("# The only option.\na:   1\n")
    assert with_file.hash() == before, "comments and spaces are not"
    (tmp_path / "c.yaml").write_text("a: 2")
    assert with_file.hash() != before, "the options of the configurations it names are part of it"
