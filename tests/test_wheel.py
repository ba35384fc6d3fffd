"""A wheel built from the repository works where the repository is not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT, ROOT

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
    for name in ("mmgan", "classifiers"):
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


def test_it_runs_the_readme_s_loop(installed: Path, tmp_path: Path) -> None:
    (loop,) = re.findall(r"```python\n(import torch\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    python(installed, tmp_path, loop)


def test_it_carries_its_data_and_types(installed: Path) -> None:
    assert (installed / "mmgan" / "py.typed").exists()
    assert (installed / "classifiers" / "py.typed").exists()
    assert (installed / "mmgan" / "experiments" / "page.html").exists()
    assert (installed / "mmgan" / "experiments" / "published.yaml").exists()
    assert (installed / "mmgan" / "gan" / "card.md").exists()
