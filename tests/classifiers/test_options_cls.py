"""Every option of a classifier is used: flipping it changes the run, or is clearly refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from classifiers.config import ClassifierConfig
from classifiers.training import train
from mmgan.engine import cli
from mmgan.errors import UserError
from tests.classifiers.cases import ADVERSARIAL
from tests.conftest import options_of

pytestmark = pytest.mark.slow

BASE = ["--data.name", "digits", "--data.labels_per_class", "4", "--data.validation", "20", "--data.pad", "1"]
BASE += ["--network.width", "0.0625", "--batch_size", "8", "--epochs", "3", "--milestones", "[2]", "--log_every", "2"]
BASE += ["--checkpoint_every", "3", "--tracker", "null"]

FLIPS: dict[str, list[str]] = {
    "data.name": ["--data.name", "tests.halved_digits"],
    "data.split": ["--data.split", "test"],
    "data.resolution": ["--data.resolution", "12"],
    "data.validation": ["--data.validation", "30"],
    "data.labels_per_class": ["--data.labels_per_class", "5"],
    "data.subset_seed": ["--data.subset_seed", "1"],
    "data.pad": ["--data.pad", "2"],
    "data.flip": ["--data.flip", "false"],
    "data.cutout": ["--data.cutout", "3"],
    "data.preprocess": ["--data.preprocess", "symmetric"],
    "data.border": ["--data.border", "reflect"],
    "data.noise": ["--data.noise", "0.1"],
    "network.depth": ["--network.depth", "34"],
    "network.width": ["--network.width", "0.125"],
    "network.final_norm": ["--network.final_norm", "false"],
    "network.dropout": ["--network.dropout", "0.2"],
    "mixup": ["--mixup", "null"],
    "mixup.alpha": ["--mixup.alpha", "0.3"],
    "mixup.layers": ["--mixup.layers", "[0]"],
    "mixup.lam_per": ["--mixup.lam_per", "pair"],
    "mixup.detach": ["--mixup.detach", "true"],
    "adversarial": ADVERSARIAL,
    "ssl": ["--ssl", "MixupConsistency", "--ssl.batch_size", "12"],
    "fortified": ["--fortified.hidden", "16"],
    "label_smoothing": ["--label_smoothing", "0.1"],
    "epochs": ["--epochs", "4"],
    "batch_size": ["--batch_size", "12"],
    "lr": ["--lr", "0.05"],
    "momentum": ["--momentum", "0.8"],
    "nesterov": ["--nesterov", "true"],
    "weight_decay": ["--weight_decay", "0.01"],
    "l1": ["--l1", "0.001"],
    "lr_schedule": ["--lr_schedule", "cosine"],
    "milestones": ["--milestones", "[1]"],
    "seed": ["--seed", "1"],
    "mixed_precision": ["--mixed_precision", "bf16"],
    "log_every": ["--log_every", "3"],
    "validate_every": ["--validate_every", "2"],
    "checkpoint_every": ["--checkpoint_every", "2"],
    "tracker": ["--tracker", "tensorboard"],
}
SHORT = ["--epochs", "2", "--lr_schedule", "constant"]
WIDE = [*SHORT, "--network", "WideResNet", "--network.depth", "10", "--network.width", "0.25"]
OLIVER = [*SHORT, "--network", "Oliver", "--network.depth", "10", "--network.width", "0.25"]
CUTMIX = [*WIDE, "--mixup", "ClassifierCutMix"]
NONE = [*WIDE, "--mixup", "null"]
ADAMIXUP = [*WIDE, "--mixup", "AdaMixUp"]
NOISY = [*WIDE, "--mixup", "ClassifierNoisyMixup"]
CLEAN = [*ADVERSARIAL, "--adversarial.clean", "true"]
FORTIFIED = [*CLEAN, "--fortified.hidden", "16"]
COSINE = ["--epochs", "2", "--lr_schedule", "cosine"]
PSEUDO = [*NONE, "--ssl", "PseudoLabel", "--ssl.batch_size", "12", "--ssl.threshold", "0.1"]
PI = [*NONE, "--ssl", "PiModel", "--ssl.batch_size", "12", "--ssl.compare", "logits"]
TEACHER = [*NONE, "--ssl", "MeanTeacher", "--ssl.batch_size", "12", "--ssl.decay", "0.9"]
VAT = [*NONE, "--ssl", "VAT", "--ssl.batch_size", "12", "--ssl.eps", "1"]
CONSISTENCY = [*NONE, "--ssl", "MixupConsistency", "--ssl.batch_size", "12"]
ICT = [*NONE, "--ssl", "ICT", "--ssl.batch_size", "12"]
UNLABELLED_NOISE = [*CONSISTENCY, "--ssl.mixup", "ClassifierNoisyMixup"]
ICT_CUTMIX, ICT_NOISE = ([*ICT, "--ssl.mixup", rule] for rule in ("ClassifierCutMix", "ClassifierNoisyMixup"))
ICT_PLAIN = [*ICT, "--ssl.mixup", "ClassifierMixup"]
UNLABELLED_CUTMIX = [*CONSISTENCY, "--ssl.mixup", "ClassifierCutMix"]
METHODS = {"PseudoLabel": PSEUDO, "PiModel": PI, "MeanTeacher": TEACHER, "VAT": VAT, "MixupConsistency": CONSISTENCY}
METHODS["ICT"] = ICT
WITHIN: dict[str, tuple[list[str], list[str]]] = {
    "adversarial.eps": (ADVERSARIAL, ["--adversarial.eps", "0.2"]),
    "adversarial.norm": (ADVERSARIAL, ["--adversarial.norm", "l2"]),
    "adversarial.step_size": (ADVERSARIAL, ["--adversarial.step_size", "0.04"]),
    "adversarial.iterations": (ADVERSARIAL, ["--adversarial.iterations", "3"]),
    "adversarial.random_start": (ADVERSARIAL, ["--adversarial.random_start", "false"]),
    "adversarial.clean": (ADVERSARIAL, ["--adversarial.clean", "true"]),
    "adversarial.labels": (ADVERSARIAL, ["--adversarial.labels", "predicted"]),
    "fortified.layer": (FORTIFIED, ["--fortified.layer", "1"]),
    "fortified.hidden": (FORTIFIED, ["--fortified.hidden", "8"]),
    "fortified.activation": (FORTIFIED, ["--fortified.activation", "leaky-relu"]),
    "fortified.noise": (FORTIFIED, ["--fortified.noise", "0"]),
    "fortified.weight": (FORTIFIED, ["--fortified.weight", "2"]),
    "fortified.cross": (FORTIFIED, ["--fortified.cross", "true"]),
    "fortified.blocking": (FORTIFIED, ["--fortified.blocking", "true"]),
    "cosine_epochs": (COSINE, ["--cosine_epochs", "3"]),
    "keep_checkpoints": (["--checkpoint_every", "1"], ["--keep_checkpoints", "1"]),
    "mixup[AdaMixUp]": (WIDE, ADAMIXUP),
    "mixup[AdaMixUp].layers": (ADAMIXUP, ["--mixup.layers", "[0]"]),
    "mixup[ClassifierNoisyMixup]": (WIDE, NOISY),
    "mixup[ClassifierNoisyMixup].alpha": (NOISY, ["--mixup.alpha", "0.3"]),
    "mixup[ClassifierNoisyMixup].layers": (NOISY, ["--mixup.layers", "[0]"]),
    "mixup[ClassifierNoisyMixup].detach": (NOISY, ["--mixup.detach", "true"]),
    "mixup[ClassifierNoisyMixup].lam_per": (NOISY, ["--mixup.lam_per", "pair"]),
    "mixup[ClassifierNoisyMixup].additive": (NOISY, ["--mixup.additive", "0"]),
    "mixup[ClassifierNoisyMixup].multiplicative": (NOISY, ["--mixup.multiplicative", "0"]),
    "ssl[ICT].decay": (ICT, ["--ssl.decay", "0.4"]),
    "ssl[ICT].mixed": (ICT, ["--ssl.mixed", "logits"]),
    "ssl[ICT].mixup[ClassifierMixup]": (ICT_CUTMIX, ICT_PLAIN),
    "ssl[ICT].mixup[ClassifierMixup].alpha": (ICT_PLAIN, ["--ssl.mixup.alpha", "0.3"]),
    "ssl[ICT].mixup[ClassifierMixup].layers": (ICT_PLAIN, ["--ssl.mixup.layers", "[1]"]),
    "ssl[ICT].mixup[ClassifierMixup].lam_per": (ICT_PLAIN, ["--ssl.mixup.lam_per", "pair"]),
    "ssl[ICT].mixup[ClassifierCutMix]": (ICT, ICT_CUTMIX),
    "ssl[ICT].mixup[ClassifierCutMix].alpha": (ICT_CUTMIX, ["--ssl.mixup.alpha", "0.3"]),
    "ssl[ICT].mixup[ClassifierCutMix].layers": (ICT_CUTMIX, ["--ssl.mixup.layers", "[1]"]),
    "ssl[ICT].mixup[ClassifierNoisyMixup]": (ICT, ICT_NOISE),
    **{
        f"ssl[{method}].mixup[ClassifierNoisyMixup].{name}": (base, [f"--ssl.mixup.{name}", value])
        for method, base in (("ICT", ICT_NOISE), ("MixupConsistency", UNLABELLED_NOISE))
        for name, value in (
            ("alpha", "0.3"),
            ("layers", "[2]"),
            ("lam_per", "pair"),
            ("additive", "0"),
            ("multiplicative", "0"),
        )
    },
    "ssl[MixupConsistency].mixup[ClassifierNoisyMixup]": (CONSISTENCY, UNLABELLED_NOISE),
    "adversarial.order": (ADVERSARIAL, ["--adversarial.order", "mix-attack"]),
    "l1_on": (["--l1", "0.01"], ["--l1_on", "first"]),
    "loss[BCESoftmax]": (WIDE, ["--loss", "BCESoftmax"]),
    "network[WideResNet]": (OLIVER, WIDE),
    "network[WideResNet].depth": (WIDE, ["--network.depth", "16"]),
    "network[WideResNet].width": (WIDE, ["--network.width", "0.5"]),
    "network[WideResNet].final_norm": (WIDE, ["--network.final_norm", "false"]),
    "network[WideResNet].dropout": (WIDE, ["--network.dropout", "0.2"]),
    "network[Oliver]": (WIDE, OLIVER),
    "network[Oliver].depth": (OLIVER, ["--network.depth", "16"]),
    "network[Oliver].width": (OLIVER, ["--network.width", "0.5"]),
    "network[Oliver].final_norm": (OLIVER, ["--network.final_norm", "false"]),
    "network[Oliver].dropout": (OLIVER, ["--network.dropout", "0.2"]),
    "mixup[ClassifierCutMix]": (WIDE, CUTMIX),
    "mixup[ClassifierCutMix].alpha": (CUTMIX, ["--mixup.alpha", "0.3"]),
    "mixup[ClassifierCutMix].layers": (CUTMIX, ["--mixup.layers", "[0]"]),
    "mixup[ClassifierCutMix].detach": (CUTMIX, ["--mixup.detach", "true"]),
    "ssl[PseudoLabel].threshold": (PSEUDO, ["--ssl.threshold", "0.9"]),
    "ssl[PiModel].compare": (PI, ["--ssl.compare", "probabilities"]),
    "ssl[MeanTeacher].decay": (TEACHER, ["--ssl.decay", "0.8"]),
    "ssl[MeanTeacher].compare": (TEACHER, ["--ssl.compare", "logits"]),
    "ssl[VAT].eps": (VAT, ["--ssl.eps", "2"]),
    "ssl[VAT].xi": (VAT, ["--ssl.xi", "1"]),
    "ssl[VAT].iterations": (VAT, ["--ssl.iterations", "2"]),
    "ssl[VAT].entropy": (VAT, ["--ssl.entropy", "0.5"]),
    "ssl[MixupConsistency].compare": (CONSISTENCY, ["--ssl.compare", "logits"]),
    "ssl[MixupConsistency].mixup.alpha": (CONSISTENCY, ["--ssl.mixup.alpha", "0.3"]),
    "ssl[MixupConsistency].mixup.layers": (CONSISTENCY, ["--ssl.mixup.layers", "[0]"]),
    "ssl[MixupConsistency].mixup.lam_per": (CONSISTENCY, ["--ssl.mixup.lam_per", "pair"]),
    "ssl[MixupConsistency].mixup[ClassifierCutMix]": (CONSISTENCY, UNLABELLED_CUTMIX),
    "ssl[MixupConsistency].mixup[ClassifierCutMix].alpha": (UNLABELLED_CUTMIX, ["--ssl.mixup.alpha", "0.3"]),
    "ssl[MixupConsistency].mixup[ClassifierCutMix].layers": (UNLABELLED_CUTMIX, ["--ssl.mixup.layers", "[0]"]),
}
for _name, _base in METHODS.items():
    WITHIN[f"ssl[{_name}]"] = (NONE, _base)
    WITHIN[f"ssl[{_name}].weight"] = (_base, ["--ssl.weight", "2"])
    WITHIN[f"ssl[{_name}].ramp_until"] = (_base, ["--ssl.ramp_until", "1"])
    WITHIN[f"ssl[{_name}].ramp_from"] = (_base, ["--ssl.ramp_from", "zero" if _name == "ICT" else "official"])
    WITHIN[f"ssl[{_name}].batch_size"] = (_base, ["--ssl.batch_size", "8"])
"""Options that mean something beside others alone, and a change of them."""
DETACHED = ["--ssl.mixup.detach", "true"]
LEARNT = ["--ssl.mixup", "AdaMixUp"]
REFUSED = {
    "mixup[AdaMixUp].detach": ([*ADAMIXUP, "--mixup.detach", "true"], "mixup.detach blocks"),
    **{
        f"ssl[{method}].mixup[AdaMixUp]{option}": ([*base, *LEARNT, *change], words)
        for method, base in (("ICT", ICT), ("MixupConsistency", CONSISTENCY))
        for option, change, words in (
            ("", [], "AdaMixUp learns from labels"),
            (".layers", ["--ssl.mixup.layers", "[1]"], "AdaMixUp learns from labels"),
            (".detach", DETACHED, "detach"),
        )
    },
    **{
        f"ssl[{method}].mixup[{rule}].detach": ([*base, "--ssl.mixup", rule, *DETACHED], "ablation of supervised")
        for method, base, rule in (
            ("ICT", ICT, "ClassifierMixup"),
            ("ICT", ICT, "ClassifierCutMix"),
            ("ICT", ICT, "ClassifierNoisyMixup"),
            ("MixupConsistency", CONSISTENCY, "ClassifierNoisyMixup"),
        )
    },
    "ssl[MixupConsistency].mixup.detach": ([*CONSISTENCY, *DETACHED], "ablation of supervised learning"),
    "ssl[MixupConsistency].mixup[ClassifierCutMix].detach": (
        [*UNLABELLED_CUTMIX, *DETACHED],
        "ablation of supervised learning",
    ),
    "data.root": (["--data.name", "folder", "--data.root", "nowhere"], "no folder .*nowhere"),
    "data.download": (["--data.name", "folder", "--data.download", "true"], "cannot be downloaded"),
}


def outcome(folder: Path, *options: str) -> str:
    """A hash of all a run leaves but speeds, times and its configuration."""
    arguments = cli.parse(ClassifierConfig, "", ["--output", str(folder), *BASE, *options])
    AcceleratorState._reset_state(reset_partial_state=True)  # a process of its own would start without one
    train(arguments.config, arguments.output)
    parts: list[Any] = []
    for file in sorted(folder.rglob("*")):
        if file.suffix == ".safetensors":
            parts.append((str(file.relative_to(folder)), file.read_bytes()))
        elif file.suffix == ".jsonl":
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            parts.append([{k: v for k, v in row.items() if k != "steps_per_second"} for row in rows])
        else:
            parts.append("events" if "tfevents" in file.name else str(file.relative_to(folder)))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def test_every_option_is_looked_at_here() -> None:
    looked_at = (
        FLIPS.keys() | WITHIN.keys() | REFUSED.keys() | {"deterministic", "compile", "data.skip_broken", "init_from"}
    )
    options = set(options_of(ClassifierConfig))
    assert not options - looked_at, f"nothing here changes {sorted(options - looked_at)}"
    assert not looked_at - options, f"there is no option {sorted(looked_at - options)}"


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    first, again = (outcome(tmp_path_factory.mktemp(name) / "run") for name in ("a", "b"))
    assert first == again, "the same seed gives the same run"
    return first


@pytest.mark.parametrize("name", FLIPS)
def test_an_option_changes_the_run(name: str, baseline: str, tmp_path: Path) -> None:
    assert outcome(tmp_path / "run", *FLIPS[name]) != baseline, f"{name} changes nothing"


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """The outcome of a run to compare others with, made once."""
    return cache(lambda *options: outcome(tmp_path_factory.mktemp("beside") / "run", *options))


@pytest.mark.parametrize("name", WITHIN)
def test_an_option_of_a_class_changes_the_run(name: str, beside: Callable[..., str], tmp_path: Path) -> None:
    base, change = WITHIN[name]
    assert outcome(tmp_path / "run", *base, *change) != beside(*base), f"{name} changes nothing"


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
        (["--epochs", "0"], "epochs must be positive"),
        (["--lr", "-1"], "lr must be positive"),
        (["--momentum", "1"], "momentum must be in"),
        (["--nesterov", "true", "--momentum", "0"], "nesterov needs momentum"),
        (["--weight_decay", "-1"], "weight_decay must be 0 or more"),
        (["--milestones", "[3]"], "must lie within the 3 epochs"),
        (["--mixup.layers", "[5]"], "the network has layers 0"),
        (["--data.pad", "-1"], "data.pad must be 0 or more"),
        (["--data.labels_per_class", "0"], "labels_per_class must be positive"),
        (["--adversarial.eps", "0"], "adversarial.eps must be positive"),
        (["--adversarial.iterations", "0"], "adversarial.iterations must be positive"),
        (["--adversarial.eps", "0.1", "--mixed_precision", "fp16"], "bf16 or null"),
        (["--adversarial.order", "mix-attack", "--mixup.detach", "true"], "the gradient that mixup.detach blocks"),
        (["--adversarial.eps", "8"], "adversarial.eps is for pixels in .0, 1."),
        (["--ssl.weight", "2"], "choose one with --ssl: ICT, MeanTeacher"),
        (["--data.pad", "1000000"], "data.pad 1000000 is more than the 8 pixels"),
        (["--network.width", "1e6"], "lower network.width"),
        (["--network.width", "inf"], "network.width must be"),
        (["--network.width", "0"], "network.width must be positive"),
        (["--network.depth", "20"], "network.depth must be one of 18, 34, 50, 152"),
        (["--network.dropout", "1"], "network.dropout must be in"),
        (["--adversarial.eps", "0.1", "--data.noise", "0.1"], "set data.noise 0"),
        (["--data.noise", "-1"], "data.noise must be 0 or more"),
    ],
)
def test_values_out_of_range_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        outcome(tmp_path / "run", *options)
