"""A trained classifier from its run folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from classifiers.config import ClassifierConfig
from classifiers.learnt import network_of
from classifiers.preprocess import blank
from mmgan.engine import checkpoint, cli, files
from mmgan.engine.checkpoint import Checkpoint
from mmgan.errors import UserError
from mmgan.mixup import Staged
from mmgan.scoring import Extractor, ExtractorConfig


def load_classifier(
    run: str | Path,
    which: Literal["auto", "best", "last"] | int = "auto",
    device: torch.device | str = "cpu",
    trust: bool = False,
) -> tuple[Staged, ClassifierConfig, Checkpoint]:
    """The network of a checkpoint of the run in `run`, in evaluation mode, its configuration, and the checkpoint.

    `which` is best (by validation error), last, the step of a kept checkpoint, or auto: best if it exists, else last.
    The network maps pixels float32 [B, C, R, R] in [0, 1] to logits [B, classes]. With `trust` the run may name classes
    from outside mmgan, which are then imported. Raises UserError if there is nothing to load.

    Examples:
        >>> import classifiers
        >>> network, config, checkpoint = classifiers.load_classifier(folder)
        >>> network(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """
    run = Path(run).expanduser()
    saved = checkpoint.of_run(run, choose(run, which))
    if "network" not in saved.weights:
        raise UserError(f"{run} is not a run of mmgan train-cls")
    config = cli.config_of(ClassifierConfig, run / "config.yaml", trust)
    shape = saved.fact("shape", list)
    if len(shape) != 3 or not all(isinstance(size, int) and 0 < size <= checkpoint.LARGEST for size in shape):
        raise UserError(f"{saved.path / 'state.pt'} is damaged: its shape is {str(shape)[:40]}")
    try:
        network = network_of(config, saved.fact("classes", int), blank(config.data.preprocess, shape), shape)
    except UserError as error:
        raise UserError(f"{run / 'config.yaml'} is damaged: {error}") from error
    saved.restore("network", network)
    return network.to(device, memory_format=torch.channels_last).eval(), config, saved  # type: ignore[call-overload]


def choose(run: Path, which: Literal["auto", "best", "last"] | int) -> Literal["best", "last"] | int:
    """Resolve `auto`: the checkpoint with the lowest validation error if there is one, else the last."""
    if which == "auto":
        return "best" if (run / "best").is_dir() else "last"
    return which


def trained_rows(run: Path) -> Tensor:
    """The rows of its data set that a run was trained on, int64; raises UserError if they are not recorded."""
    try:
        rows = torch.tensor(files.read_json(run / "split.json")["train"])
    except (UserError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{run / 'split.json'} is missing or damaged; run its training command again") from error
    if rows.ndim != 1 or not len(rows) or rows.is_floating_point() or rows.min() < 0:
        raise UserError(f"{run / 'split.json'} is damaged; run its training command again")
    return rows


def finished(run: Path, config: ClassifierConfig) -> bool:
    """Whether a run was trained to its end; raises UserError like `trained_rows`."""
    steps = math.ceil(config.epochs * len(trained_rows(run)) / config.batch_size)
    return checkpoint.at(run / "checkpoints", steps).exists()


class FeatureNetwork(nn.Module):
    """A classifier that maps uint8 images [B, C, R, R] to (features [B, d], logits [B, classes])."""

    def __init__(self, network: Staged) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of `images`."""
        last = self.network.depth - 1
        features = self.network(images.float() / 255, stop=last)
        return features, self.network(features, start=last)


@dataclass(frozen=True)
class Classifier(ExtractorConfig):
    """A classifier trained by mmgan train-cls: its features before the last layer, and its logits."""

    run: str
    """Its run folder."""

    def build(self) -> Extractor:
        """The extractor, from the checkpoint `auto`; raises UserError like `load_classifier`, with advice."""
        try:
            network, config, saved = load_classifier(self.run)
        except UserError as error:
            raise UserError(
                f"extractor.run: {error}; mmgan train-cls trains a classifier on labelled images, these or "
                "others of the same size; the extractor Inception needs no labels"
            ) from error
        if config.fortified:
            raise UserError(f"extractor.run: {self.run} is fortified, so its features are random; use another run")
        channels, rows, columns = saved.state["shape"]
        shape = (channels, rows, columns)
        return Extractor("classifier", FeatureNetwork(network), "pixels to [0, 1], no resizing", shape)
