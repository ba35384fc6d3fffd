"""A wheel built from the repository works where the repository is not: modules, commands, configurations by name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT, SMALL, command

pytestmark = pytest.mark.slow

TRAIN = """
import mmgan, torch
config = {"data": {"name": "digits"}, "generator": {"width": 8, "z_dim": 4}, "discriminator": {"width": 8}}
mmgan.train(config | {"batch_size": 8, "steps": 2, "n_dis": 1, "tracker": None}, "run")
assert mmgan.load("run").sample(3).shape == (3, 1, 8, 8)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the packages of the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("mmgan", "classifiers", "scripts", "configs"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), "."]
    subprocess.run(build, cwd=folder / "source", check=True, capture_output=True)
    (wheel,) = folder.glob("mmgan-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", str(folder / "site"), str(wheel)], check=True
    )
    shutil.rmtree(folder / "source")
    return folder / "site"


def python(installed: Path, folder: Path, code: str) -> str:
    """What `code` prints, run in `folder` with the installed packages before those of the repository."""
    code = f"import mmgan; assert mmgan.__file__.startswith({str(installed)!r}), mmgan.__file__\n{code}"
    line = [sys.executable, "-c", code]
    environment = ENVIRONMENT | {"PYTHONPATH": str(installed)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_trains_the_digits(installed: Path, tmp_path: Path) -> None:
    assert "run is finished" in python(installed, tmp_path, TRAIN)


def test_it_runs_the_loop_of_the_guide(installed: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/own-loop.md").read_text()
    loop = re.findall(r"```python\n(import torch\n.*?)```", page, re.DOTALL)[0]
    python(installed, tmp_path, loop)


def test_it_has_every_module_and_configuration_of_the_repository(installed: Path) -> None:
    places = {"mmgan": "mmgan", "classifiers": "classifiers", "scripts": "mmgan/commands", "configs": "mmgan/configs"}
    for folder, place in places.items():
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".yaml", ".html", ".md", ".typed"):
                assert (installed / place / file.relative_to(ROOT / folder)).exists(), file


def call(installed: Path, folder: Path, *words: str, launcher: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """A command, run in `folder`; with `launcher`, that starts it."""
    line = [*(launcher or [sys.executable, str(installed / "bin" / "mmgan")]), *words]
    environment = ENVIRONMENT | {"PYTHONPATH": str(installed)}
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)


def mmgan(installed: Path, folder: Path, *words: str, launcher: Sequence[str] = ()) -> str:
    """What a command prints that succeeds."""
    done = call(installed, folder, *words, launcher=launcher)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_commands_are_the_scripts(installed: Path, tmp_path: Path) -> None:
    listed = re.findall(r"^  ([a-z-]+) +\S", mmgan(installed, tmp_path, "--help"), re.MULTILINE)
    scripts = {file.stem for file in (ROOT / "scripts").glob("[!_]*.py")}
    assert {"train-gan", "train-cls", "score", "sample", "sweep", "report", "study"} <= set(listed)
    assert len(listed) == len(scripts)
    for name in ("sample", "sweep"):
        assert f"usage: mmgan {name} " in mmgan(installed, tmp_path, name, "--help")


def test_its_version_is_that_of_the_citation_and_of_the_newest_changes(installed: Path, tmp_path: Path) -> None:
    (said,) = re.findall(r"^mmgan (\S+)$", mmgan(installed, tmp_path, "--version"), re.MULTILINE)
    assert re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE) == [said]
    assert re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0] == said


def test_a_command_that_there_is_not_gets_one_line(installed: Path, tmp_path: Path) -> None:
    done = call(installed, tmp_path, "trian-gan")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: mmgan has no command trian-gan; mmgan --help lists them\n"


def test_from_training_to_a_report_by_configurations_of_its_own(installed: Path, tmp_path: Path) -> None:
    small = ["--steps", "2", "--n_dis", "1", *SMALL]
    assert "run is finished" in mmgan(
        installed, tmp_path, "train-gan", "--config", "gan/digits", "--output", "run", *small
    )
    assert "grid.png" in mmgan(installed, tmp_path, "sample_gan", "run"), "by the name of its file too"
    assert "--num_samples" in mmgan(installed, tmp_path, "score", "--help"), "options of the function behind it"
    (tmp_path / "sweep.yaml").write_text(
        "script: train_gan\nconfigs: [gan/digits, configs/gan/mixup/split.yaml]\n"
        "options: {steps: 1, n_dis: 1, batch_size: 8, generator.width: 8, discriminator.width: 8}\n"
        "arms: {one: {}}\n"
    )
    assert "1 done" in mmgan(installed, tmp_path, "sweep", "--config", "sweep.yaml", "--output", "sweep")
    mmgan(installed, tmp_path, "report", "sweep", "--output", "page")
    assert "Made by `mmgan report sweep --output page`" in (tmp_path / "page.md").read_text()


def test_two_processes_by_the_module_s_name(installed: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, *command("", processes=2)[1:-1], "-m", "mmgan.commands.train_gan"]
    words = ["--config", "gan/digits", "--output", "run", "--steps", "2", "--n_dis", "1", *SMALL]
    mmgan(installed, tmp_path, *words, launcher=launcher)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())[0]["processes"] == 2
