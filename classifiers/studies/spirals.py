"""Figs. 1 and 6: two spirals through a 2-D bottleneck, with seven regularisers.

The claims are that Input Mixup underfits, because a mix of two points on one spiral may lie on the other, while
Manifold Mixup fits the data perfectly; that Manifold Mixup is confident on real points and less confident elsewhere;
that no other regulariser achieves this; and that it concentrates each class in a tight region.

The data are two spirals with 512 points. The network has nine fully connected layers with 64 units, except for the
fifth, the bottleneck, with two. It is trained for 2,000 steps of Adam with a learning rate of 0.002 and batches of 128.
Mixup uses alpha 1, in the input or at the bottleneck. The other regularisers are L2 with weight 0.001, dropout of 0.5
except at the bottleneck, batch norm everywhere, and noise with standard deviation 0.5 at the bottleneck. These settings
are ours, since the paper states only the layers; the other regularisers were not tuned.

As in the figures, accuracy, NLL and mean confidence are measured on the training points, and confidence also on points
drawn uniformly from x-space, most of which lie off the data. A network that is never confident is not confident off the
data either, and Input Mixup comes close to that; so what counts is the gap between the two confidences. `within` is the
fraction of the states' variance that lies within classes, which does not depend on their scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from classifiers.studies import Setting, Verdict, by_seed, conjunction, decide, share_within
from classifiers.studies._bottleneck import Noise, fit, network
from mmgan.engine.randomness import stream
from mmgan.experiments.differences import Found, difference, interval, spread
from mmgan.experiments.figures import WIDTH, save
from mmgan.mixup import ClassifierMixup, Staged

SEEDS = 5
READS_RUNS = False
ARMS = ("baseline", "input mixup", "manifold mixup", "weight decay", "dropout", "batch norm", "noise")
POINTS = 512
SIDE = 1.2
"""x-space is [-SIDE, SIDE] squared."""
GRID = 48


def units(setting: Setting) -> int:
    """The number of networks to train."""
    return len(setting.seeds) * len(ARMS)


def spirals(seed: int) -> tuple[Tensor, Tensor]:
    """Two spirals of 1.5 turns, starting half a turn apart, in the unit circle: float32 [N, 2], labels int64 [N]."""
    generator = stream(seed, "spirals", 0)
    along = torch.rand(POINTS, generator=generator).sqrt()
    labels = torch.arange(POINTS) % 2
    angle = 3 * torch.pi * along + torch.pi * labels
    x = along[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    return x + 0.02 * torch.randn(POINTS, 2, generator=generator), labels


def train(arm: str, seed: int, steps: int) -> Staged:
    """The network of one arm, trained on the spirals of `seed`."""
    x, labels = spirals(seed)
    end: tuple[nn.Module, ...] = {"batch norm": (nn.BatchNorm1d(2),), "noise": (Noise(0.5),)}.get(arm, ())
    dropout = 0.5 if arm == "dropout" else 0.0
    f = network((2, 64, 64, 64, 64, 2), (2, 64, 64, 64, 2), seed, arm == "batch norm", dropout, *end)
    layer = {"input mixup": 0, "manifold mixup": 1}.get(arm)
    mixup = None if layer is None else ClassifierMixup(alpha=1.0, layers=(layer,))
    decay = 1e-3 if arm == "weight decay" else 0.0
    return fit(f, x, F.one_hot(labels, 2).float(), mixup, seed, steps, 128, 2e-3, decay)


def uniform(seed: int) -> Tensor:
    """Points uniform in x-space: float32 [1000, 2]."""
    return (2 * torch.rand(1000, 2, generator=stream(seed, "uniform", 0)) - 1) * SIDE


@torch.no_grad()
def measure(f: Staged, seed: int) -> dict[str, float]:
    """All measures of a network, by name."""
    x, labels = spirals(seed)
    logits = f(x)
    confidence = logits.softmax(1).amax(1).mean().item()
    off = f(uniform(seed)).softmax(1).amax(1).mean().item()
    return {
        "accuracy": (logits.argmax(1) == labels).double().mean().item(),
        "NLL": F.cross_entropy(logits, labels).item(),
        "real confidence": confidence,
        "off-data confidence": off,
        "gap": confidence - off,
        "within": share_within(f(x, stop=1), labels),
    }


@torch.no_grad()
def picture(f: Staged, seed: int) -> dict[str, Any]:
    """P(second class) over grids of x-space and the bottleneck, in percent and row by row, and the points' states."""
    x, labels = spirals(seed)
    states, off = f(x, stop=1), f(uniform(seed)[:300], stop=1)
    low, high = torch.cat([states, off]).aminmax(dim=0)
    low, high = low - 0.08 * (high - low), high + 0.08 * (high - low)

    def percent(low: Tensor, high: Tensor, start: int) -> list[list[int]]:
        axes = [torch.linspace(a, b, GRID) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
        points = torch.cartesian_prod(*axes)
        p = f(points, start=start).softmax(1)[:, 1].reshape(GRID, GRID).T
        return (100 * p).round().int().tolist()

    side = torch.tensor([SIDE, SIDE])
    return {
        "x": [[round(v, 3) for v in row] for row in x.tolist()],
        "labels": labels.tolist(),
        "states": [[float(f"{v:.4g}") for v in row] for row in states.tolist()],
        "off": [[float(f"{v:.4g}") for v in row] for row in off.tolist()],
        "x grid": percent(-side, side, 0),
        "h grid": percent(low, high, 1),
        "h range": [float(f"{v:.4g}") for v in (low[0], high[0], low[1], high[1])],
    }


def run(setting: Setting) -> dict[str, Any]:
    """Every measure by arm and seed, and the picture of the first seed."""
    steps = 50 if setting.fast else 2000
    measures: dict[str, dict[str, dict[str, float]]] = {arm: {} for arm in ARMS}
    pictures = {}
    for seed in setting.seeds:
        for arm in ARMS:
            f = train(arm, seed, steps)
            measures[arm][str(seed)] = {name: float(f"{value:.6g}") for name, value in measure(f, seed).items()}
            if seed == setting.seeds[0]:
                pictures[arm] = picture(f, seed)
            setting.progress(f"{arm}, seed {seed}")
    return {"steps": steps, "measures": measures, "pictures": pictures}


def verdicts(numbers: dict[str, Any]) -> list[Verdict]:
    """Fit, confidence off the data, the other regularisers, concentration."""
    of = {arm: by_seed(numbers["measures"][arm]) for arm in ARMS}
    ours, base, mixed = of["manifold mixup"], of["baseline"], of["input mixup"]
    nll = difference(ours["NLL"], mixed["NLL"])
    perfect = min(ours["accuracy"].values()) == 1
    fits: Found = decide(nll) if perfect or decide(nll) != "shows" else "undecided"
    gaps = {arm: difference(of[arm]["gap"], ours["gap"]) for arm in ARMS if arm != "manifold mixup"}
    words = {arm: decide(gaps[arm]) for arm in ARMS[3:]}
    ratios = {arm: {seed: float(np.log10(v)) for seed, v in of[arm]["within"].items()} for arm in ARMS[:3]}
    tight = difference(ratios["manifold mixup"], ratios["baseline"])
    return [
        Verdict(
            "Input Mixup underfits where Manifold Mixup fits the training data perfectly (Fig. 1b, c).",
            fits,
            f"training accuracy {spread(mixed['accuracy'])} and {spread(ours['accuracy'])} (baseline "
            f"{spread(base['accuracy'])}), training NLL {spread(mixed['NLL'])} and {spread(ours['NLL'])} (baseline "
            f"{spread(base['NLL'])}); NLL of manifold minus input {interval(nll)}",
        ),
        Verdict(
            "Manifold Mixup is less confident than the baseline on points off the data and stays confident on real "
            "ones (Fig. 1d, f).",
            decide(gaps["baseline"]),
            f"confidence on real points minus that off the data {spread(ours['gap'])}, baseline {spread(base['gap'])}, "
            f"input {spread(mixed['gap'])}; baseline minus manifold {interval(gaps['baseline'])}",
        ),
        Verdict(
            "Weight decay, dropout, batch norm and noise do not do that (Fig. 6).",
            conjunction([*words.values()]),
            "gap minus that of Manifold Mixup: " + ", ".join(f"{arm} {interval(gaps[arm])}" for arm in words),
        ),
        Verdict(
            "Manifold Mixup concentrates the points of a class in a tight region of the hidden space (Fig. 1f).",
            decide(tight),
            "log10 of the fraction of the states' variance that lies within classes: "
            + ", ".join(f"{arm} {spread(values, 2)}" for arm, values in ratios.items())
            + f"; manifold minus baseline {interval(tight, 2)}",
        ),
    ]


def plot(numbers: dict[str, Any], path: Path) -> None:
    """Two panels for each arm: P(class) over x-space, and over the bottleneck with its states."""
    figure = Figure(figsize=(WIDTH, 15.5), layout="constrained")
    panels = figure.subplots(len(ARMS), 2)
    shades = LinearSegmentedColormap.from_list("", ["#4f81bd", "#b4bec0", "#fff2a8"], N=10)  # lightness rises
    marks = [("o", "white", "class 0"), ("^", "#7a0019", "class 1")]
    for i, (arm, shown) in enumerate(numbers["pictures"].items()):
        left, right = panels[i]
        labels, h = np.array(shown["labels"]), shown["h range"]
        side = [-SIDE, SIDE, -SIDE, SIDE]
        for axes, points, grid, extent in ((left, "x", "x grid", side), (right, "states", "h grid", h)):
            axes.imshow(
                shown[grid],
                shades,
                origin="lower",
                extent=extent,
                vmin=0,
                vmax=100,
                aspect="auto",
                interpolation="nearest",
            )
            low, high, bottom, top = extent
            places = np.linspace(low, high, GRID), np.linspace(bottom, top, GRID)
            axes.contour(*places, shown[grid], [50], colors="k")
            if points == "states":
                axes.plot(*np.array(shown["off"]).T, ".", color="black", ms=2.5)
            for c, (mark, color, _) in enumerate(marks):
                chosen = np.array(shown[points])[labels == c]
                axes.plot(*chosen.T, mark, mfc=color, mec="black", mew=0.4, ms=3.2, ls="")
        found = by_seed(numbers["measures"][arm])
        left.set(xlabel="x1", ylabel="x2")
        right.set(xlabel="h1", ylabel="h2")
        left.set_title(f"{arm}\ntraining NLL {spread(found['NLL'], 2)}", fontsize=10)
        right.set_title(f"{arm}\ngap {spread(found['gap'], 2)}", fontsize=10)
    for mark, color, name in marks:
        panels[0, 0].plot([], [], mark, mfc=color, mec="black", mew=0.4, label=f"training points, {name}")
    panels[0, 0].plot([], [], ".", color="black", label="uniform in x-space")
    panels[0, 0].plot([], [], "-", color="black", label="decision boundary")
    shown = panels[0, 0].images[0]
    figure.colorbar(shown, ax=panels, location="bottom", aspect=40, shrink=0.8, label="P(class 1), %")
    save(figure, path)
