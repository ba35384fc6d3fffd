"""Fig. 7: a classifier's two-dimensional representation of images, of classes 0-4 and of all ten.

The claim (appendix B): mixup right after a 2-D bottleneck makes "the representations much tighter" and gives the
classes "a more well separated margin", which training without mixup or with Input Mixup does not. The network is fully
connected with leaky ReLUs and has two hidden layers below the bottleneck and two above it, here of 256 units instead of
the paper's 1,024. Mixup uses alpha 1. Training takes 600 steps with batches of 128 from 10,000 training images. The
authors' code has a batch norm at the bottleneck that the paper does not mention, so both versions are run.

Two measures on 2,000 test images do not depend on the states' scale. `within` is the fraction of the states' variance
that lies within classes (0 if each class is a single point). `margin` is how much closer the median state is to the
centre of its own class than to the nearest other centre, divided by the states' root mean square radius. MNIST is used
if it is found in `data`; otherwise Fashion-MNIST, a proxy whose classes overlap more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor, nn

from classifiers.evaluation.measures import error, nll
from classifiers.studies import Setting, Verdict, by_seed, conjunction, decide, share_within
from classifiers.studies._bottleneck import fit, network
from mmgan.data import DataConfig, Images, load
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.experiments.differences import Found, difference, interval, spread
from mmgan.experiments.figures import WIDTH, save
from mmgan.mixup import ClassifierMixup, Staged

SEEDS = 4
READS_RUNS = False
MIXED = {"none": None, "input": 0, "manifold": 1}
CLASSES = (5, 10)
SHOWN = 400
"""Test images in the picture."""


def units(setting: Setting) -> int:
    """The number of networks to train."""
    return len(setting.seeds) * len(CLASSES) * 2 * len(MIXED)


def images() -> tuple[str, Images, Images]:
    """The name of the data set, its training and its test images."""
    for name in ("mnist", "fashion_mnist"):
        try:
            return name, load(DataConfig(name, split="train")), load(DataConfig(name, split="test"))
        except UserError as error:
            missing = error
    raise missing


def name_of(mixed: str, norm: bool, classes: int) -> str:
    """The name of a cell of the study."""
    return f"{mixed}, {'batch norm' if norm else 'plain'}, {classes} classes"


def cells() -> list[tuple[str, bool, int]]:
    """Mixup, batch norm and number of classes of every cell."""
    return [(mixed, norm, classes) for classes in CLASSES for norm in (False, True) for mixed in MIXED]


def prepare(found: Images, classes: int, number: int, seed: int, purpose: str) -> tuple[Tensor, Tensor]:
    """`number` random images of the first `classes`: float32 [N, pixels] in [0, 1], and their labels."""
    rows = (found.labels < classes).nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=stream(seed, purpose, classes))[:number]]
    return found.images[rows].flatten(1).float() / 255, found.labels[rows]


def train(x: Tensor, labels: Tensor, mixed: str, norm: bool, classes: int, seed: int, steps: int) -> Staged:
    """The network of one cell."""
    end: tuple[nn.Module, ...] = (nn.BatchNorm1d(2),) if norm else ()
    f = network((x.shape[1], 256, 256, 2), (2, 256, 256, classes), seed, False, 0.0, *end)
    layer = MIXED[mixed]
    mixup = None if layer is None else ClassifierMixup(alpha=1.0, layers=(layer,))
    return fit(f, x, F.one_hot(labels, classes).float(), mixup, seed, steps, 128, 1e-3)


@torch.no_grad()
def measure(f: Staged, x: Tensor, labels: Tensor) -> dict[str, float]:
    """All measures of a network, by name."""
    h, logits = f(x, stop=1), f(x)
    return {
        "error": error(logits, labels),
        "NLL": nll(logits, labels),
        "within": share_within(h, labels),
        "margin": margin(h, labels),
    }


def margin(h: Tensor, labels: Tensor) -> float:
    """How much closer the median of states [N, d] is to its class's centre than to another's, divided by their radius.

    A centre is the median of each coordinate, so that outliers change little; the radius is the root mean square
    distance from the mean.
    """
    h = h.double()
    classes, own = labels.unique(return_inverse=True)
    distance = torch.cdist(h, torch.stack([h[labels == c].median(0).values for c in classes]))
    mine = distance.gather(1, own[:, None]).squeeze(1)
    others = distance.scatter(1, own[:, None], torch.inf).amin(1)
    radius = (h - h.mean(0)).square().sum(1).mean().sqrt()
    return ((others - mine).median() / radius).item() if radius > 0 else 0.0


def run(setting: Setting) -> dict[str, Any]:
    """Every measure by cell and seed, and test states of the first seed."""
    steps, size, tested = (20, 500, 200) if setting.fast else (600, 10_000, 2000)
    data, known, unknown = images()
    measures: dict[str, dict[str, dict[str, float]]] = {name_of(*cell): {} for cell in cells()}
    states = {}
    for seed in setting.seeds:
        for mixed, norm, classes in cells():
            cell = name_of(mixed, norm, classes)
            f = train(*prepare(known, classes, size, seed, "train"), mixed, norm, classes, seed, steps)
            x, labels = prepare(unknown, classes, tested, seed, "test")
            measures[cell][str(seed)] = {name: float(f"{value:.6g}") for name, value in measure(f, x, labels).items()}
            if seed == setting.seeds[0]:
                with torch.no_grad():
                    h = f(x[:SHOWN], stop=1).tolist()
                states[cell] = {"h": [[float(f"{v:.4g}") for v in row] for row in h], "labels": labels[:SHOWN].tolist()}
            setting.progress(f"{cell}, seed {seed}")
    settings = {"data": data, "steps": steps, "images": size, "test images": tested}
    return settings | {"measures": measures, "states": states}


def verdicts(numbers: dict[str, Any]) -> list[Verdict]:
    """Tightness and margin against none and input, on both sets of classes, without and with batch norm."""
    found = []
    for norm in (False, True):
        where = "with batch norm at the bottleneck, as in the authors' code" if norm else "as the paper describes it"
        for name, says in (("within", "makes classes tighter"), ("margin", "separates classes by a wider margin")):
            words: list[Found] = []
            parts = []
            for classes in CLASSES:
                of = {mixed: by_seed(numbers["measures"][name_of(mixed, norm, classes)])[name] for mixed in MIXED}
                sign = 1 if name == "within" else -1
                for other in ("none", "input"):
                    signed = [{seed: sign * value for seed, value in of[arm].items()} for arm in ("manifold", other)]
                    words.append(decide(difference(*signed)))
                against = "; ".join(
                    f"minus {other} {interval(difference(of['manifold'], of[other]))}" for other in ("none", "input")
                )
                values = ", ".join(f"{mixed} {spread(of[mixed])}" for mixed in MIXED)
                parts.append(f"{classes} classes: {values}; manifold {against}")
            found.append(
                Verdict(
                    f"Mixup at a 2-D bottleneck {says} than no mixup and Input Mixup do, {where} (Fig. 7).",
                    conjunction(words),
                    f"{name} on {numbers['data']}, " + ". ".join(parts),
                )
            )
    return found


def plot(numbers: dict[str, Any], path: Path) -> None:
    """Test states, one panel per cell; every class has a different shade and mark."""
    figure = Figure(figsize=(WIDTH, 11), layout="constrained")
    panels = figure.subplots(4, 3)
    marks = "os^Dv<>pP*"
    for axes, cell in zip(panels.flat, cells(), strict=True):
        shown = numbers["states"][name_of(*cell)]
        h, labels = np.array(shown["h"]), np.array(shown["labels"])
        for c in range(max(CLASSES)):
            points = h[labels == c]
            axes.plot(*points.T, marks[c], color=shade(c), mec="black", mew=0.3, ms=3.5, ls="", label=f"class {c}")
        found = by_seed(numbers["measures"][name_of(*cell)])
        mixed, norm, classes = cell
        axes.set_title(f"{mixed}\nwithin {spread(found['within'], 2)}\nmargin {spread(found['margin'], 2)}", fontsize=9)
        low, high = np.percentile(h, [1, 99], axis=0) if len(h) else (np.zeros(2), np.ones(2))
        pad = 0.15 * (high - low) + 1e-9
        axes.set(xlim=(low[0] - pad[0], high[0] + pad[0]), ylim=(low[1] - pad[1], high[1] + pad[1]))
        axes.set(xticks=[], yticks=[], xlabel="h1", ylabel="h2")
        if mixed == "none":
            axes.set_ylabel(f"{classes} classes, {'batch norm' if norm else 'plain'}\nh2")
    save(figure, path)


def shade(c: int) -> tuple[float, float, float]:
    """The colour of class `c`: neighbours differ in lightness too."""
    red, green, blue, _ = colormaps["viridis"]((c * 3 % 10) / 9)
    return red, green, blue
