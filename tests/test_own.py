"""A stranger's walk: a rule, a network, a loss, an extractor and a data set of one's own are one file each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ENVIRONMENT, FORKS, ROOT, result, same

FILES = {
    "rules.py": '''
from dataclasses import dataclass
import torch
from mmgan.mixup import DiscriminatorRule, Plan

@dataclass(frozen=True, kw_only=True)
class Halves(DiscriminatorRule):
    """Every mixed row is the same share of both."""
    share_of_left: float = 0.5
    """How much is the left row's."""

    def plan(self, left, right, generator):
        return Plan(0, left, right, torch.tensor(self.share_of_left))
''',
    "nets.py": '''
from dataclasses import dataclass
from torch import nn
from mmgan.gan.networks import DiscriminatorConfig, GeneratorConfig
from mmgan.mixup import Mixable

@dataclass(frozen=True, kw_only=True)
class FlatGenerator(GeneratorConfig):
    """A linear generator."""
    bias: bool = True
    """Whether it has one."""

    def build(self, resolution, channels):
        pixels = (channels, resolution, resolution)
        linear = nn.Linear(self.z_dim, channels * resolution**2, self.bias)
        return nn.Sequential(linear, nn.Tanh(), nn.Unflatten(1, pixels))

@dataclass(frozen=True, kw_only=True)
class FlatDiscriminator(DiscriminatorConfig):
    """Two linear layers and dropout."""
    width: int = 6
    """Hidden units."""

    def build(self, resolution, channels):
        size = channels * resolution**2
        layers = nn.Flatten(), nn.Linear(size, self.width), nn.ReLU(), nn.Dropout(), nn.Linear(self.width, 1)
        return Mixable(nn.Sequential(*layers, nn.Flatten(0)), ["1"])
''',
    "losses.py": '''
from dataclasses import dataclass
from mmgan.mixup.losses import SingleLogit

@dataclass(frozen=True)
class Squares(SingleLogit):
    """Least squares (Mao et al. 2017)."""
    real_label: float = 1.0
    """What real logits are pulled to."""

    def real(self, d):
        return (d - self.real_label) ** 2

    def fake(self, d):
        return d**2

    def generator(self, fake, real):
        return ((fake - self.real_label) ** 2).mean()
