"""Draw images from a trained GAN.

    python scripts/sample_gan.py runs/digits
    python scripts/sample_gan.py runs/digits --num_images 1000 --seed 1 --output images/
    python scripts/sample_gan.py runs/digits-conditional --classes 3,8

Writes grid.png and interpolation.png into RUN/samples, or --output, and with --num_images single PNGs into images/
there. Image i depends only on the seed and i. For a conditional GAN, the grid has a row per class, the single images
are in a folder per class, and classes.png interpolates from each class to the next.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torchvision.io import encode_png
from tqdm import tqdm

from mmgan.engine import cli, files
from mmgan.errors import UserError
from mmgan.gan.run import load
from mmgan.gan.sample import generate, interpolation, save_grid


def sample(
    run: Path,
    checkpoint: Literal["best", "last"] | int = "last",
    weights: Literal["auto", "raw", "ema"] = "auto",
    seed: int = 0,
    num_images: int = 0,
    classes: str = "",
    output: Path | None = None,
    batch_size: int = 256,
    trust: bool = False,
) -> None:
    """Draw images from a trained GAN: a grid of 100, interpolations and, if requested, single images.

    Args:
        run: folder of the run
        checkpoint: last, best (by the scores of the run, if it computed any), or the step of a kept checkpoint
        weights: raw, ema (the average), or auto: ema if the run has one
        seed: seed of the latents
        num_images: number of single images to write, as images/000000.png and so on
        classes: for a conditional GAN, names of the classes to draw, separated by commas; default: all
        output: folder to write to; default: RUN/samples
        batch_size: images per batch
        trust: allow the run to name classes from outside mmgan, which are then imported
    """
    if num_images < 0 or batch_size < 1:
        raise UserError("num_images must be 0 or more and batch_size positive")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    opened = load(run, checkpoint, weights, device, trust)
    inputs, folder = opened.inputs, output or run / "samples"
    among = [name.strip() for name in classes.strip("[] ").split(",") if name.strip()]
    numbers = torch.tensor(inputs.numbers(among))  # an unknown class is reported before anything is drawn
    if inputs.names and num_images and any((folder / "images").rglob("*.png")):
        raise UserError(f"{folder / 'images'} already has images of other samples; choose another --output")
    with files.writing(folder):
        (folder / "images" if num_images else folder).mkdir(parents=True, exist_ok=True)

        def draw(z: Tensor, name: str, columns: int) -> None:
            save_grid(generate(opened.generator, z, batch_size), folder / name, columns)

        shown = among or inputs.names[:100]
        draw(inputs.rows(seed, 10, shown) if inputs.names else inputs(seed, 0, 100), "grid.png", 10)
        ends = inputs.latents(seed, 0, 16)
        kept = numbers.repeat(8)[:8].repeat_interleave(2) if inputs.names else numbers  # one class per row
        z = inputs.of(ends, kept)
        draw(interpolation(z[0::2], z[1::2], 12, inputs.z_dim), "interpolation.png", 12)
        if len(numbers) > 1:
            some = numbers[:100]
            one = ends[:1].expand(len(some), -1)
            way = interpolation(inputs.of(one, some), inputs.of(one, some.roll(-1)), 12, inputs.z_dim)
            draw(way, "classes.png", 12)
        for name in [inputs.names[number] for number in numbers] if num_images else []:
            (folder / "images" / name).mkdir(exist_ok=True)
        with tqdm(total=num_images, unit="image", disable=None if num_images else True) as bar:
            for start in range(0, num_images, batch_size):
                stop = min(start + batch_size, num_images)
                images = opened.sample(stop - start, seed, start, batch_size, among)
                of = inputs.labels(seed, start, stop, among).tolist() if inputs.names else []
                places = [folder / "images" / inputs.names[label] for label in of] or [folder / "images"] * len(images)
                for i, (place, image) in enumerate(zip(places, images.cpu(), strict=True), start):
                    files.write(place / f"{i:06d}.png", encode_png(image).numpy().tobytes())
                bar.update(len(images))
    written = ["grid.png", "interpolation.png", *(["classes.png"] if len(numbers) > 1 else [])]
    print(f"wrote {', '.join(written)}{f' and {num_images} images' if num_images else ''} to {folder}")
    if inputs.names:
        print(f"rows of grid.png: {', '.join(shown)}")


def main() -> None:
    """Parse and call."""
    cli.call(sample)


if __name__ == "__main__":
    cli.run(main)
