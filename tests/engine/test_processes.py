"""A run that is taken up by another number of processes: the same batches and draws, and where it is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from mmgan.engine import checkpoint
from tests.classifiers.cases import BASE
from tests.conftest import ENVIRONMENT, ROOT, digits, result, run, same

pytestmark = pytest.mark.slow

GAN = ["--generator", "tests.plain_network.PlainGenerator", "--steps", "30", "--checkpoint_every", "10"]
GAN += ["--log_every", "5", "--keep_checkpoints", "9", "--augment", "DiffAugment"]
CLASSIFIER = [*BASE, "--network", "tests.plain_network.Plain", "--mixup", "null", "--epochs", "3"]
CLASSIFIER += ["--keep_checkpoints", "9"]
RUNS = {"train_gan": GAN, "train_cls": CLASSIFIER}


def train(script: str, folder: Path, *more: str, processes: int = 1) -> str:
    own = digits(folder) if script == "train_gan" else ["--output", str(folder)]
    done = run(script, *own, *RUNS[script], *more, processes=processes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def keep(folder: Path, number: int) -> None:
    """Have the run as it was at the first `number` of its checkpoints."""
    for late in checkpoint.steps(folder / "checkpoints")[number:]:
        shutil.rmtree(late)


@pytest.mark.parametrize("script", RUNS)
def test_one_then_two_then_one_process_end_as_one(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for rounding, with networks without batch norm, whose statistics are a process's own."""
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    whole, other = tmp_path / "whole", tmp_path / "other"
    train(script, whole)
    shutil.copytree(whole, other)
    keep(other, 1)
    said = train(script, other, processes=2)
    assert re.search(r"was trained by 1 process\(es\) up to step \d+ and continues with 2", said)
    keep(other, 2)
    assert "was trained by 2 process(es) up to step" in train(script, other)
    (a, rows), (b, others) = result(whole), result(other)
    for name in {"generator", "discriminator", "network"} & a.keys():
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-4)
    for row, its in zip(rows, others, strict=True):
        assert {key: row[key] for key in row if "loss" in key} == pytest.approx(
            {key: its[key] for key in its if "loss" in key}, rel=1e-3, abs=1e-4
        )


def test_three_processes_resume_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounding of a sum of three depends on its place in the buffer, which must be the same after a break."""
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    whole, other, batch = tmp_path / "whole", tmp_path / "other", ["--batch_size", "9", "--mixup", "ClassifierMixup"]
    train("train_cls", whole, *batch, processes=3)
    shutil.copytree(whole, other)
    keep(other, 1)
    train("train_cls", other, *batch, processes=3)
    assert same(result(whole), result(other))
