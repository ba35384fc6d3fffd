"""The README's code runs, and what it names is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from classifiers.config import ClassifierConfig
from mmgan.data import data_sets
from mmgan.engine import cli
from scripts import commands
from tests.conftest import ENVIRONMENT, FORKS, ROOT, SMALL

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text()


def test_the_loop_with_eq_11_runs_and_learns() -> None:
    page = (ROOT / "docs/own-loop.md").read_text()
    code = re.findall(r"```python\n(import torch\n.*?)```", page, re.DOTALL)[0]
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(compile(code, "own-loop.md", "exec"), names)
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


CLASSIFIER = [
    "--config",
    "cls/extractor/digits",
    "--output",
    "runs/digits-classifier",
    "--epochs",
    "1",
    "--tracker",
    "null",
]
"""The classifier that the quickstart leaves, in seconds."""
SHORTER = {"train-gan": [*SMALL, "--steps", "2", "--n_dis", "1", "--tracker", "null"]}
SHORTER |= {"score": ["--num_samples", "100"]}


def test_every_command_runs(tmp_path: Path) -> None:
    """In their order, with smaller networks; the two that install are the quickstart and what runs this test."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    lines = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    assert [line for line in lines if line and line[0] != "mmgan"] == [
        ["bash", "scripts/quickstart.sh"],
        ["bash", "scripts/test.sh"],
    ]
    calls = [["train-cls", *CLASSIFIER], *(line[1:] for line in lines if line[:1] == ["mmgan"])]
    assert len(calls) > 5
    for verb, *options in calls:
        line = [str(commands()[verb]), *options, *SHORTER.get(verb, [])]
        done = FORKS.run(line, ENVIRONMENT, timeout=300, folder=tmp_path)
        assert done.returncode == 0, (line, done.stderr)
    assert (tmp_path / "runs" / "compared" / "report.html").exists()
    subprocess.run(["bash", "-n", str(ROOT / "scripts" / "quickstart.sh")], check=True)


def test_the_results_it_tells_are_those_of_the_pages() -> None:
    table = README.split("## What we found so far")[1].split("## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    page = ""
    told = []
    for claim, tested, n, difference, verdict in rows:
        page = (re.findall(r"\]\((.*?)\)", tested) or [page])[0]
        text = (ROOT / page).read_text()
        if not n:
            counts = [
                len(re.findall(rf"\*\*{found}\*\*", text)) for found in ("shows", "undecided", "the opposite shows")
            ]
            assert claim.startswith(f"{sum(counts)} claims")
            assert verdict == "{} show, {} undecided, {} the opposite".format(*counts)
            continue
        said = re.findall(r"[-+][\d.]+", difference)[:3]
        digits = [len(number.partition(".")[2]) for number in said]
        claims = re.findall(r"\| (\d+) \| (\S+) \[(\S+), (\S+)\] \| [<\d.]+ \| \*\*(.*?)\*\* \|", text)
        same = [
            found[4]
            for found in claims
            if found[0] == n and [f"{float(v):+.{d}f}" for v, d in zip(found[1:4], digits, strict=True)] == said
        ]
        assert verdict in same, (claim, page, said)
        told.append(claim)
    assert len(told) > 5


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 130


def test_the_files_it_names_exist() -> None:
    paths = set(re.findall(r"(?:scripts|benchmarks|configs|docs|tests|mmgan|classifiers)/[\w./-]+", README))
    linked = re.findall(r"\]\(([\w./-]+)\)", README)
    assert len(paths) > 10
    assert len(linked) > 10
    for path in (*paths, *linked):
        assert (ROOT / path.rstrip(".")).exists(), path


def test_the_data_sets_it_names_are_those_there_are() -> None:
    line = README.split("Data sets:")[1].split("Nothing is downloaded")[0]
    assert set(re.findall(r"`(\w+)`", line)) == set(data_sets())
