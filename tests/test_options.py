"""Every option accepted is used: flipping it changes the run, or is clearly refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig, GANData, ScoreConfig
from mmgan.gan.networks.resnet import DiscriminatorConfig, GeneratorConfig
from mmgan.gan.train import train
from mmgan.mixup import DiscriminatorMixup
from mmgan.scoring import Extractor
from tests.conftest import SMALL

BASE = ["--data.name", "digits", *SMALL, "--steps", "4", "--n_dis", "1", "--log_every", "2", "--tracker", "null"]
BASE += ["--sample_every", "4", "--checkpoint_every", "2", "--lr", "1e-3"]

FLIPS: dict[str, list[str]] = {
    "data.name": ["--data.name", "fashion_mnist", "--data.resolution", "8"],
    "data.split": ["--data.split", "test"],
    "data.resolution": ["--data.resolution", "16"],
    "data.flip": ["--data.flip", "true"],
    "data.subset": ["--data.subset", "100"],
    "data.dequantise": ["--data.dequantise", "false"],
    "generator.z_dim": ["--generator.z_dim", "5"],
    "generator.width": ["--generator.width", "6"],
    "generator.gain": ["--generator.gain", "1"],
    "generator.shortcut_gain": ["--generator.shortcut_gain", "1.4"],
    "generator.shortcut_conv": ["--generator.shortcut_conv", "false"],
    "discriminator.width": ["--discriminator.width", "6"],
    "discriminator.gain": ["--discriminator.gain", "1"],
    "discriminator.shortcut_gain": ["--discriminator.shortcut_gain", "1.4"],
    "discriminator.pool": ["--discriminator.pool", "mean"],
    "discriminator.spectral_norm": ["--discriminator.spectral_norm", "main"],
    "discriminator.power_iterations": ["--discriminator.power_iterations", "3"],
    "mixup": ["--mixup", "null"],
    "mixup.alpha": ["--mixup.alpha", "0.1"],
    "mixup.layers": ["--mixup.layers", "[1]"],
    "mixup.lam": ["--mixup.lam", "folded-beta"],
    "mixup.lam_per": ["--mixup.lam_per", "pair"],
    "mixup.layer_per": ["--mixup.layer_per", "pair"],
    "mixup.pairs": ["--mixup.pairs", "[real-real,fake-fake]"],
    "mixup.share": ["--mixup.share", "random"],
    "mixup.rows": ["--mixup.rows", "first"],
    "mixup.target": ["--mixup.target", "fake"],
    "mixup.weight": ["--mixup.weight", "2"],
    "mixup.replace": ["--mixup.replace", "true"],
    "loss": ["--loss", "hinge"],
    "saturating": ["--saturating", "true"],
    "gradient_penalty": ["--gradient_penalty", "0.5"],
    "steps": ["--steps", "6"],
    "n_dis": ["--n_dis", "2"],
    "batch_size": ["--batch_size", "10"],
    "g_batch_size": ["--g_batch_size", "10"],
    "reuse_fakes": ["--reuse_fakes", "true"],
    "lr": ["--lr", "2e-3"],
    "betas": ["--betas", "[0.5,0.9]"],
    "lr_schedule": ["--lr_schedule", "constant"],
    "ema": ["--ema", "0.9"],
    "seed": ["--seed", "1"],
    "mixed_precision": ["--mixed_precision", "bf16"],
    "log_every": ["--log_every", "4"],
    "sample_every": ["--sample_every", "1"],
    "checkpoint_every": ["--checkpoint_every", "3"],
    "keep_checkpoints": ["--keep_checkpoints", "1"],
    "tracker": ["--tracker", "tensorboard"],
}
SCORED = ["--score.weights", "a file", "--score.num_samples", "20", "--score.every", "2", "--score.final", "miyato"]
SCORE_FLIPS: dict[str, list[str]] = {
    "score": ["--score", "null"],
    "score.every": ["--score.every", "1"],
    "score.num_samples": ["--score.num_samples", "30"],
    "score.reference": ["--score.reference", "test"],
    "score.final": ["--score.final", "null"],
}
REFUSED = {
    "score.extractor": (["--score.extractor", "classifier"], "needs score.weights"),
    "data.root": (["--data.name", "folder", "--data.root", "nowhere"], "no folder nowhere"),
    "data.download": (["--data.name", "folder", "--data.download", "true"], "cannot be downloaded"),
    "network": (["--network", "tests.nowhere"], "No module named 'tests.nowhere'"),
}


class Pixels(nn.Module):
    """The smallest extractor: the first eight pixels as features, the next five as logits."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.flatten(1) / 255
        return x[:, :8], x[:, 8:13]


EXTRACTOR = Extractor("pixels", Pixels(), "none")


