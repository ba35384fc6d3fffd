"""A trained classifier from its run folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from classifiers.config import ClassifierConfig
from classifiers.networks import build
from classifiers.preprocess import blank
from mmgan.engine import checkpoint, cli
from mmgan.engine.checkpoint import Checkpoint
from mmgan.errors import UserError
from mmgan.mixup import Staged


def load_classifier(
    run: Path, which: Literal["best", "last"] | int, device: torch.device
) -> tuple[Staged, ClassifierConfig, Checkpoint]:
    """The network of a checkpoint of the run in `run`, in evaluation mode, and what it was made by.

    Raises UserError where there is nothing to load.
    """
    saved = checkpoint.of_run(run, which)
    if "network" not in saved.weights:
        raise UserError(f"{run} is no run of scripts/train_cls.py")
    config = cli.load_config(ClassifierConfig, run / "config.yaml")
    preprocess = blank(config.data.preprocess, saved.state["shape"])
    network = build(config.network, saved.state["classes"], *preprocess)
    saved.restore("network", network)
    return network.to(device, memory_format=torch.channels_last).eval(), config, saved  # type: ignore[call-overload]


def choose(run: Path, which: Literal["auto", "best", "last"] | int = "auto") -> Literal["best", "last"] | int:
    """What `auto` means: the checkpoint of the lowest validation error where there is one, else the last."""
    if which == "auto":
        return "best" if (run / "best").is_dir() else "last"
    return which


def trained_rows(run: Path) -> Tensor:
    """The rows of its data set that a run was trained on, int64; raises UserError where it does not say."""
    try:
        return torch.tensor(json.loads((run / "split.json").read_text())["train"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / 'split.json'} is missing or damaged; the command that trained it mends it") from error


def finished(run: Path, config: ClassifierConfig) -> bool:
    """Whether a run was trained to its end; raises UserError like `trained_rows`."""
    steps = math.ceil(config.epochs * len(trained_rows(run)) / config.batch_size)
    return checkpoint.at(run / "checkpoints", steps).exists()


class Extractor(nn.Module):
    """A classifier as a feature extractor: uint8 images [B, C, R, R] to (features [B, d], logits [B, classes])."""

    def __init__(self, network: Staged, channels: int, resolution: int) -> None:
        super().__init__()
        self.network, self.channels, self.resolution = network, channels, resolution

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of `images`."""
        last = self.network.depth - 1
        features = self.network(images.float() / 255, stop=last)
        return features, self.network(features, start=last)


def load_extractor(
    run: Path, which: Literal["best", "last"] | int = "best", device: torch.device | str = "cpu"
) -> Extractor:
    """The classifier of the run in `run` as a feature extractor; raises UserError like `load_classifier`."""
    network, _, saved = load_classifier(run, which, torch.device(device))
    channels, resolution, _ = saved.state["shape"]
    return Extractor(network, channels, resolution).eval()
