"""A grid of runs, shared by workers that come, stop and are killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.experiments.sweep import SweepConfig, Worker, open_study, runs_of, states
from mmgan.gan.config import GANConfig, ScoreConfig
from mmgan.scoring import Inception
from tests.conftest import ENVIRONMENT, ROOT, SMALL, begin, result, run, same, train, wait_for_step

STEPS = 40
OPTIONS: dict[str, Any] = dict(zip([key.removeprefix("--") for key in SMALL[::2]], map(int, SMALL[1::2]), strict=True))
OPTIONS |= {"steps": STEPS, "log_every": 5, "checkpoint_every": 10, "tracker": None}
GRIDS = [{"mixup": [None], "seed": [0, 1]}, {"mixup.alpha": [0.5], "mixup.layers": [[0, 1]], "seed": [0, 1]}]
NAMES = ["mixup-null/seed-0", "alpha-0.5_layers-0-1/seed-0", "mixup-null/seed-1", "alpha-0.5_layers-0-1/seed-1"]


def sweep(folder: Path, **changes: Any) -> list[str]:
    """The options of a small sweep, whose configuration is written to `folder`."""
    file = folder / "sweep.yaml"
    config = {"run": "configs/gan/digits.yaml", "options": OPTIONS, "grids": GRIDS, "timeout": 4} | changes
    file.write_text(yaml.safe_dump(config))
    return ["--config", str(file), "--output", str(folder / "runs")]


def starts(folder: Path) -> int:
    return len(json.loads((folder / "environment.json").read_text()))


def rest_of(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=280)
    return said


def test_the_runs_of_a_killed_worker_are_resumed_by_another_and_none_is_done_twice(tmp_path: Path) -> None:
    options = sweep(tmp_path)
    killed, other = begin("sweep", *options), begin("sweep", *options)
    wait_for_step(killed)
    killed.send_signal(signal.SIGKILL)
    rest_of(killed)  # to the end of what it started
    said = rest_of(other)
    assert other.returncode == 0, said
    assert said.splitlines()[-1] == "4 runs: 4 done"
    runs = {name: tmp_path / "runs" / name for name in NAMES}
    counts = sorted(starts(folder) for folder in runs.values())
    assert counts in ([1, 1, 1, 2], [1, 1, 1, 1])  # the killed worker's run may have been at its very end
    for name, folder in runs.items():
        state, rows = result(folder)
        assert state["step"] == STEPS
        assert [row["step"] for row in rows if "loss/real" in row] == list(range(5, STEPS + 1, 5)), name

    plain = ["--mixup.alpha", "0.5", "--mixup.layers", "[0,1]", "--seed", "1", "--steps", str(STEPS)]
    train(tmp_path / "alone", *plain, "--log_every", "5", "--checkpoint_every", "10")
    assert same(result(tmp_path / "alone")[0], result(runs["alpha-0.5_layers-0-1/seed-1"])[0])

    again = run("sweep", *options)
    assert again.stdout.splitlines() == ["4 runs: 4 done"]
    assert sorted(starts(folder) for folder in runs.values()) == counts


def test_a_worker_that_is_stopped_puts_its_run_back(tmp_path: Path) -> None:
    options = sweep(tmp_path, grids=GRIDS[:1])
    worker = begin("sweep", *options)
    wait_for_step(worker)
    worker.send_signal(signal.SIGTERM)
    said = rest_of(worker)
    assert worker.returncode == 128 + signal.SIGTERM, said
    assert "back in the queue" in said
    listed = run("sweep", *options, "--dry_run").stdout.splitlines()
    assert listed[-1] == "2 runs: 2 waiting"
    assert "step-0000" in listed[0]
    assert not (tmp_path / "runs" / "mixup-null" / "seed-1").exists()
    done = run("sweep", *options)
    assert done.stdout.splitlines()[-1] == "2 runs: 2 done", done.stderr
    assert starts(tmp_path / "runs" / "mixup-null" / "seed-0") == 2


def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again_by_the_next_worker(tmp_path: Path) -> None:
    options = sweep(tmp_path, options=OPTIONS | {"steps": 5}, grids=[{"mixup": [None], "seed": [0, 1]}])
    taken = tmp_path / "runs" / "mixup-null" / "seed-0"
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("not a run")
    done = run("sweep", *options)
    assert done.returncode == 2
    assert "2 runs: 1 done, 1 failed" in done.stdout
    assert done.stderr.splitlines()[-1] == "error: mixup-null/seed-0 failed; the lines above say why"
    assert "is not empty and not a run" in done.stderr
    (taken / "notes.txt").unlink()
    done = run("sweep", *options)
    assert done.stdout.splitlines()[-1] == "2 runs: 2 done"


def test_a_worker_waits_for_a_run_that_a_killed_one_left_behind(tmp_path: Path) -> None:
    options = sweep(tmp_path, options=OPTIONS | {"steps": 5}, grids=[{"mixup": [None]}])
    folder = tmp_path / "runs" / "mixup-null" / "seed-0"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        worker = begin("sweep", *options)
        assert worker.stdout
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(timeout=12)
    said = rest_of(worker)
    assert (worker.returncode, said.splitlines()[-1]) == (0, "1 runs: 1 done"), said
    assert starts(folder) == 1


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = run("sweep", *sweep(tmp_path), "--dry_run")
    assert done.stdout.splitlines() == [
        *(f"waiting  {name}  last checkpoint: none yet" for name in NAMES),
        "4 runs: 4 waiting",
    ]
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_one_run_of_the_grid_is_told_before_any_starts(tmp_path: Path) -> None:
    done = run("sweep", *sweep(tmp_path, grids=[{"mixup.alpha": [0.5, 7.0]}]))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "alpha-7.0/seed-0: " in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_grid_is_every_combination_of_its_values_by_seeds() -> None:
    grids: list[dict[str, list[Any]]] = [{"lr": [1e-4, 1e-3], "seed": [1, 0]}, {"loss": ["hinge"], "data.subset": [5]}]
    found = runs_of(SweepConfig("a.yaml", grids, {"steps": 7, "lr": 3.0}))
    assert list(found) == [
        "lr-0.0001/seed-0",
        "lr-0.001/seed-0",
        "loss-hinge_subset-5/seed-0",
        "lr-0.0001/seed-1",
        "lr-0.001/seed-1",
    ]
    assert found["lr-0.001/seed-1"] == ["--config", "a.yaml", "--steps", "7", "--lr", "0.001", "--seed", "1"]


def test_two_runs_of_one_folder_and_values_left_empty_are_refused() -> None:
    with pytest.raises(UserError, match="seed-0 twice"):
        runs_of(SweepConfig("a.yaml", [{"lr": [1]}, {"lr": [1]}]))
    with pytest.raises(ValueError, match="lr has no values"):
        SweepConfig("a.yaml", [{"lr": []}])


def test_other_options_for_a_run_in_the_storage_are_refused_and_more_runs_are_welcome(tmp_path: Path) -> None:
    file = tmp_path / "sweep.db"
    Worker(Path("x"), {"a": ["--lr", "1"]}, tmp_path, file, timeout=9)
    Worker(Path("x"), {"a": ["--lr", "1"], "b": ["--lr", "2"]}, tmp_path, file, timeout=9)
    study = open_study(file, tmp_path, create=False)
    assert states(["a", "b"], study, tmp_path) == {"a": "waiting", "b": "waiting"}
    with pytest.raises(UserError, match="whose b has other options"):
        Worker(Path("x"), {"b": ["--lr", "3"]}, tmp_path, file, timeout=9)


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


def work(script: Path, output: Path, storage: str | Path | None = None, timeout: int = 9) -> dict[str, str]:
    return Worker(script, {"a": [], "b": []}, output, storage or output / "sweep.db", timeout).work()


DONE = {"a": "done", "b": "done"}


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
    assert states(["a", "b"], open_study(output / "sweep.db", output, create=False), output)["b"] == "gone"
    assert work(script, output) == DONE
    assert [(output / name / "starts").read_text() for name in "ab"] == ["x", "x"]


def test_a_worker_that_was_taken_for_dead_goes_on_with_the_next_run(tmp_path: Path) -> None:
    output = tmp_path / "runs"
    lines = [
        "import optuna, sqlite3",
        f"data = sqlite3.connect({str(output / 'sweep.db')!r})",
        "if folder.name == 'a' and len((folder / 'starts').read_text()) == 1:",
        '    data.execute(\'update trials set state = "FAIL" where state = "RUNNING"\')',
        "    data.commit()",
    ]
    found = work(quick(tmp_path, *lines), output)  # as another worker does with the trial of a suspended one
    assert found == {"a": "failed", "b": "done"}
    assert work(quick(tmp_path), output) == DONE


def test_a_run_that_nobody_gave_a_sign_of_life_for_is_taken_up(tmp_path: Path) -> None:
    output = tmp_path / "runs"
    left = Worker(quick(tmp_path), {"a": [], "b": []}, output, output / "sweep.db", timeout=1)
    left.study.ask()
    assert states(["a", "b"], left.study, output) == {"a": "running", "b": "waiting"}
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
    output, file = tmp_path / "runs", tmp_path / "worker.py"
    script = quick(
        tmp_path, "import os", "database = folder.parent / 'sweep.db'", "if folder.name == 'a':", f"  {damage}"
    )
    file.write_text(
        "from pathlib import Path; from mmgan.engine import cli; from mmgan.experiments.sweep import Worker\n"
        f"runs, output = {{'a': [], 'b': []}}, Path({str(output)!r})\n"
        f"cli.run(lambda: print(Worker(Path({str(script)!r}), runs, output, output / 'sweep.db', 2).work()))"
    )
    line = [sys.executable, str(file)]
    done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done
    assert done.stderr.startswith(f"error: storage {output / 'sweep.db'} failed: ")
    assert len(done.stderr.splitlines()) == 1
    quick(tmp_path)
    done = subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == str(DONE), done.stderr


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nowhere://me:secret@host/x", "storage nowhere://me:***@host/x failed: "),
        ("sqlite:////no/such/folder/x.db?password=secret", "storage sqlite:////no/such/folder/x.db failed: "),
        ("me:secret@host", "storage is no URL of a database"),
        ("postgresql://me:secret@host:port/x", "storage is no URL of a database"),
    ],
)
def test_a_storage_that_cannot_be_opened_gets_one_line_without_its_password(
    tmp_path: Path, url: str, shown: str
) -> None:
    with pytest.raises(UserError) as caught:
        Worker(Path("x"), {}, tmp_path, url, timeout=9)
    assert str(caught.value).startswith(shown)
    assert "secret" not in str(caught.value)


def test_what_all_runs_need_is_checked_first_and_an_option_of_all_runs_is_merged_into_its_section(
    tmp_path: Path,
) -> None:
    inception = {"class_path": "Inception", "init_args": {"weights": str(tmp_path / "a")}}
    options = {"score": {"every": 7, "final": None, "extractor": inception}, "steps": 5}
    more = ["--score.extractor.weights", str(tmp_path / "b")]
    runs = runs_of(SweepConfig("configs/gan/digits.yaml", [{"seed": [3]}], options), more)
    config = cli.parse(GANConfig, "", [*runs["run/seed-3"], "--output", "o"]).config
    assert config.score == ScoreConfig(every=7, final=None, extractor=Inception(weights=more[1]))
    assert (config.steps, config.seed) == (5, 3)
    own = f"--options.score.extractor.weights={more[1]}"
    done = run("sweep", *sweep(tmp_path, options=OPTIONS | options), own, "--dry_run")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: mixup-null/seed-0: no Inception weights (")
    assert more[1] in line
    assert not (tmp_path / "runs").exists()
