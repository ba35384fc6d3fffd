"""A GAN's run, loaded from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmgan.engine.checkpoint import Checkpoint, of_run
from mmgan.engine.cli import config_of
from mmgan.errors import UserError
from mmgan.gan import hub
from mmgan.gan.config import GANConfig
from mmgan.gan.inputs import Inputs
from mmgan.gan.sample import generate
from mmgan.gan.state import build
from mmgan.scoring import records


@dataclass(frozen=True)
class GANRun:
    """A run's configuration, the networks of one of its checkpoints, and its scores.

    Examples:
        >>> import mmgan
        >>> run = mmgan.load(folder)
        >>> run.discriminator(run.sample(2).float() / 127.5 - 1).shape
        torch.Size([2])
    """

    folder: Path
    config: GANConfig
    step: int
    """Generator steps completed at this checkpoint."""
    weights: Literal["raw", "ema"]
    """Whether `generator` has the trained weights or their average."""
    generator: nn.Module
    """From `inputs`, float32 [N, z_dim + classes], to images [N, C, R, R] in [-1, 1]; in evaluation mode."""
    discriminator: nn.Module
    """From such images to logits [N], in evaluation mode; if conditional, with class vectors [N, classes] as `y`, to
    (logits, `y`)."""
    shape: tuple[int, int, int]
    """Shape of an image: C, R, R."""
    inputs: Inputs
    """Latents by number and, for a conditional GAN, its classes and labels."""

    def sample(
        self, n: int, seed: int = 0, start: int = 0, batch_size: int = 256, classes: Sequence[str | int] = ()
    ) -> Tensor:
        """Images `start` to `start + n - 1` of a seed: uint8 [n, C, R, R]. Image i depends only on the seed and i.

        For a conditional GAN, `classes` names those to draw from (none: all); `inputs.labels` gives each image's class.
        Raises UserError for an unknown class, and ValueError for an `n`, `start` or `batch_size` out of range.
        """
        if n < 1 or start < 0 or batch_size < 1:
            raise ValueError(f"n and batch_size must be positive and start 0 or more: {n}, {batch_size}, {start}")
        z = self.inputs(seed, start, start + n, classes)
        return generate(self.generator, z, batch_size)

    @property
    def scores(self) -> list[dict[str, Any]]:
        """The records in RUN/scores.json, oldest first: checkpoint, protocol, its stamp, and the scores."""
        return records.read(self.folder)


def load(
    folder: str | Path,
    checkpoint: Literal["best", "last"] | int = "last",
    weights: Literal["auto", "raw", "ema"] = "auto",
    device: torch.device | str = "cpu",
    trust: bool = False,
    revision: str | None = None,
) -> GANRun:
    """Open the run of a GAN in `folder`, or one that `mmgan.push` uploaded to the Hugging Face Hub.

    A name `user/name` that is not a folder is a repository on the Hub; `revision` is its branch, tag or commit, None
    the newest. It is downloaded once and kept in huggingface_hub's cache, from which it is opened without a connection.
    `checkpoint` is the last, the best by the scores during training, or the step of a saved one; `weights` "auto"
    selects the generator's average if the run has one. A pushed run has one checkpoint and one kind of weights. With
    `trust`, the run may name classes from outside mmgan, which this process may then import. Raises UserError if there
    is nothing to load.

    Examples:
        >>> import mmgan
        >>> run = mmgan.load(folder)
        >>> run.sample(4, seed=1).shape
        torch.Size([4, 1, 8, 8])
        >>> run.config.generator.z_dim
        4
    """
    if weights not in ("auto", "raw", "ema") or (isinstance(checkpoint, str) and checkpoint not in ("best", "last")):
        raise UserError(
            f"checkpoint is best, last or a step, and weights auto, raw or ema: not {checkpoint}, {weights}"
        )
    folder = _found(folder, revision)
    saved = of_run(folder, checkpoint)
    if "generator" not in saved.weights:
        raise UserError(f"{folder} is not a run of mmgan train-gan")
    if weights == "ema" and "ema" not in saved.weights:
        raise UserError(f"{folder} has no average of its weights (ema); use raw")
    if weights == "raw" and saved.state.get("generator") == "ema":
        raise UserError(f"{folder} has only the average of the generator's weights (ema); use ema")
    config = config_of(GANConfig, folder / "config.yaml", trust)
    channels, resolution = saved.fact("channels", int), saved.fact("resolution", int)
    inputs = _inputs(config, saved)
    generator, discriminator = build(config, resolution, channels, len(inputs.names))
    kind: Literal["raw", "ema"] = "ema" if weights != "raw" and "ema" in saved.weights else "raw"
    saved.restore("ema" if kind == "ema" else "generator", generator)
    saved.restore("discriminator", discriminator)
    generator, discriminator = generator.to(device).eval(), discriminator.to(device).eval()
    shape = (channels, resolution, resolution)
    return GANRun(folder, config, saved.step, kind, generator, discriminator, shape, inputs)


def _found(folder: str | Path, revision: str | None) -> Path:
    """The folder, or the downloaded repository; raises UserError if there is neither."""
    path = Path(folder).expanduser()
    if path.exists() or not (isinstance(folder, str) and hub.is_name(folder)):
        if revision is not None:
            raise UserError(f"{folder} has no revision, because it is not the name of a repository (user/name)")
        return path
    return hub.fetch(folder, revision)


def _inputs(config: GANConfig, saved: Checkpoint) -> Inputs:
    """The generator's inputs; raises UserError for classes that no run can have."""
    inputs = Inputs(config.generator.z_dim)
    if not config.conditional:
        return inputs
    names, shares = saved.fact("classes", list), saved.fact("weights", list)
    plain = all(isinstance(name, str) and Path(name).name == name and name != ".." for name in names)
    if not plain or len(names) != len(shares) or not all(type(share) is int and share >= 0 for share in shares):
        raise UserError(f"{saved.path / saved.source} is damaged: its classes are {str(names)[:40]}")
    return replace(inputs, names=tuple(names), weights=tuple(shares))