''',
    "images.py": """
from mmgan.data.sets import digits

def load(config):
    images, labels = digits.load(config)
    return 255 - images, labels
""",
}
PLACES = {"rules.py": "mmgan/mixup/rules", "losses.py": "mmgan/mixup/losses", "nets.py": "mmgan/gan/networks"}
NAMED = {
    "mixup": ["--mixup", "mine.rules.Halves", "--mixup.share_of_left", "0.3", "--mixup.layers", "[0,1]"],
    "network": ["--generator", "mine.nets.FlatGenerator", "--discriminator", "mine.nets.FlatDiscriminator"],
    "loss": ["--loss", "mine.losses.Squares", "--loss.real_label", "0.9"],
    "data": ["--data.name", "mine.images"],
}
NAMED["network"] += ["--discriminator.width", "5", "--mixup.layers", "[0,1]"]
BASE = ["--config", str(ROOT / "configs/gan/digits.yaml"), "--steps", "4", "--n_dis", "1", "--tracker", "null"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a package of the user's, which leaves a mark when it is imported."""
    (tmp_path / "mine").mkdir()
    for name, text in FILES.items():
        mark = f"open({str(tmp_path / 'imported')!r}, 'a').write({name!r})\n"
        (tmp_path / "mine" / name).write_text(mark + text)
    return tmp_path


def call(folder: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return FORKS.run([str(ROOT / "scripts" / f"{script}.py"), *options], ENVIRONMENT, timeout=300, folder=folder)


@pytest.mark.parametrize("kind", NAMED)
def test_a_class_of_ones_own_is_a_file_that_the_command_line_names(kind: str, folder: Path) -> None:
    options = [*BASE, *NAMED[kind], "--batch_size", "8", "--checkpoint_every", "2"]
    done = call(folder, "train_gan", *options, "--output", "run")
    assert done.returncode == 0, done.stderr
    whole = result(folder / "run")
    shutil.rmtree(folder / "run" / "checkpoints" / "step-000004")
    assert call(folder, "train_gan", *options, "--output", "run").returncode == 0
    assert same(result(folder / "run"), whole), "resumed from step 2, dropout and all"
    other = [option.replace("0.3", "0.4").replace("0.9", "0.8") for option in options]
    if other != options:
        assert call(folder, "train_gan", *other, "--output", "other").returncode == 0
        assert not same(result(folder / "other")[0]["generator"], whole[0]["generator"]), "its option is used"

    (folder / "imported").unlink()
    refused = call(folder, "sample_gan", "run")
    if kind == "data":
        assert refused.returncode == 0, "a sample needs no images"
    else:
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: mine.")
        assert "a file may not choose code" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert not (folder / "imported").exists(), "a run folder makes no code run"
    assert call(folder, "sample_gan", "run", "--trust", "true").returncode == 0


@pytest.mark.parametrize(
    "section",
    [
        {"mixup": {"class_path": "mine.rules.Halves"}},
        {"mixup": "mine.rules.Halves"},
        {"generator": {"class_path": "mine.nets.FlatGenerator"}},
        {"loss": "mine.losses.Squares"},
        {"data": {"name": "mine.images"}},
        {"data": {"class_path": "mine.rules.Halves"}},
        {"score": {"extractor": {"class_path": "mine.nets.FlatGenerator"}}},
        {"steps": {"class_path": "mine.rules.Halves"}},
    ],
)
def test_a_file_makes_no_code_run(section: dict[str, object], folder: Path) -> None:
    (folder / "downloaded.yaml").write_text(yaml.safe_dump(section))
    done = call(folder, "train_gan", *BASE, "--config", "downloaded.yaml", "--output", "run")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "imported").exists()


def test_the_name_of_a_file_or_folder_is_no_name_of_code(folder: Path) -> None:
    """Files and run folders whose names look like modules, beside modules of these names."""
    (folder / "evil").mkdir()
    (folder / "evil" / "__init__.py").write_text(f"open({str(folder / 'imported')!r}, 'a')\n")
    section = yaml.safe_dump({"class_path": "evil.yaml"})
    (folder / "evil.yaml").write_text(yaml.safe_dump({"mixup": {"class_path": "evil.yaml"}}))
    (folder / "section.yaml").write_text(section.replace("evil.yaml", "evil.run"))
    assert call(folder, "train_gan", *BASE, "--config", "evil.yaml", "--output", "run").returncode == 2
    assert call(folder, "train_gan", *BASE, "--mixup", "section.yaml", "--output", "evil.run").returncode == 2
    assert call(folder, "train_gan", *BASE, "--output", "evil.run").returncode == 0
    config = yaml.safe_load((folder / "evil.run" / "config.yaml").read_text())
    (folder / "evil.run" / "config.yaml").write_text(yaml.safe_dump(config | {"loss": {"class_path": "evil.run"}}))
    assert call(folder, "sample_gan", "evil.run").returncode == 2
    assert not (folder / "imported").exists()


def test_a_sweep_s_file_makes_no_code_run(folder: Path) -> None:
    sweep: dict[str, Any] = {"script": "train_gan", "configs": [str(ROOT / "configs/gan/digits.yaml")]}
    sweep |= {"grids": [{"mixup": ["mine.rules.Halves"]}]}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    done = call(folder, "sweep", "--config", "sweep.yaml", "--output", "sweep")
    assert done.returncode == 2
    assert "a file may not choose code" in done.stderr
    assert not (folder / "imported").exists()


def test_a_class_that_is_none_of_the_kind_is_refused(folder: Path) -> None:
    done = call(folder, "train_gan", *BASE, "--loss", "mine.rules.Halves", "--output", "run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: loss must be ")
    assert len(done.stderr.splitlines()) == 1


def test_a_layer_that_a_rule_cannot_mix_at_is_refused_before_training(folder: Path) -> None:
    options = [*BASE, *NAMED["network"], "--mixup", "DiscriminatorCutMix", "--output", "run"]
    done = call(folder, "train_gan", *options)
    assert done.returncode == 2
    assert "error: mixup.layers [0, 1]: CutMix needs states [N, C, H, W]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (folder / "run" / "metrics.jsonl").exists()


def test_a_file_in_a_folder_of_the_package_needs_no_registry(folder: Path) -> None:
    """In a copy of the packages: added there, classes are known by their short names."""
    for package in ("mmgan", "classifiers", "scripts"):
        shutil.copytree(ROOT / package, folder / "copy" / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, place in PLACES.items():
        (folder / "copy" / place / "mine.py").write_text(FILES[name])
    options = [*BASE, "--mixup", "Halves", "--generator", "FlatGenerator", "--discriminator", "FlatDiscriminator"]
    options += ["--mixup.layers", "[0,1]", "--batch_size", "8", "--loss", "Squares", "--output", str(folder / "run")]
    line = [sys.executable, str(folder / "copy" / "scripts" / "train_gan.py"), *options]
    environment = ENVIRONMENT | {"PYTHONPATH": str(folder / "copy")}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "mmgan.mixup.rules.mine.Halves" in (folder / "run" / "config.yaml").read_text()
