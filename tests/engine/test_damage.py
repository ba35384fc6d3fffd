"""Run folders that were damaged, by accident or on purpose: one line that says what is wrong, and no code is run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

import classifiers
import mmgan
from classifiers.load import Classifier
from mmgan.engine import checkpoint, cli, files
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.networks import DiscriminatorConfig
from mmgan.mixup import Staged
from tests.conftest import ENVIRONMENT, ROOT, command, digits, result, same, with_state

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {"generator": {"width": 8, "z_dim": 4}, "discriminator": {"width": 8}, "batch_size": 8}
SHORT: dict[str, Any] = {"data": {"name": "digits"}, "n_dis": 1, "tracker": None, "ema": 0.9, "log_every": 3, **SMALL}
TWO: dict[str, Any] = SHORT | {"steps": 2, "checkpoint_every": 1, "sample_every": 2, "lr_schedule": "constant"}
LAST = "checkpoints/step-000002"


def trained(config: Any, folder: Path) -> Path:
    """Train in this process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    mmgan.train(config, folder)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "run"
    AcceleratorState._reset_state(reset_partial_state=True)
    data = {"name": "digits", "labels_per_class": 4, "validation": 20}
    options = {"network": {"width": 0.0625}, "batch_size": 20, "epochs": 1, "lr_schedule": "constant", "tracker": None}
    classifiers.train({"data": data, **options}, folder)
    return folder


@pytest.fixture(scope="module")
def scored(classifier: Path) -> dict[str, Any]:
    extractor = {"class_path": "classifiers.load.Classifier", "init_args": {"run": str(classifier)}}
    return TWO | {"score": {"extractor": extractor, "every": 1, "num_samples": 50, "final": None}}


