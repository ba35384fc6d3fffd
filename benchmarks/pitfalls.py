"""Measure what changes FID besides the images: file formats, resizing, and the number of images.

python benchmarks/pitfalls.py runs/fashion-classifier
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import io
import statistics
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import mmgan
from classifiers.load import Classifier
from mmgan.data import DataConfig, load
from mmgan.engine import cli
from mmgan.scoring import Extractor


def pitfalls(classifier: Path, root: str = "data", draws: int = 5) -> None:
    """Print FIDs of the test images of Fashion-MNIST at 16x16, each changed in one way, against its training images.

    Args:
        classifier: run of configs/cls/extractor/fashion_mnist.yaml
        root: folder of the data set
        draws: random subsets of each size
    """
    by = Classifier(str(classifier)).build()
    train, test = (load(DataConfig("fashion_mnist", root, split, 16)).images for split in ("train", "test"))
    large = load(DataConfig("fashion_mnist", root, "test")).images
    print(f"as they are           {fid(test, train, by):.3f}")
    for quality in (95, 75, 50):
        print(f"JPEG of quality {quality}    {fid(through_jpeg(test, quality), train, by):.3f}")
    for how in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.NEAREST):
        print(f"resized {how.name.lower():13} {fid(by_pillow(large, how), train, by):.3f}")
    without = F.interpolate(large.float(), (16, 16), mode="bilinear").round().to(torch.uint8)
    print(f"not antialiased       {fid(without, train, by):.3f}")
    generator = torch.Generator().manual_seed(0)
    for n in (100, 500, 1000, 2000, 5000):
        found = [fid(test[torch.randperm(len(test), generator=generator)[:n]], train, by) for _ in range(draws)]
        print(f"{n:5} of them         {statistics.fmean(found):.3f} +- {statistics.stdev(found):.3f}")


def fid(images: Tensor, real: Tensor, by: Extractor) -> float:
    """FID of images, uint8 [N, 1, 16, 16]."""
    scores: dict[str, float] = mmgan.score(images, real, extractor=by, metrics="fid", floor=False)["scores"]
    return scores["fid"]


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Images as they are read from JPEG files."""
    found = []
    for pixels in images[:, 0].numpy():
        Image.fromarray(pixels).save(file := io.BytesIO(), "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(found))[:, None]


def by_pillow(images: Tensor, how: Image.Resampling) -> Tensor:
    """Images resized to 16x16 by one of Pillow's methods."""
    found = [np.asarray(Image.fromarray(pixels).resize((16, 16), how)) for pixels in images[:, 0].numpy()]
    return torch.from_numpy(np.stack(found))[:, None]


if __name__ == "__main__":
    cli.run(lambda: cli.call(pitfalls))
