"""The files of docs/extending.md work: a rule, networks, a loss, a method and a data set of the user's own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ENVIRONMENT, FORKS, ROOT, result, same

pytestmark = pytest.mark.slow

GUIDE = (ROOT / "docs/extending.md").read_text()
FILES = dict(re.findall(r'^```python title="mine/(\w+\.py)"\n(.*?)^```', GUIDE, re.DOTALL | re.MULTILINE))
"""The files that the guide shows, by name."""
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


def test_the_guide_s_commands_name_these_files() -> None:
    commands = re.findall(r"(mine\.\w+(?:\.\w+)?)", "".join(re.findall(r"```bash\n(.*?)```", GUIDE, re.DOTALL)))
    named = {word for options in NAMED.values() for word in options if word.startswith("mine.")}
    assert set(commands) == named | {"mine.methods.Entropy"}
    assert set(FILES) == {"rules.py", "nets.py", "losses.py", "methods.py", "images.py"}


def test_a_semi_supervised_method_is_a_file_too(folder: Path) -> None:
    options = ["--config", str(ROOT / "configs/cls/digits.yaml"), "--network.width", "0.0625", "--mixup", "null"]
    options += ["--data.labels_per_class", "4", "--batch_size", "20", "--epochs", "2", "--lr_schedule", "constant"]
    options += ["--data.validation", "0", "--tracker", "null", "--ssl", "mine.methods.Entropy"]
    for name, temperature in (("one", "1"), ("two", "2")):
        done = call(folder, "train_cls", *options, "--ssl.temperature", temperature, "--output", name)
        assert done.returncode == 0, done.stderr
    (one, _), (two, _) = (result(folder / name) for name in ("one", "two"))
    assert not same(one["network"], two["network"]), "its option is used"


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


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mine.nothing.Squares", "module 'mine' has no attribute 'nothing'"),
        ("mine.torn.Squares", "No module named 'nowhere'"),
    ],
)
def test_a_class_that_cannot_be_imported_says_why(name: str, reason: str, folder: Path) -> None:
    (folder / "mine" / "torn.py").write_text("import nowhere\n")
    done = call(folder, "train_gan", *BASE, "--loss", name, "--output", "run")
    assert done.returncode == 2
    assert done.stderr == f"error: loss: {name} cannot be imported ({reason}) (--help lists every option)\n"


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
