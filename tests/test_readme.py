"""The README's code runs, and what it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from classifiers.config import ClassifierConfig
from mmgan.data import data_sets
from mmgan.engine import cli
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_loop_with_eq_11_runs_and_learns() -> None:
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", README, re.DOTALL)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert ((names["fake"].mean(0) - torch.tensor([1.0, -1.0])).abs() < 0.7).all(), "fakes came near the real mode"
    assert len([line for line in code.splitlines() if "# new" in line]) == 3


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(import mmgan\n.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["images"].shape == (16, 1, 8, 8)


def test_the_rows_of_the_paper_s_tables_are_configurations(tmp_path: Path) -> None:
    rows = re.findall(
        r"\| (cifar100?|regularisers|svhn)(?: `([^`]*)`)?[^|]*\| ([\w-]+) \|", (ROOT / "docs/paper.md").read_text()
    )
    assert len(rows) == 41
    for base, options, arm in rows:
        files = ["--config", f"configs/cls/{base}.yaml", "--config", f"configs/cls/arms/{arm}.yaml"]
        args = [*files, *options.split(), "--output", str(tmp_path)]
        config = cli.parse(ClassifierConfig, "", args).config
        assert (config.mixup is None) == (arm in ("none", "dropout", "cutout", "adversarial", "fortified"))
        assert (config.adversarial is None) == (arm not in ("adversarial", "fortified"))
        assert (config.fortified is None) == (arm != "fortified")
        assert config.epochs in (400, 600, 1200, 1400)


def test_files_and_options_it_names_exist() -> None:
    for path in set(re.findall(r"(?:scripts|benchmarks|configs|docs|tests|mmgan|classifiers)/[\w./-]+", README)):
        assert (ROOT / path.rstrip(".")).exists(), path
    for name in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / name).exists(), name


def test_the_data_sets_it_names_are_those_there_are() -> None:
    line = README.split("Data sets:")[1].split("Nothing is downloaded")[0]
    assert set(re.findall(r"`(\w+)`", line)) <= set(data_sets())