def outcome(folder: Path, *options: str) -> str:
    """A hash of all a run leaves but speeds, times and its configuration."""
    nullable = {"mixup": DiscriminatorMixup, "score": ScoreConfig}
    arguments = cli.parse(GANConfig, "", nullable, ["--output", str(folder), *BASE, *options])
    AcceleratorState._reset_state(reset_partial_state=True)  # a process of its own would start without one
    train(arguments.config, arguments.output, arguments.yaml, EXTRACTOR if arguments.config.score else None)
    parts: list[Any] = []
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".png", ".safetensors") and file.parent.name != "plots":
            parts.append((str(file.relative_to(folder)), file.read_bytes()))
        elif file.suffix == ".jsonl":
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            parts.append([{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows])
        else:
            parts.append("events" if "tfevents" in file.name else str(file.relative_to(folder)))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def options_of(config: type, prefix: str = "") -> Iterator[str]:
    sections = {"data": GANData, "generator": GeneratorConfig, "discriminator": DiscriminatorConfig}
    nullable = {"mixup": DiscriminatorMixup, "score": ScoreConfig}
    for field in fields(config):
        name = prefix + field.name
        section = sections.get(name) or nullable.get(name)
        if section is None or name in nullable:
            yield name
        if section:
            assert is_dataclass(section)
            yield from options_of(section, f"{name}.")


def test_every_option_is_looked_at_here() -> None:
    elsewhere = {"deterministic", "score.weights"}  # the latter in test_scoring.py: scripts turn it into an extractor
    assert set(options_of(GANConfig)) == FLIPS.keys() | SCORE_FLIPS.keys() | REFUSED.keys() | elsewhere


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    first, again = (outcome(tmp_path_factory.mktemp(name) / "run") for name in ("a", "b"))
    assert first == again, "the same seed gives the same run"
    return first


@pytest.mark.parametrize("name", FLIPS)
def test_an_option_changes_the_run(name: str, baseline: str, tmp_path: Path) -> None:
    if name == "data.name" and not (Path("/usr/share/datasets/fashion-mnist").is_dir()):
        pytest.skip("needs a second data set on this machine")
    assert outcome(tmp_path / "run", *FLIPS[name]) != baseline


def test_an_option_of_scoring_changes_what_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scored = outcome(tmp_path / "scored", *SCORED)
    for name, options in SCORE_FLIPS.items():
        assert outcome(tmp_path / name, *SCORED, *options) != scored, name


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_is_refused(name: str, tmp_path: Path) -> None:
    options, words = REFUSED[name]
    with pytest.raises(UserError, match=words):
        outcome(tmp_path / "run", *options)


def test_deterministic_sets_the_libraries(tmp_path: Path) -> None:
    outcome(tmp_path / "a", "--deterministic", "false")
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == (False, True)
    outcome(tmp_path / "b", "--deterministic", "true")
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark) == (True, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "0"], "steps must be positive"),
        (["--lr", "-1"], "lr must be positive"),
        (["--batch_size", "1"], "at least 2"),
        (["--g_batch_size", "0"], "at least 2"),
        (["--ema", "1"], "ema must be in"),
        (["--betas", "[0,1]"], "betas must be in"),
        (["--gradient_penalty", "-1"], "gradient_penalty must be 0 or more"),
        (["--gradient_penalty", "1", "--mixup.replace", "true"], "mixup.replace drops"),
        (["--reuse_fakes", "true", "--g_batch_size", "16"], "reuse_fakes needs"),
        (["--data.resolution", "0"], "resolution must be positive"),
        (["--generator.z_dim", "0"], "generator.z_dim must be positive"),
        (["--discriminator.width", "0"], "discriminator.width must be positive"),
        (["--score.every", "0"], "score.every must be positive"),
        (["--score.num_samples", "9"], "score.num_samples must be at least 10"),
        (["--score.final", "best"], "score.final must be one of train-50k, test-10k, miyato, paper"),
    ],
)
def test_values_out_of_range_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        outcome(tmp_path / "run", *options)


def test_a_network_of_one_s_own_is_a_file_and_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynet").mkdir()
    (tmp_path / "mynet" / "flat.py").write_text(
        """
from torch import nn
from mmgan.mixup import Mixable

class Generator(nn.Sequential):
    def __init__(self, resolution, channels, config):
        pixels = (channels, resolution, resolution)
        super().__init__(nn.Linear(config.z_dim, channels * resolution**2), nn.Tanh(), nn.Unflatten(1, pixels))

def Discriminator(resolution, channels, config):
    size = channels * resolution**2
    layers = nn.Flatten(), nn.Linear(size, config.width), nn.ReLU(), nn.Dropout(), nn.Linear(config.width, 1)
    return Mixable(nn.Sequential(*layers, nn.Flatten(0)), ["1"])
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["--network", "mynet.flat", "--mixup.layers", "[0,1]"]
    whole = outcome(tmp_path / "run", *options)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000004")
    assert outcome(tmp_path / "run", *options) == whole, "resumed from step 2, dropout and all"
    with pytest.raises(UserError, match=r"has layers 0 .* to 1"):
        outcome(tmp_path / "other", "--network", "mynet.flat")
