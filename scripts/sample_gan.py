"""Draw images from a trained GAN.

    python scripts/sample_gan.py runs/digits
    python scripts/sample_gan.py runs/digits --num_images 1000 --seed 1 --output images/

Writes grid.png and interpolation.png into RUN/samples, or --output, and with --num_images single PNGs beside them.
Image i depends on the seed and on i alone.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from pathlib import Path
from typing import Literal

import torch
from torchvision.io import encode_png
from tqdm import tqdm

from mmgan.engine import cli, files
from mmgan.errors import UserError
from mmgan.gan.run import load
from mmgan.gan.sample import generate, interpolation, latents, save_grid


def sample(
    run: Path,
    checkpoint: Literal["best", "last"] | int = "last",
    weights: Literal["auto", "raw", "ema"] = "auto",
    seed: int = 0,
    num_images: int = 0,
    output: Path | None = None,
    batch_size: int = 256,
    trust: bool = False,
) -> None:
    """Draw images from a trained GAN: a grid of 100, a latent interpolation and, asked, single images.

    Args:
        run: folder of the run
        checkpoint: last, best (by the scores of the run, if it was told to take them), or the step of one that was kept
        weights: raw, ema (the average), or auto: ema where the run has one
        seed: seed of the latents
        num_images: how many single images to write, as images/000000.png and so on
        output: folder to write to; default: RUN/samples
        batch_size: images made at once
        trust: let the run name classes that are not mmgan's own, which are then imported
    """
    if num_images < 0 or batch_size < 1:
        raise UserError("num_images must be 0 or more and batch_size positive")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    opened = load(run, checkpoint, weights, device, trust)
    folder = output or run / "samples"
    with files.writing(folder):
        (folder / "images" if num_images else folder).mkdir(parents=True, exist_ok=True)
        save_grid(opened.sample(100, seed, batch_size=batch_size), folder / "grid.png", columns=10)
        path = interpolation(latents(seed, 0, 16, opened.config.generator.z_dim), rows=8, columns=12)
        path_images = torch.cat(list(generate(opened.generator, path, batch_size)))
        save_grid(path_images, folder / "interpolation.png", columns=12)
        with tqdm(total=num_images, unit="image", disable=None if num_images else True) as bar:
            for start in range(0, num_images, batch_size):
                images = opened.sample(min(batch_size, num_images - start), seed, start, batch_size)
                for i, image in enumerate(images.cpu(), start):
                    files.write(folder / "images" / f"{i:06d}.png", encode_png(image).numpy().tobytes())
                bar.update(len(images))
    print(f"wrote grid.png, interpolation.png{f' and {num_images} images' if num_images else ''} to {folder}")


if __name__ == "__main__":
    cli.run(lambda: cli.call(sample))
