"""Time a classifier's step: against a plain DataLoader loop, with mixup against without, methods against their passes.

python benchmarks/classifier.py --width 0.125
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timing import Ratio, each, measure, operations, report
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from classifiers.attacks.adversarial import AdversarialTraining
from classifiers.config import ClassifierConfig, ClassifierData
from classifiers.methods.mean_teacher import MeanTeacher
from classifiers.methods.mixup_consistency import MixupConsistency
from classifiers.methods.pi_model import PiModel
from classifiers.methods.pseudo_label import PseudoLabel
from classifiers.methods.vat import VAT
from classifiers.networks import build, moments
from classifiers.networks.preactresnet import PreActResNet
from classifiers.updates import Updates
from mmgan.data import Images
from mmgan.engine import cli
from mmgan.engine.accelerator import accelerator_of
from mmgan.mixup import ClassifierMixup

LAYERS = (0, 1, 2, 3)
METHODS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "supervised": ({}, ("both",)),
    "PseudoLabel": ({"ssl": PseudoLabel()}, ("both", "both")),
    "PiModel": ({"ssl": PiModel()}, ("both", "both", "forward")),
    "MeanTeacher": ({"ssl": MeanTeacher()}, ("both", "both", "forward")),
    "MixupConsistency": ({"ssl": MixupConsistency()}, ("both", "both", "forward")),
    "VAT": ({"ssl": VAT()}, ("both", "both", "forward", "input")),
    "PGD, 7 steps": ({"adversarial": AdversarialTraining(eps=0.1, iterations=7)}, ("both", *["input"] * 7)),
}
"""Options, and the passes of a batch that a step cannot do without: forward only, both ways, or back to the input."""


def classifier(
    resolution: int = 28,
    channels: int = 1,
    width: float = 0.125,
    batch_size: int = 100,
    rounds: int = 10,
    output: Path | None = None,
) -> None:
    """Print images per second against a plain loop over a DataLoader with torchvision's transforms, and mixup's cost.

    Args:
        resolution: pixels of an image
        channels: 1 or 3
        width: factor on the channels of PreActResNet18
        batch_size: images per step
        rounds: how often every variant is timed, for 10 steps or one step of a method, after one warm-up round
        output: file to write the numbers to, as JSON; null: none
    """
    setting = {"resolution": resolution, "channels": channels, "width": width}
    setting |= {"batch_size": batch_size, "rounds": rounds}
    torch.manual_seed(0)
    pixels = torch.randint(256, (20 * batch_size, channels, resolution, resolution), dtype=torch.uint8)
    images = Images(pixels, torch.randint(10, (len(pixels),)))
    plain = updates_on(images, width, batch_size, None)
    variants: dict[str, Callable[[], object]] = {"none": partial(steps, plain)}
    for k in LAYERS:
        variants[str(k)] = partial(steps, updates_on(images, width, batch_size, ClassifierMixup(layers=(k,))))
    device = plain.accelerator.device
    passes, counts = each_pass(plain), []
    cost = {kind: operations(one) for kind, one in passes.items()}
    for name, (options, kinds) in METHODS.items():
        method = updates_on(images, width, batch_size, None, **options)
        variants[name] = partial(method.step, 0)
        variants[f"passes of {name}"] = partial(each, [passes[kind] for kind in kinds])
        ratio = operations(partial(method.step, 0)) / sum(cost[kind] for kind in kinds)
        counts.append(Ratio.of_one(f"operations of a step of {name} / of its passes, counted", ratio))
    variants["DataLoader"] = plain_loop(images, plain.config, device)
    times = measure(variants, rounds, device)
    ratios = [times.ratio("images a second here / with a DataLoader", "DataLoader", "none")]
    ratios += [times.ratio(f"step with mixup at layer {k} / without", str(k), "none") for k in LAYERS]
    ratios += [times.ratio(f"step of {name} / its passes", name, f"passes of {name}") for name in METHODS]
    ratios += counts
    notes = [f"{10 * batch_size / statistics.median(times['none']):.0f} images a second"]
    report("A step of PreActResNet18", setting, device, ratios, notes, output)


def updates_on(images: Images, width: float, batch_size: int, mixup: ClassifierMixup | None, **options: Any) -> Updates:
    """Network and optimiser on `images`, which also serve as the unlabelled ones."""
    network = PreActResNet(width=width)
    data = ClassifierData(pad=2)
    config = ClassifierConfig(network=network, mixup=mixup, batch_size=batch_size, data=data, **options)
    torch.manual_seed(0)
    made = build(network, 10, *moments(images.images))
    return Updates(config, made, images, 10, accelerator_of(), images.images if config.ssl else None)


def each_pass(updates: Updates) -> dict[str, Callable[[], object]]:
    """The passes of a batch that methods are made of."""
    network, (x, y) = updates.network, updates.batch(0)

    def loss(images: Tensor) -> Tensor:
        return F.cross_entropy(network(images, start=0), y)

    def forward() -> None:
        with torch.no_grad():
            loss(x)

    def both() -> None:
        loss(x).backward()

    def to_input() -> None:
        images = x.clone().requires_grad_()
        torch.autograd.grad(loss(images), images)

    return {"forward": forward, "both": both, "input": to_input}


def steps(updates: Updates) -> None:
    """Ten updates."""
    for number in range(10):
        updates.step(number)


def plain_loop(images: Images, config: ClassifierConfig, device: torch.device) -> Callable[[], None]:
    """Ten steps as most repositories write them: torchvision's transforms per image, a DataLoader, the same network."""
    mean, std = moments(images.images)
    transform = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.RandomCrop(images.images.shape[-1], padding=config.data.pad),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean.tolist(), std.tolist()),
        ]
    )
    rows = [(transform, image, label) for image, label in zip(images.images, images.labels.tolist(), strict=True)]
    workers = 0 if device.type == "cpu" else 4
    loader = DataLoader(_Transformed(rows), config.batch_size, shuffle=True, num_workers=workers, drop_last=True)
    network = build(config.network, 10, torch.zeros_like(mean), torch.ones_like(std)).to(device)
    sgd = torch.optim.SGD(network.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay)

    def ten_steps() -> None:
        for _, (x, y) in zip(range(10), loader, strict=False):
            loss = F.cross_entropy(network(x.to(device)), y.to(device))
            sgd.zero_grad()
            loss.backward()
            sgd.step()

    return ten_steps


class _Transformed(Dataset[tuple[Tensor, int]]):
    """Images that are transformed one by one, when accessed."""

    def __init__(self, rows: list[tuple[Callable[[Tensor], Tensor], Tensor, int]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        transform, image, label = self.rows[i]
        return transform(image), label


if __name__ == "__main__":
    cli.run(lambda: cli.call(classifier))