@pytest.fixture(scope="module")
def whole(scored: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(scored, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """A read that never ends is an error."""

    def late(_: int, __: FrameType | None) -> None:
        raise AssertionError("this takes for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_one_line(*uses: Callable[[], object]) -> list[str]:
    """What each use of a run refuses it with, "" for one that works; anything but a UserError of one line is raised."""
    said = []
    for use in uses:
        with at_most(60), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                use()
                said.append("")
            except UserError as error:
                said.append(str(error))
    assert all(len(line.splitlines()) <= 1 for line in said)
    return said


def uses(run: Path, config: Any) -> tuple[Callable[[], object], ...]:
    """Open the last and the best checkpoint; read the scores; resume for one step more."""
    longer = config | {"steps": 3}
    return (
        lambda: mmgan.load(run).sample(1),
        lambda: mmgan.load(run, "best").scores,
        lambda: trained(longer, run),
    )


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": lambda _: None,
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00" * 50),
    "a number": lambda path: path.write_text("1e400\n"),
    "nested": lambda path: path.write_text("[" * 5000),
    "a list": lambda path: path.write_text('[[{"a": 1}], 2]\n'),
    "other keys": lambda path: path.write_text('{"1": 2, "step": "x", "sha256": {"a": 1}}\n'),
}
BAD = set(DAMAGE) - {"missing"}
FILES = [f"{LAST}/{name}" for name in ("checksums.json", "state.pt", "generator.safetensors")]
FILES += ["config.yaml", "environment.json", "metrics.jsonl", "scores.json", "best/step-000002/state.pt"]


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_passed_over_or_named(run: Path, scored: dict[str, Any], file: str, how: str) -> None:
    path = run / file
    if file.startswith("best"):
        path = next((run / "best").iterdir()) / "state.pt"
    if path.exists():
        path.unlink()
    DAMAGE[how](path)
    *opening, resuming = uses(run, scored)
    opened, best = in_one_line(*opening)
    assert bool(opened) == (file == "config.yaml")
    assert bool(best) == (file == "config.yaml" or file.startswith("best") or (file == "scores.json" and how in BAD))
    if how in ("a pipe", "other keys"):  # resuming reads the same files
        (resumed,) = in_one_line(resuming)
        refused = file == "config.yaml" or (file == "metrics.jsonl" and how == "a pipe")
        assert bool(resumed) == refused


WRONG: dict[str, list[Any]] = {
    "adam_g": [None, {"a": 1}],
    "adam_d": ["x", {"state": [1]}],
    "resolution": [None, -1, 10**12],
    "channels": ["x", [1, 2], 2.0],
    "data": [None, "x", {"a": 1}],
    "log": [None, {"names": 1}, {"names": ["a"], "rows": torch.zeros(2, 2)}],
    "best": [None, "x"],
    "processes": [None, 0],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_state_that_says_something_else_is_refused(run: Path, scored: dict[str, Any], key: str) -> None:
    opens, _, resumes = uses(run, scored)
    for value in WRONG[key]:
        with_state(run / LAST, **{key: value})
        assert in_one_line(opens if key in ("resolution", "channels") else resumes) != [""], value
        assert (run / LAST).is_dir(), "what cannot be used is not removed"


@pytest.mark.parametrize("part", ["shape", "type", "name", "row"])
def test_an_optimiser_of_another_network_is_compared_before_it_is_used(
    run: Path, scored: dict[str, Any], part: str
) -> None:
    """A fused step over a state of another shape ends the process."""
    adam = torch.load(run / LAST / "state.pt", weights_only=True)["adam_d"]
    first: dict[str, Tensor] = adam["state"][0]
    if part == "shape":
        first["exp_avg"] = torch.zeros(1)
    elif part == "type":
        first["exp_avg_sq"] = first["exp_avg_sq"].long()
    elif part == "name":
        del first["exp_avg"]
    else:
        adam["state"][999] = first
    with_state(run / LAST, adam_d=adam)
    with pytest.raises(UserError, match="holds a different adam_d from the one this configuration builds"):
        trained(scored | {"steps": 3}, run)


@pytest.mark.parametrize(
    "change",
    [
        {"step": 999},
        {"step": 1e400},
        {"step": -2},
        {"step": True},
        {"step": "2"},
        {"sha256": {}},
        {"sha256": {"state.pt": 3}},
        {"sha256": {"state.pt": "0", "/etc/hostname": "0"}},
        {"sha256": {"state.pt": "0", "../../config.yaml": "0"}},
        {"sha256": {"state.pt": "0", "pipe.safetensors": "0"}},
    ],
)
def test_checksums_that_say_something_absurd_are_passed_over(run: Path, change: dict[str, Any]) -> None:
    path = run / LAST / "checksums.json"
    os.mkfifo(run / LAST / "pipe.safetensors")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with at_most(20), pytest.warns(UserWarning, match="skipping the checkpoint .*step-000002"):
        assert mmgan.load(run).step == 1


@pytest.mark.parametrize("key", ["classes", "shape", "network"])
def test_a_damaged_classifier_is_no_extractor(classifier: Path, tmp_path: Path, key: str) -> None:
    run = shutil.copytree(classifier, tmp_path / "run")
    (best,) = checkpoint.steps(run / "best")
    for value in ["x", None, 0, 10**9, [1, 8], [1, 8, 10**9], [1, "8", 8]]:
        if key == "network":
            with_state(best, weights={"w": torch.zeros(2)})
        else:
            with_state(best, **{key: value})
        with pytest.raises(UserError):
            Classifier(str(run)).build()


# What a killed process leaves


def test_what_a_killed_process_left_makes_no_folder_foreign_and_is_removed(run: Path, scored: dict[str, Any]) -> None:
    new = run.parent / "new"
    new.mkdir()
    (new / ".config.yaml.part").write_text("half")
    (run / ".scores.json.part").write_text("half")
    (run / "checkpoints" / ".step-000001.old.part").mkdir()
    (run / "checkpoints" / ".step-000003.part").mkdir()
    shutil.copytree(run / LAST, run / "checkpoints" / "step-000000")
    trained(scored, run)
    assert "config.yaml" in [path.name for path in trained(scored, new).iterdir()]
    for folder in (run, new):
        assert [path.name for path in folder.rglob("*.part")] == []
    assert [path.name for path in checkpoint.steps(run / "checkpoints")] == ["step-000001", "step-000002"]


def test_a_file_for_which_there_is_no_room_leaves_none(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "config.yaml", "x: 1")
    assert list(tmp_path.iterdir()) == []


def test_a_torn_best_checkpoint_makes_no_worse_one_the_best(
    run: Path, scored: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The lowest FID so far is in every checkpoint."""
    with_state(run / LAST, best=1e-9)
    (path,) = checkpoint.steps(run / "best")
    (path / "state.pt").write_bytes(b"torn")
    assert in_one_line(lambda: trained(scored | {"steps": 3}, run)) == [""]
    assert checkpoint.steps(run / "best") == [path]
    assert "is damaged; use last" in in_one_line(lambda: mmgan.load(run, "best"))[0]
    assert torch.load(run / "checkpoints/step-000003/state.pt", weights_only=True)["best"] == 1e-9
    final = scored | {"steps": 3, "score": scored["score"] | {"final": "test-10k"}}
    assert in_one_line(lambda: trained(final, run)) == [""]
    assert [record["checkpoint"] for record in mmgan.load(run).scores] == ["last"]
    assert "the best checkpoint in" in capsys.readouterr().out


# Networks of all kinds


@dataclass(frozen=True, kw_only=True)
class Odd(DiscriminatorConfig):
    """A discriminator whose state is out of the ordinary."""

    kind: str = "shared"
    """What is out of the ordinary."""

    def build(self, resolution: int, channels: int, classes: int = 0) -> Staged:  # noqa: ARG002
        """A small network."""
        first, last = nn.Linear(channels * resolution**2, 4), nn.Linear(4, 1)
        twice = nn.Linear(4, 4)
        stages: list[nn.Module] = [nn.Flatten(), first, nn.ReLU(), twice, nn.ReLU(), twice]
        if self.kind == "shared":
            other = nn.Linear(4, 4)
            other.weight = twice.weight
            stages.append(other)
        stages.append(Strange(self.kind))
        return Staged(nn.Sequential(*stages), last, nn.Flatten(0))


class Strange(nn.Module):
    """Passes on what it gets, with something in its state that is not a real tensor of finite numbers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.seen = kind, 0
        if kind == "mask":
            self.register_buffer("mask", torch.full((4, 4), float("-inf")).triu(1))
        if kind == "complex":
            self.turn = nn.Parameter(torch.ones(4, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += self.training
        return (x * self.turn).real if self.kind == "complex" else x

    def get_extra_state(self) -> Any:
        return {"extra": {"seen": self.seen}, "object": self.forward}.get(self.kind, {})

    def set_extra_state(self, state: Any) -> None:
        self.seen = state.get("seen", 0)


@pytest.mark.parametrize("kind", ["shared", "twice", "mask", "extra", "complex"])
def test_a_network_out_of_the_ordinary_is_saved_and_resumes_the_same(kind: str, tmp_path: Path) -> None:
    config = replace(cli.config_of(GANConfig, TWO | {"mixup": None, "steps": 3}), discriminator=Odd(kind=kind))
    trained(config, tmp_path / "run")
    expected = result(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000003")
    trained(config, tmp_path / "run")
    assert same(result(tmp_path / "run"), expected)
    network = mmgan.load(tmp_path / "run", trust=True).discriminator
    if kind == "shared":
        stages = network.stages[0]  # type: ignore[index]
        assert stages[3].weight is stages[5].weight is stages[6].weight
    if kind == "extra":
        assert network.stages[0][-1].seen > 3  # type: ignore[index]


def test_a_state_that_cannot_be_kept_is_refused_before_the_first_step(tmp_path: Path) -> None:
    config = replace(cli.config_of(GANConfig, TWO | {"mixup": None}), discriminator=Odd(kind="object"))
    with pytest.raises(UserError, match="cannot be saved in a checkpoint"):
        trained(config, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


# Processes


def test_what_ends_a_process_is_one_line_or_none(tmp_path: Path) -> None:
    """A reader of its output that leaves, and a folder that goes away."""
    options = ["--steps", "100000", "--log_every", "1", "--sample_every", "100000", "--checkpoint_every", "20"]

    def start(name: str, output: int) -> subprocess.Popen[str]:
        line = command("train_gan", *digits(tmp_path / name), *options)
        return subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, stdout=output, stderr=subprocess.PIPE, text=True)

    with start("piped", subprocess.PIPE) as piped, start("gone", subprocess.DEVNULL) as gone:
        assert piped.stdout
        piped.stdout.readline()
        piped.stdout.close()
        assert piped.stderr
        assert "Traceback" not in piped.stderr.read()
        assert piped.wait(60) == 141
        while not list((tmp_path / "gone" / "checkpoints").glob("step-*")):  # early ones are removed again
            assert gone.poll() is None
            time.sleep(0.1)
        (tmp_path / "gone" / "checkpoints").rename(tmp_path / "elsewhere")
        (tmp_path / "gone" / "checkpoints").write_text("")
        _, error = gone.communicate(timeout=60)
        assert gone.returncode == 2
        assert "cannot write the checkpoint of step" in error
        assert "Traceback" not in error


@pytest.mark.parametrize("script", ["train_gan", "sample_gan"])
def test_ctrl_c_while_importing_ends_a_script_without_a_traceback(script: str) -> None:
    line = [sys.executable, "-X", "importtime", f"scripts/{script}.py", "--help"]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr
        assert any("torch" in read for read in process.stderr)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
        assert process.wait(60) in (-signal.SIGINT, 130)
