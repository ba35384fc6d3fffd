"""Time scoring against the extractor's forward pass alone.

python benchmarks/scoring.py
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from pathlib import Path

import torch
from accelerate import Accelerator
from timing import measure, report

from classifiers.load import FeatureNetwork
from classifiers.networks import build, moments
from classifiers.networks.preactresnet import PreActResNet
from mmgan.engine import cli
from mmgan.scoring import Extractor, Inception
from mmgan.scoring.scorer import extract


def scoring(
    resolution: int = 32,
    num_samples: int = 512,
    batch_size: int = 64,
    rounds: int = 5,
    inception_weights: bool = False,
    output: Path | None = None,
) -> None:
    """Print the throughput of scoring, FID and IS, over that of the extractor's forward pass alone.

    Args:
        resolution: pixels of an image
        num_samples: images scored
        batch_size: images at once
        rounds: how often every variant is timed, after one round that does not count
        inception_weights: with torch-fidelity's Inception, whose weights are fetched; else with a PreActResNet18
        output: file to keep the numbers in, as JSON; null: none
    """
    torch.manual_seed(0)
    device = (accelerator := Accelerator()).device
    images = torch.randint(256, (num_samples, 3, resolution, resolution), dtype=torch.uint8)
    if inception_weights:
        by = Inception().build()
    else:
        by = Extractor("classifier", FeatureNetwork(build(PreActResNet(width=0.5), 10, *moments(images))), "none")
    by.module.to(device)

    def forward() -> None:
        for part in images.split(batch_size):
            by(part.to(device))

    def scored() -> None:
        extract(by, lambda a, b: images[a:b], num_samples, ("fid", "is"), accelerator, batch_size)

    times = measure({"forward": forward, "scoring": scored}, rounds, device)
    ratios = [times.ratio("images a second, features and moments / forward pass alone", "forward", "scoring")]
    setting = {"extractor": by.name, "resolution": resolution, "num_samples": num_samples}
    report("Scoring", setting | {"batch_size": batch_size, "rounds": rounds}, device, ratios, [], output)


if __name__ == "__main__":
    cli.run(lambda: cli.call(scoring))
