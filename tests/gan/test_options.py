"""Every option accepted is used: flipping it changes the run, or is clearly refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn

import classifiers.load  # noqa: F401  # a classifier can be the extractor
from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.train import train
from mmgan.mixup import losses, rules
from mmgan.scoring import Extractor, ExtractorConfig
from tests.conftest import SMALL, options_of

pytestmark = pytest.mark.slow

BASE = ["--data.name", "digits", *SMALL, "--steps", "4", "--n_dis", "1", "--log_every", "2", "--tracker", "null"]
BASE += ["--sample_every", "4", "--checkpoint_every", "4", "--lr", "1e-3"]

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
    "mixup.lam_per": ["--mixup.lam_per", "batch"],
    "mixup.layer_per": ["--mixup.layer_per", "pair"],
    "mixup.pairs": ["--mixup.pairs", "[real-real,fake-fake]"],
    "mixup.share": ["--mixup.share", "split"],
    "mixup.rows": ["--mixup.rows", "first"],
    "mixup.target": ["--mixup.target", "fake"],
    "mixup.weight": ["--mixup.weight", "2"],
    "mixup.generator_weight": ["--mixup.generator_weight", "0"],
    "mixup.replace": ["--mixup.replace", "true"],
    "loss.saturating": ["--loss.saturating", "true"],
    "r1_gamma": ["--r1_gamma", "1"],
    "r2_gamma": ["--r2_gamma", "1"],
    "conditional": ["--conditional", "uniform"],
    "augment": ["--augment", "DiffAugment"],
    "burn_in": ["--lr_schedule", "constant", "--burn_in", "BurnIn"],
    "generator.table": ["--data.resolution", "16", "--generator.table", "imagenet"],
    "discriminator.table": ["--discriminator.table", "imagenet"],
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
    "tracker": ["--tracker", "tensorboard"],
}
CUTMIX = ["--mixup", "DiscriminatorCutMix"]
NOISY = ["--mixup", "DiscriminatorNoisyMixup"]
DCGAN = ["--generator", "DCGANGenerator", "--discriminator", "DCGANDiscriminator", "--mixup.layers", "[0,1]"]
HINGE = ["--loss", "Hinge"]
AUGMENT = ["--augment", "DiffAugment"]
BURN_IN = ["--lr_schedule", "constant", "--burn_in", "BurnIn", "--burn_in.images", "40", "--r1_gamma", "1"]
WITHIN: dict[str, tuple[list[str], list[str]]] = {
    "mixup[DiscriminatorCutMix]": ([], CUTMIX),
    "mixup[DiscriminatorCutMix].alpha": (CUTMIX, ["--mixup.alpha", "0.2"]),
    "mixup[DiscriminatorCutMix].layers": (CUTMIX, ["--mixup.layers", "[0]"]),
    "mixup[DiscriminatorCutMix].layer_per": (CUTMIX, ["--mixup.layer_per", "pair"]),
    "mixup[DiscriminatorCutMix].pairs": (CUTMIX, ["--mixup.pairs", "[real-fake]"]),
    "mixup[DiscriminatorCutMix].share": (CUTMIX, ["--mixup.share", "random"]),
    "mixup[DiscriminatorCutMix].rows": (CUTMIX, ["--mixup.rows", "first"]),
    "mixup[DiscriminatorCutMix].target": (CUTMIX, ["--mixup.target", "fake"]),
    "mixup[DiscriminatorCutMix].weight": (CUTMIX, ["--mixup.weight", "0.5"]),
    "mixup[DiscriminatorCutMix].generator_weight": (CUTMIX, ["--mixup.generator_weight", "2"]),
    "mixup[DiscriminatorCutMix].replace": (CUTMIX, ["--mixup.replace", "true"]),
    "mixup[DiscriminatorNoisyMixup]": ([], NOISY),
    **{
        f"mixup[DiscriminatorNoisyMixup].{name}": (NOISY, [f"--mixup.{name}", value])
        for name, value in (
            ("alpha", "0.1"),
            ("layers", "[0]"),
            ("lam", "folded-beta"),
            ("lam_per", "batch"),
            ("layer_per", "pair"),
            ("pairs", "[real-fake]"),
            ("share", "split"),
            ("rows", "first"),
            ("target", "fake"),
            ("weight", "2"),
            ("generator_weight", "0"),
            ("replace", "true"),
            ("additive", "0"),
            ("multiplicative", "0"),
        )
    },
    "loss[Hinge]": ([], HINGE),
    "loss[Hinge].saturating": (HINGE, ["--loss.saturating", "true"]),
    "loss[Wasserstein]": (HINGE, ["--loss", "Wasserstein"]),
    "loss[Relativistic]": ([], ["--loss", "Relativistic"]),
    "loss[LeastSquares]": ([], ["--loss", "LeastSquares"]),
    "augment.kinds": (AUGMENT, ["--augment.kinds", "[translation]"]),
    "conditional": (["--conditional", "uniform"], ["--conditional", "matched"]),
    "keep_checkpoints": (["--checkpoint_every", "2"], ["--keep_checkpoints", "1"]),
    "burn_in.images": (BURN_IN, ["--burn_in.images", "200"]),
    "burn_in.lr": (BURN_IN, ["--burn_in.lr", "1e-4"]),
    "burn_in.gamma": (BURN_IN, ["--burn_in.gamma", "0.1"]),
    "burn_in.beta2": (BURN_IN, ["--burn_in.beta2", "0.95"]),
    "generator[DCGANGenerator]": ([], ["--generator", "DCGANGenerator"]),
    "generator[DCGANGenerator].z_dim": (DCGAN, ["--generator.z_dim", "5"]),
    "generator[DCGANGenerator].width": (DCGAN, ["--generator.width", "4"]),
    "discriminator[DCGANDiscriminator]": (["--mixup.layers", "[0,1]"], ["--discriminator", "DCGANDiscriminator"]),
    "discriminator[DCGANDiscriminator].width": (DCGAN, ["--discriminator.width", "4"]),
    "discriminator[DCGANDiscriminator].slope": (DCGAN, ["--discriminator.slope", "0.1"]),
    "discriminator[DCGANDiscriminator].spectral_norm": (DCGAN, ["--discriminator.spectral_norm", "false"]),
}
"""Options that mean something beside others alone, and a change of them."""
SCORED = ["--score.extractor", f"{__name__}.PixelsConfig", "--score.num_samples", "20", "--score.every", "2"]
SCORED += ["--score.final", "test-10k"]
SCORE_FLIPS: dict[str, list[str]] = {
    "score": ["--score", "null"],
    "score.every": ["--score.every", "1"],
    "score.num_samples": ["--score.num_samples", "30"],
    "score.reference": ["--score.reference", "test"],
    "score.final": ["--score.final", "null"],
    "score.final_metrics": ["--score.final_metrics", "fid"],
}
REFUSED = {
    "score.extractor[Classifier]": (
        ["--score.extractor", "Classifier", "--score.extractor.run", "no"],
        "no is not a run",
    ),
    "data.root": (["--data.name", "folder", "--data.root", "nowhere"], "no folder .*nowhere"),
    "data.download": (["--data.name", "folder", "--data.download", "true"], "cannot be downloaded"),
}


class Pixels(nn.Module):
    """The smallest extractor: the first eight pixels as features, the next five as logits."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.flatten(1) / 255
        return x[:, :8], x[:, 8:13]


