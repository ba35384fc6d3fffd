"""Time scoring against the extractor's forward pass alone.

python benchmarks/scoring.py
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from timing import measure, report

from classifiers.load import FeatureNetwork
from classifiers.networks import build, moments
from classifiers.networks.preactresnet import PreActResNet
from mmgan.data import DataConfig
from mmgan.engine import cli
from mmgan.engine.accelerator import accelerator_of
from mmgan.gan.inputs import Inputs
from mmgan.gan.networks.resnet import ResNetGenerator
from mmgan.gan.sources import draw
from mmgan.scoring import Extractor, Inception, Protocol, Scorer
from mmgan.scoring.scorer import extract
from mmgan.scoring.source import reference_of


def scoring(
    resolution: int = 32,
    num_samples: int = 512,
    batch_size: int = 64,
    rounds: int = 5,
    inception_weights: bool = False,
    output: Path | None = None,
) -> None:
    """Print the throughput of scoring, FID and IS, over the throughput of the networks' forward passes alone.

    First for existing images; then end to end, for the generator of configs/gan/digits.yaml against the digits, whose
    statistics are known.

    Args:
        resolution: pixels of an image
        num_samples: number of images to score
        batch_size: images per batch
        rounds: how often every variant is timed, after one warm-up round
        inception_weights: use torch-fidelity's Inception, whose weights are downloaded, not a PreActResNet18
        output: file to write the numbers to, as JSON; null: none
    """
    torch.manual_seed(0)
    device = (accelerator := accelerator_of()).device
    images = torch.randint(256, (num_samples, 3, resolution, resolution), dtype=torch.uint8)
    by = Inception().build() if inception_weights else classifier(images)
    by.module.to(device)
    of_digits = by if inception_weights else classifier(images[:, :1])
    generator = ResNetGenerator(width=64, z_dim=32).build(8, 1).to(device)
    made = draw(generator, Inputs(32), seed=0)
    protocol = Protocol(num_samples, "train")
    real = reference_of(DataConfig("digits"), protocol, accelerator)
    scorer = Scorer(of_digits, real, protocol, accelerator, batch_size)

    def forward() -> None:
        for part in images.split(batch_size):
            by(part.to(device))

    def scored() -> None:
        extract(by, lambda a, b: images[a:b], num_samples, ("fid", "is"), accelerator, batch_size)

    def passes() -> None:
        for start in range(0, num_samples, batch_size):
            of_digits(made(start, min(start + batch_size, num_samples)))

    variants: dict[str, Callable[[], object]] = {
        "forward": forward,
        "scoring": scored,
        "passes": passes,
        "score": partial(scorer.score, made),
    }
    times = measure(variants, rounds, device)
    ratios = [times.ratio("images a second, features and moments / forward pass alone", "forward", "scoring")]
    ratios.append(times.ratio("samples a second, FID and IS of a generator / both networks' passes", "passes", "score"))
    setting = {"extractor": by.name, "resolution": resolution, "num_samples": num_samples}
    report("Scoring", setting | {"batch_size": batch_size, "rounds": rounds}, device, ratios, [], output)


def classifier(images: torch.Tensor) -> Extractor:
    """A classifier of `images` as an extractor, with random weights."""
    network = build(PreActResNet(width=0.5), 10, *moments(images))
    return Extractor("classifier", FeatureNetwork(network), "none")


if __name__ == "__main__":
    cli.run(lambda: cli.call(scoring))
