"""A classifier run as a user starts, breaks and resumes it: real processes, real files."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from classifiers.load import load_classifier, load_extractor
from mmgan.data import DataConfig, load
from mmgan.engine import checkpoint
from tests.conftest import ENVIRONMENT, ROOT, begin, result, run, same, stop, wait_for_step

SMALL = ["--network.name", "wideresnet", "--network.depth", "10", "--network.width", "0.5", "--batch_size", "32"]
SMALL += ["--data.labels_per_class", "40", "--tracker", "null"]
BUSY = ["--network.dropout", "0.1", "--data.cutout", "3", "--data.flip", "true", "--mixup.detach", "true"]
BUSY += ["--mixup.lam_per", "pair", "--log_every", "7", "--checkpoint_every", "1", "--nesterov", "true"]
"""Options that give a run all the state and all the draws it can have."""


def options(output: Path, *more: str) -> list[str]:
    """Options of a small classifier on the digits, which learns from 400 images."""
    return ["--config", "configs/cls/digits.yaml", "--output", str(output), *SMALL, *more]


def train(output: Path, *more: str, processes: int = 1) -> str:
    """Train it, successfully; what was printed."""
    done = run("train_cls", *options(output, *more), processes=processes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_killed_at_random_moments_a_run_ends_as_if_it_never_was(tmp_path: Path) -> None:
    busy = [*BUSY, "--epochs", "5"]
    train(tmp_path / "whole", *busy)
    moments = random.Random(time.time_ns())
    for _ in range(2):
        with begin("train_cls", *options(tmp_path / "killed", *busy)) as process:
            wait_for_step(process)
            time.sleep(moments.uniform(0, 1))
            process.send_signal(signal.SIGKILL)
    train(tmp_path / "killed", *busy)
    assert same(result(tmp_path / "whole"), result(tmp_path / "killed"))
    best = [checkpoint.latest(tmp_path / name / "best") for name in ("whole", "killed")]
    assert best[0]
    assert same(best[0].weights | best[0].state, best[1].weights | best[1].state if best[1] else None)


def test_a_signal_saves_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    busy = [*BUSY, "--epochs", "3", "--checkpoint_every", "100"]
    with begin("train_cls", *options(tmp_path / "stopped", *busy)) as process:
        text = stop(process, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "the same command goes on from there" in text
    train(tmp_path / "stopped", *busy)
    train(tmp_path / "whole", *busy)
    assert same(result(tmp_path / "whole"), result(tmp_path / "stopped"))
    assert "is finished" in train(tmp_path / "whole", *busy)


def test_the_best_checkpoint_is_that_of_the_lowest_validation_error(tmp_path: Path) -> None:
    train(tmp_path, "--epochs", "3")
    errors = {row["step"]: row["validation/error"] for row in result(tmp_path)[1] if "validation/error" in row}
    assert list(errors) == [13, 25, 38], "the ends of epochs of 12.5 steps"
    best = checkpoint.latest(tmp_path / "best")
    assert best
    assert best.step == min(errors, key=errors.__getitem__)
    assert best.state["validation/error"] == min(errors.values())

    network, config, _ = load_classifier(tmp_path, "best", torch.device("cpu"))
    held = json.loads((tmp_path / "split.json").read_text())["validation"]
    images, labels = load(config.data)
    with torch.no_grad():
        wrong = network(images[held].float() / 255).argmax(1) != labels[held]
        assert wrong.double().mean().item() == min(errors.values())
        features, logits = load_extractor(tmp_path)(images[held])
        assert torch.equal(logits, network(images[held].float() / 255))
    assert features.shape == (300, 32)
    assert (tmp_path / "plots" / "training.png").stat().st_size > 10_000


def test_watching_a_run_changes_nothing_in_it(tmp_path: Path) -> None:
    train(tmp_path / "a", "--epochs", "2", "--network.dropout", "0.1")
    watch = ["--validate_every", "2", "--log_every", "1", "--checkpoint_every", "1", "--tracker", "tensorboard"]
    train(tmp_path / "b", "--epochs", "2", "--network.dropout", "0.1", *watch)
    (a, _), (b, rows) = result(tmp_path / "a"), result(tmp_path / "b")
    assert same(a["network"], b["network"])
    assert sum("validation/error" in row for row in rows) == 1


def test_a_classifier_learns_the_digits(tmp_path: Path) -> None:
    train(tmp_path, "--epochs", "8", "--data.labels_per_class", "100", "--mixup", "null")
    network, _, _ = load_classifier(tmp_path, "best", torch.device("cpu"))
    images, labels = load(DataConfig("digits", split="test"))
    with torch.no_grad():
        assert (network(images.float() / 255).argmax(1) != labels).double().mean() < 0.1


def test_two_processes_see_what_one_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network without batch norm, whose statistics are a process's own, they end with the same weights."""
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    plain = ["--network.name", "tests.plain_network", "--epochs", "1", "--data.cutout", "2", "--data.flip", "true"]
    for layers in ("[0]", "[1]"):
        one, two = tmp_path / f"one{layers}", tmp_path / f"two{layers}"
        train(one, *plain, "--mixup.layers", layers, "--mixup.lam_per", "pair")
        train(two, *plain, "--mixup.layers", layers, "--mixup.lam_per", "pair", processes=2)
        (a, rows_a), (b, rows_b) = result(one), result(two)
        torch.testing.assert_close(a["network"], b["network"], rtol=1e-4, atol=1e-5)
        assert [row["step"] for row in rows_a] == [row["step"] for row in rows_b]