@dataclass(frozen=True)
class PixelsConfig(ExtractorConfig):
    """The options of an extractor of one's own: it has none."""

    def build(self) -> Extractor:
        return Extractor("pixels", Pixels(), "none")


def outcome(folder: Path, *options: str) -> str:
    """A hash of all a run leaves but speeds, times and its configuration."""
    arguments = cli.parse(GANConfig, "", ["--output", str(folder), *BASE, *options])
    AcceleratorState._reset_state(reset_partial_state=True)  # a process of its own would start without one
    train(arguments.config, arguments.output)
    parts: list[Any] = []
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".png", ".safetensors") and file.parent.name != "plots" and file.name != "real.png":
            parts.append((str(file.relative_to(folder)), file.read_bytes()))
        elif file.suffix == ".jsonl":
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            parts.append([{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows])
        elif file.name == "scores.json":
            parts.append([(record["checkpoint"], sorted(record["scores"])) for record in json.loads(file.read_text())])
        else:
            parts.append("events" if "tfevents" in file.name else str(file.relative_to(folder)))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def test_every_option_is_looked_at_here() -> None:
    elsewhere = {"deterministic", "compile", "score.extractor.weights"}  # the last in test_scorer.py
    elsewhere |= {"score.extractor[Classifier].run", "data.skip_broken", "init_from"}  # test_folder.py, test_further.py
    elsewhere |= {
        f"score.extractor[{name}]{of}" for name in ("Fidelity", "Torchvision") for of in ("", ".name", ".weights")
    }
    looked_at = FLIPS.keys() | WITHIN.keys() | SCORE_FLIPS.keys() | REFUSED.keys() | elsewhere
    assert set(options_of(GANConfig)) == looked_at


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    first, again = (outcome(tmp_path_factory.mktemp(name) / "run") for name in ("a", "b"))
    assert first == again, "the same seed gives the same run"
    return first


@pytest.mark.parametrize("name", FLIPS)
def test_an_option_changes_the_run(name: str, baseline: str, tmp_path: Path) -> None:
    if name == "data.name" and not (Path("/usr/share/datasets/fashion-mnist").is_dir()):
        pytest.skip("needs a second data set on this machine")
    assert outcome(tmp_path / "run", *FLIPS[name]) != baseline, f"{name} changes nothing"


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The outcome of a run to compare others with, made once."""
    return cache(lambda *options: outcome(tmp_path_factory.mktemp("beside") / "run", *options))


@pytest.mark.parametrize("name", WITHIN)
def test_an_option_of_a_class_changes_the_run(name: str, beside: Callable[..., str], tmp_path: Path) -> None:
    base, change = WITHIN[name]
    assert outcome(tmp_path / "run", *base, *change) != beside(*base), f"{name} changes nothing"


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
        (["--r1_gamma", "-1"], "r1_gamma must be 0 or more"),
        (["--r1_gamma", "1", "--mixup.replace", "true"], "mixup.replace drops"),
        (["--loss", "Relativistic", "--mixup.replace", "true"], "mixup.replace drops"),
        (["--mixup.generator_weight", "-1"], "mixup.generator_weight must be 0 or more"),
        (["--loss", "Wasserstein", "--loss.saturating", "true"], "Wasserstein has no option saturating"),
        (["--mixup", "DiscriminatorCutMix", "--mixup.lam", "uniform"], "DiscriminatorCutMix has no option lam"),
        (["--discriminator", "DCGANDiscriminator", "--discriminator.pool", "sum"], "has no option pool"),
        (["--discriminator", "DCGANDiscriminator", "--discriminator.slope", "1"], "discriminator.slope must be in"),
        (["--mixup", "ClassifierMixup"], "mixup"),
        (["--reuse_fakes", "true", "--g_batch_size", "16"], "reuse_fakes needs"),
        (["--data.resolution", "0"], "resolution must be positive"),
        (["--generator.z_dim", "0"], "generator.z_dim must be positive"),
        (["--discriminator.width", "0"], "discriminator.width must be positive"),
        (["--lr", ".nan"], "lr must be finite"),
        (["--seed", "null"], "seed must be a whole number"),
        (["--mixup", "none"], "mixup must be .* or null, not none"),
        (["--ema", "None"], "ema must be a number or null, not None"),
        (["--tracker="], "tracker '' is not installed"),
        (["--discriminator.power_iterations", "1000000"], "power_iterations must be at most 1000"),
        (["--score.num_samples", "4294967297"], "score.num_samples must be at most 10000000"),
        (["--generator.width", "1000000"], "GiB are free; lower generator.width"),
        (["--generator.width", "1000000000000"], "more than can be counted"),
        (["--generator.z_dim", "1000000000000"], "lower generator.width, generator.z_dim"),
        (["--g_batch_size", "1000000000000"], "g_batch_size"),
        (["--data.resolution", "1000000"], "data.resolution must be at most 16384"),
        (["--data.resolution", "16384"], "images of this size need .* lower data.resolution"),
        (["--score.every", "0"], "score.every must be positive"),
        (["--score.num_samples", "9"], "score.num_samples must be at least 10"),
        (
            ["--score.final_metrics", "fid,fdi"],
            "score.final_metrics must be some of is, fid, kid, prc, dc, intra, not fdi",
        ),
        (["--score.final_metrics", "intra"], "score.final_metrics: intra needs classes"),
        (["--generator.table", "imagenet", "--generator.shortcut_conv", "false"], "needs shortcut_conv"),
        (["--burn_in.images", "0", "--lr_schedule", "constant"], "burn_in.images must be positive"),
        (["--burn_in.gamma", "0", "--lr_schedule", "constant"], "burn_in.gamma must be positive"),
        (["--burn_in.beta2", "1", "--lr_schedule", "constant"], "burn_in.beta2 must be in"),
        (["--score.final", "best"], "score.final must be one of train-50k, test-10k, miyato, paper or null, not best"),
    ],
)
def test_values_out_of_range_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        outcome(tmp_path / "run", *options)


def test_sections_of_several_files_and_options_merge(tmp_path: Path) -> None:
    """Of another class, what both have stays; null and back again is the default class."""
    files = {
        "mixup": "mixup: {alpha: 0.3, layers: [1]}\n",
        "cutmix": "mixup: {class_path: DiscriminatorCutMix, init_args: {alpha: 0.7}}\n",
        "none": "mixup: null\n",
        "loss": "loss: Hinge\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    def parsed(*names: str, options: Sequence[str] = ()) -> GANConfig:
        configs = [part for name in names for part in ("--config", str(tmp_path / name))]
        config = cli.parse(GANConfig, "", [*configs, "--output", "out", *options]).config
        (tmp_path / "again.yaml").write_text(cli.to_yaml(config))
        assert cli.config_of(GANConfig, tmp_path / "again.yaml") == config, "the commented YAML reads back as it was"
        return config

    def facts(config: GANConfig) -> tuple[str, float, list[int]]:
        rule = config.mixup
        assert isinstance(rule, rules.DiscriminatorMixup | rules.DiscriminatorCutMix)
        return type(rule).__name__, rule.alpha, list(rule.layers)

    assert facts(parsed("mixup")) == ("DiscriminatorMixup", 0.3, [1])
    assert facts(parsed("mixup", "cutmix")) == ("DiscriminatorCutMix", 0.7, [1])
    assert facts(parsed("cutmix", "mixup")) == ("DiscriminatorCutMix", 0.3, [1])
    assert facts(parsed("cutmix", options=["--mixup.alpha", "0.1"])) == ("DiscriminatorCutMix", 0.1, [0, 1, 2])
    assert parsed("mixup", "none").mixup is None
    assert facts(parsed("none", options=["--mixup.alpha", "0.2"])) == ("DiscriminatorMixup", 0.2, [0, 1, 2])
    assert parsed("loss").loss == losses.Hinge()
    assert parsed("loss", options=["--loss", "JS", "--loss.saturating", "true"]).loss == losses.JS(saturating=True)
