"""Small disks that fill up while something is written: one line, nothing lost, and the same command ends it later."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from mmgan.engine import checkpoint, files
from tests.classifiers.runs import begun
from tests.conftest import ENVIRONMENT, begin, digits, result, run, same, train, wait_for
from tests.experiments.test_sweep import sweep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems, which only root may"),
]
OPTIONS = ["--steps", "60", "--log_every", "1", "--checkpoint_every", "15", "--sample_every", "15"]
OPTIONS += ["--keep_checkpoints", "9", "--tracker", "tensorboard"]


class Disk:
    """A file system of 64 MiB in a folder, with what the folder had."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.filler = folder, folder / "filler"
        before = folder.with_name(f"{folder.name} before")
        folder.mkdir(exist_ok=True)
        folder.rename(before)
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", str(folder)], check=True)
        shutil.copytree(before, folder, dirs_exist_ok=True, copy_function=shutil.move)

    def fill(self) -> None:
        """Leave no room, though others write meanwhile."""
        with self.filler.open("wb") as file:
            while room := os.statvfs(self.folder).f_bavail:
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), file.tell(), room * os.statvfs(self.folder).f_bsize)
                file.seek(0, os.SEEK_END)


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def errors_of(text: str) -> list[str]:
    """What a command said besides its steps, which is one line."""
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole run, one that has come to its first checkpoint, and one of a classifier."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "whole", *OPTIONS)
    few = ["--config", "configs/cls/digits.yaml", "--data.labels_per_class", "20", "--batch_size", "20"]
    few += ["--network.width", "0.125", "--epochs", "1", "--milestones", "[]", "--tracker", "null"]
    assert run("train_cls", *few, "--output", str(folder / "classifier")).returncode == 0
    begun(folder / "whole", folder / "begun")
    return folder


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("checkpoints", "cannot write the checkpoint of step"),
        ("plots", "No space left on device"),
        ("samples", "No space left on device"),
        ("mmgan", "No space left on device"),
        ("", "No space left on device"),
    ],
    ids=["checkpoints", "plots", "samples", "TensorBoard", "metrics"],
)
def test_a_disk_that_fills_up_while_a_run_writes(part: str, words: str, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs / "begun", folder)
    with disk(folder / part) as small:
        with begin("train_gan", *digits(folder), *OPTIONS) as process:
            wait_for(process, "step 35/")
            small.fill()
            said, _ = process.communicate()
        (line,) = errors_of(said)
        assert process.returncode == 2
        assert words in line
        assert "free some disk space and run the same command again" in line
        steps = [checkpoint.read(path).step for path in checkpoint.steps(folder / "checkpoints")]
        assert {15, 30} <= set(steps)
        rows = [row["step"] for row in files.read_rows(folder / "metrics.jsonl") if "loss/real" in row]
        assert rows == list(range(1, len(rows) + 1))
        assert len(rows) >= 35
        for picture in folder.rglob("*.png"):
            with Image.open(picture) as image:
                image.load()
        small.filler.unlink()
        train(folder, *OPTIONS)
        assert same(result(runs / "whole"), result(folder))


COMMANDS = {
    "scores": ("score", ["$/whole", "--num_samples", "60", "--extractor", "Classifier"]),
    "samples": ("sample_gan", ["$/whole", "--output", "$/samples", "--num_images", "20"]),
    "evaluation": ("evaluate_cls", ["$/classifier", "--deformations", "false"]),
    "report": ("report", ["$/classifier", "--output", "$/report"]),
}
COMMANDS["scores"][1].extend(["--extractor.run", "$/classifier"])


@pytest.fixture
def made(runs: Path, tmp_path: Path) -> Path:
    """A folder with a run of a GAN and one of a classifier."""
    for name in ("whole", "classifier"):
        shutil.copytree(runs / name, tmp_path / "made" / name)
    return tmp_path / "made"


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_that_finds_no_room_loses_nothing_and_ends_once_there_is(what: str, made: Path) -> None:
    script, words = COMMANDS[what]
    options = [word.replace("$", str(made)) for word in words]
    with disk(made) as small:
        before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
        small.fill()
        done = run(script, *options)
        small.filler.unlink()
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
        assert "No space left on device" in line
        assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before
        assert run(script, *options).returncode == 0


def test_statistics_that_find_no_room_are_not_kept(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, words = COMMANDS["scores"]
    options = [word.replace("$", str(made)) for word in words]
    (made / "cache").mkdir()
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(made / "cache"))
    with disk(made / "cache") as small:
        small.fill()
        done = run(script, *options)
        assert done.returncode == 0, done.stderr
        (line,) = done.stderr.splitlines()
        assert line.startswith("warning: cannot cache statistics in")
        assert [path for path in small.folder.rglob("*") if path.is_file()] == [small.filler]


def test_a_disk_that_fills_up_while_a_sweep_writes(tmp_path: Path) -> None:
    options = sweep(tmp_path, grids=[{"mixup": [None], "seed": [0, 1]}])
    (tmp_path / "runs").mkdir()
    with disk(tmp_path / "runs") as small:
        with begin("sweep", *options) as process:
            wait_for(process, "step 20/")
            small.fill()
            said, _ = process.communicate()
        assert process.returncode == 2, said
        lines = errors_of(said)
        assert "No space left on device" in lines[0]
        assert len(lines) == 2, "of the run, and of its worker"
        small.filler.unlink()
        done = run("sweep", *options)
        assert done.stdout.splitlines()[-1] == "2 jobs: 2 done", done.stderr
