"""Every option of a classifier is used: flipping it changes the run, or is clearly refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from classifiers.adversarial import AdversarialTraining
from classifiers.config import ClassifierConfig, ClassifierData
from classifiers.networks import NetworkConfig
from classifiers.semisupervised import VAT, MeanTeacher, PiModel, PseudoLabel, SemiSupervised, UnlabelledMixup
from classifiers.train import train
from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.mixup import ClassifierMixup

BASE = ["--data.name", "digits", "--data.labels_per_class", "4", "--data.validation", "20", "--data.pad", "1"]
BASE += ["--network.name", "wideresnet", "--network.depth", "10", "--network.width", "0.25", "--batch_size", "8"]
BASE += ["--epochs", "3", "--milestones", "[2]", "--log_every", "2", "--checkpoint_every", "1", "--tracker", "null"]
ADVERSARIAL = ["--adversarial.eps", "0.1", "--adversarial.step_size", "0.07", "--adversarial.iterations", "2"]

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
    "network.name": ["--network.name", "preactresnet", "--network.depth", "18"],
    "network.depth": ["--network.depth", "16"],
    "network.width": ["--network.width", "0.5"],
    "network.final_norm": ["--network.final_norm", "false"],
    "network.dropout": ["--network.dropout", "0.2"],
    "mixup": ["--mixup", "null"],
    "mixup.alpha": ["--mixup.alpha", "0.3"],
    "mixup.layers": ["--mixup.layers", "[0]"],
    "mixup.lam_per": ["--mixup.lam_per", "pair"],
    "mixup.detach": ["--mixup.detach", "true"],
    "mixup.blocks": ["--mixup.blocks", "2"],
    "adversarial": ADVERSARIAL,
    "ssl": ["--ssl.mixup.alpha", "2", "--ssl.batch_size", "12"],
    "loss": ["--loss", "bce_softmax"],
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
    "checkpoint_every": ["--checkpoint_every", "3"],
    "keep_checkpoints": ["--keep_checkpoints", "1"],
    "tracker": ["--tracker", "tensorboard"],
}
SSL_BASE = [
    "--ssl.batch_size",
    "12",
    "--mixup",
    "null",
    "--network.depth",
    "10",
    "--epochs",
    "2",
    "--lr_schedule",
    "constant",
]
WITHIN: dict[str, tuple[list[str], list[str]]] = {
    "adversarial.eps": (ADVERSARIAL, ["--adversarial.eps", "0.2"]),
    "adversarial.norm": (ADVERSARIAL, ["--adversarial.norm", "l2"]),
    "adversarial.step_size": (ADVERSARIAL, ["--adversarial.step_size", "0.04"]),
    "adversarial.iterations": (ADVERSARIAL, ["--adversarial.iterations", "3"]),
    "adversarial.random_start": (ADVERSARIAL, ["--adversarial.random_start", "false"]),
    "adversarial.order": (ADVERSARIAL, ["--adversarial.order", "mix-attack"]),
    "l1_on": (["--l1", "0.01"], ["--l1_on", "first"]),
    "ssl.weight": (["--ssl.pi.compare", "logits"], ["--ssl.weight", "2"]),
    "ssl.ramp_until": (["--ssl.pi.compare", "logits"], ["--ssl.ramp_until", "1"]),
    "ssl.ramp_from": (["--ssl.pi.compare", "logits"], ["--ssl.ramp_from", "official"]),
    "ssl.batch_size": (["--ssl.pi.compare", "logits"], ["--ssl.batch_size", "8"]),
    "ssl.pseudo_label": (["--ssl.pi.compare", "logits"], ["--ssl.pi", "null", "--ssl.pseudo_label.threshold", "0.2"]),
    "ssl.pseudo_label.threshold": (
        ["--ssl.pseudo_label.threshold", "0.1"],
        ["--ssl.pseudo_label.threshold", "0.9"],
    ),
    "ssl.pi": (["--ssl.mean_teacher.compare", "logits"], ["--ssl.mean_teacher", "null", "--ssl.pi.compare", "logits"]),
    "ssl.pi.compare": (["--ssl.pi.compare", "logits"], ["--ssl.pi.compare", "probabilities"]),
    "ssl.mean_teacher": (["--ssl.vat.eps", "1"], ["--ssl.vat", "null", "--ssl.mean_teacher.decay", "0.9"]),
    "ssl.mean_teacher.decay": (["--ssl.mean_teacher.decay", "0.9"], ["--ssl.mean_teacher.decay", "0.8"]),
    "ssl.mean_teacher.compare": (["--ssl.mean_teacher.decay", "0.9"], ["--ssl.mean_teacher.compare", "logits"]),
    "ssl.vat": (["--ssl.mixup.alpha", "2"], ["--ssl.mixup", "null", "--ssl.vat.eps", "1"]),
    "ssl.vat.eps": (["--ssl.vat.eps", "1"], ["--ssl.vat.eps", "2"]),
    "ssl.vat.xi": (["--ssl.vat.eps", "1"], ["--ssl.vat.xi", "1"]),
    "ssl.vat.iterations": (["--ssl.vat.eps", "1"], ["--ssl.vat.iterations", "2"]),
    "ssl.vat.entropy": (["--ssl.vat.eps", "1"], ["--ssl.vat.entropy", "0.5"]),
    "ssl.mixup": (["--ssl.pi.compare", "logits"], ["--ssl.pi", "null", "--ssl.mixup.alpha", "2"]),
    "ssl.mixup.alpha": (["--ssl.mixup.alpha", "2"], ["--ssl.mixup.alpha", "0.3"]),
    "ssl.mixup.layers": (["--ssl.mixup.alpha", "2"], ["--ssl.mixup.layers", "[0]"]),
    "ssl.mixup.lam_per": (["--ssl.mixup.alpha", "2"], ["--ssl.mixup.lam_per", "pair"]),
    "ssl.mixup.blocks": (["--ssl.mixup.alpha", "2"], ["--ssl.mixup.blocks", "2"]),
    "ssl.mixup.compare": (["--ssl.mixup.alpha", "2"], ["--ssl.mixup.compare", "logits"]),
}
"""Options that mean something beside others alone, and a change of them."""
REFUSED = {
    "ssl.mixup.detach": (["--ssl.mixup.detach", "true"], "ablation of supervised learning"),
    "data.root": (["--data.name", "folder", "--data.root", "nowhere"], "no folder nowhere"),
    "data.download": (["--data.name", "folder", "--data.download", "true"], "cannot be downloaded"),
}


def outcome(folder: Path, *options: str) -> str:
    """A hash of all a run leaves but speeds, times and its configuration."""
    nullable = {"mixup": ClassifierMixup, "adversarial": AdversarialTraining, "ssl": SemiSupervised}
    arguments = cli.parse(ClassifierConfig, "", nullable, ["--output", str(folder), *BASE, *options])
    AcceleratorState._reset_state(reset_partial_state=True)  # a process of its own would start without one
    train(arguments.config, arguments.output, arguments.yaml)
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


def options_of(config: type, prefix: str = "") -> Iterator[str]:
    sections = {"data": ClassifierData, "network": NetworkConfig, "mixup": ClassifierMixup, "ssl": SemiSupervised}
    sections |= {"ssl.pseudo_label": PseudoLabel, "ssl.pi": PiModel, "ssl.mean_teacher": MeanTeacher, "ssl.vat": VAT}
    sections |= {"ssl.mixup": UnlabelledMixup, "adversarial": AdversarialTraining}
    for field in fields(config):
        name = prefix + field.name
        if name not in ("data", "network"):
            yield name
        if name in sections:
            yield from options_of(sections[name], f"{name}.")


def test_every_option_is_looked_at_here() -> None:
    assert set(options_of(ClassifierConfig)) == FLIPS.keys() | WITHIN.keys() | REFUSED.keys() | {"deterministic"}


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> str:
    first, again = (outcome(tmp_path_factory.mktemp(name) / "run") for name in ("a", "b"))
    assert first == again, "the same seed gives the same run"
    return first


@pytest.mark.parametrize("name", FLIPS)
def test_an_option_changes_the_run(name: str, baseline: str, tmp_path: Path) -> None:
    assert outcome(tmp_path / "run", *FLIPS[name]) != baseline


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], str]:
    """The outcome of a run to compare others with, made once."""
    known: dict[str, str] = {}

    def of(options: list[str]) -> str:
        key = " ".join(options)
        if key not in known:
            known[key] = outcome(tmp_path_factory.mktemp("beside") / "run", *options)
        return known[key]

    return of


@pytest.mark.parametrize("name", WITHIN)
def test_an_option_of_a_section_changes_the_run(name: str, beside: Callable[[list[str]], str], tmp_path: Path) -> None:
    base, change = WITHIN[name]
    base = [*(SSL_BASE if name.startswith("ssl") else []), *base]
    assert outcome(tmp_path / "run", *base, *change) != beside(base)


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
        (["--batch_size", "6"], "must divide batch_size 6"),
        (["--mixup.layers", "[4]"], "has layers 0 to 3"),
        (["--data.pad", "-1"], "data.pad must be 0 or more"),
        (["--data.labels_per_class", "0"], "labels_per_class must be positive"),
        (["--adversarial.eps", "0"], "adversarial.eps must be positive"),
        (["--adversarial.iterations", "0"], "adversarial.iterations must be positive"),
        (["--adversarial.eps", "0.1", "--mixed_precision", "fp16"], "bf16 or null"),
        (["--adversarial.order", "mix-attack", "--mixup.detach", "true"], "the gradient that mixup.detach blocks"),
        (["--network.width", "0"], "network.width must be positive"),
        (["--network.dropout", "1"], "network.dropout must be in"),
        (["--adversarial.eps", "0.1", "--data.noise", "0.1"], "set data.noise 0"),
        (["--data.noise", "-1"], "data.noise must be 0 or more"),
    ],
)
def test_values_out_of_range_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        outcome(tmp_path / "run", *options)