def test_two_processes_train_with_blocked_gradients(tmp_path: Path) -> None:
    train(tmp_path, "--epochs", "1", "--mixup.detach", "true", processes=2)
    assert result(tmp_path)[0]["step"] == 13


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--batch_size", "30"], "mixup.blocks 4 must divide batch_size 30"),
        (["--batch_size", "2000"], "larger than the 400 training images"),
        (["--mixup.layers", "[5]"], "wideresnet has layers 0 to 3"),
        (["--data.validation", "1500"], "leaves none of 1500 images"),
        (["--lr_schedule", "step"], "milestones [400, 800] must lie within the 20 epochs"),
        (["--loss", "mse"], "loss must be one of ce, bce_softmax"),
        (["--network.depth", "19"], "must be 6n + 4"),
        (["--data.name", "folder", "--data.root", "nowhere"], "no folder nowhere"),
        (["--mixup.alfa", "1"], "alfa"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path: Path, wrong: list[str], words: str) -> None:
    done = run("train_cls", *options(tmp_path / "run"), *wrong)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train(tmp_path, "--epochs", "1")
    done = run("train_cls", *options(tmp_path), "--epochs", "1", "--mixup", "null")
    assert done.returncode == 2
    assert "holds a run with mixup" in done.stderr


CONFIGS = sorted(
    str(path.relative_to(ROOT)) for kind in ("cls", "ssl") for path in (ROOT / "configs" / kind).rglob("*.yaml")
)


@pytest.mark.parametrize("file", CONFIGS)
def test_every_configuration_runs(tmp_path: Path, file: str) -> None:
    """For a step or two, at its own settings but for the width, the images and the number of epochs."""
    base = ["--config", "configs/cls/cifar10.yaml"] if "arms" in file else []
    small = ["--network.name", "wideresnet", "--network.depth", "10", "--network.width", "0.1", "--epochs", "1"]
    small += ["--data.name", "digits", "--data.resolution", "8", "--data.validation", "0", "--lr_schedule", "constant"]
    small += ["--data.labels_per_class", "13", "--tracker", "null"]
    done = run("train_cls", *base, "--config", file, "--output", str(tmp_path / "run"), *small)
    assert done.returncode == 0, done.stderr
    head = (ROOT / file).read_text()
    assert all(word in head for word in ("scripts/train_cls.py", "# Cost: ", "# Expected"))
    assert "XXX" not in head
