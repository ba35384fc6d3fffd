"""What can be scored: a run, a TorchScript generator, a function, or images of any kind."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mmgan.data import DataConfig, to_uint8
from mmgan.errors import UserError
from mmgan.gan.inputs import Inputs
from mmgan.gan.run import GANRun, load
from mmgan.gan.sample import generate
from mmgan.scoring import source
from mmgan.scoring.extractors import hash_of
from mmgan.scoring.source import Draw, Source

SCRIPTS = (".pt", ".pth", ".ts", ".torchscript")


def draw(generator: nn.Module, inputs: Inputs, seed: int) -> Draw:
    """Images of a generator by number: image i depends only on the seed and i."""

    def images(start: int, stop: int) -> Tensor:
        return generate(generator, inputs(seed, start, stop), stop - start)

    return images


def named_run(text: str) -> tuple[Path, Literal["best", "last"] | int] | None:
    """The run that `text` names as RUN or RUN:CHECKPOINT, and its checkpoint; None if it names none."""
    name, _, which = text.rpartition(":")
    for folder, checkpoint in ((text, "last"), (name, which)):
        path = Path(folder).expanduser()
        if folder and (path / "config.yaml").is_file():
            if checkpoint in ("best", "last") or checkpoint.isdecimal():
                return path, checkpoint if checkpoint in ("best", "last") else int(checkpoint)  # type: ignore[return-value]
            raise UserError(f"{text}: a checkpoint is best, last, or the step of a saved one")
    return None


def open_source(
    text: str,
    accelerator: Accelerator,
    data: DataConfig = DataConfig(),  # noqa: B008
    resize: int | None = None,
    weights: Literal["auto", "raw", "ema"] = "auto",
    z_dim: int | None = None,
    trust: bool = False,
) -> Source:
    """What `text` names: a run folder, a TorchScript file, a data set, a folder or file of images, or a function.

    `data` locates a data set; `resize` is the size in pixels for a folder's images, which may have several sizes;
    `weights` selects a run's generator; `z_dim` is the dimension of a TorchScript generator's latents. Raises UserError
    for anything else.
    """
    path = Path(text).expanduser()
    if run := named_run(text):
        return of_run(load(*run, weights, accelerator.device, trust))
    if path.is_file() and path.suffix in SCRIPTS:
        return of_script(path, z_dim, accelerator.device)
    if named := source.data_of(text, data):
        if named.name in ("folder", "array"):
            return source.of_files(replace(named, resolution=resize if named.name == "folder" else None), accelerator)
        return source.of_data(named, accelerator, square=False)
    checkpoint = text.rpartition(":")[2]
    a_run = checkpoint in ("best", "last") or checkpoint.isdecimal()  # but a missing one
    if not a_run and (function := source.of_function(text)):
        return function
    raise UserError(
        f"{text} is not a run, a folder, zip, .npy or .npz of images, a data set, a TorchScript file "
        f"({', '.join(SCRIPTS)}), or a function as module:function"
    )


def of_run(run: GANRun) -> Source:
    """The generator of a run; its name gives the weights, raw or ema. Classes are treated as in `of_files`."""
    inputs, content = run.inputs, hash_of(run.generator)
    draws = partial(draw, run.generator, inputs)
    made = Source(run.weights, draws, run.shape, content, seeded=True, step=run.step)
    if not inputs.names:
        return made
    made = replace(made, labelled=lambda seed, n: inputs.labels(seed, 0, n), drawn=inputs.drawn)
    return source.named_classes(made, inputs.names)


def of_script(file: Path, z_dim: int | None, device: torch.device) -> Source:
    """A generator in a TorchScript file: from latents [N, z_dim], N(0, 1), to images [N, 1 or 3, H, W].

    Images are uint8, or floating point in [-1, 1]. `z_dim` defaults to the network's attribute of that name. Raises
    UserError for other files or images.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # PyTorch recommends torch.export instead
            generator = torch.jit.load(str(file), map_location=device).eval()
    except (RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{file} is not TorchScript ({str(error).partition(chr(10))[0]})") from error
    size = z_dim or getattr(generator, "z_dim", None)
    if size is None:
        raise UserError(f"{file} does not define the number of its latents; set z_dim")

    @torch.no_grad()
    def images(seed: int, start: int, stop: int) -> Tensor:
        made = generator(Inputs(int(size))(seed, start, stop).to(device))
        if made.is_floating_point() and not made.abs().amax() <= 1:
            low, high = made.amin().item(), made.amax().item()
            raise UserError(f"{file} makes images from {low:.3g} to {high:.3g}; they must be in [-1, 1], or uint8")
        return to_uint8(made) if made.is_floating_point() else made

    def draws(seed: int) -> Draw:
        return source.checked_draw(lambda start, stop: images(seed, start, stop), file.name)[0]

    _, shape = source.checked_draw(lambda start, stop: images(0, start, stop), file.name)
    return Source(file.name, draws, shape, hash_of(generator), seeded=True)
