"""Appendix A, Fig. 5 and Table 4: digits rendered from known factors, and mixup of the factors themselves.

An image shows a glyph, "1" or "7", rotated by an angle. Training angles lie in (-70, -50) or in (50, 80), each half of
the time. The label is the range in tasks A and B, and the glyph in task C. Test angles lie between the two ranges: in
task A (-30, -10) for label 0 and (10, 30) for label 1, in task B (-30, -20) and (-10, 30), in task C (-30, 30) for both
glyphs.

Accuracy and NLL of a small network are measured on 2,000 test images of 28x28 pixels. It is trained for 500 steps of
Adam, with batches of 64 new images: unchanged images, mixes of images (Input Mixup), or images rendered from mixed
angles, with labels mixed in the same way (factor mixup, an ideal Manifold Mixup). There is one lam ~ Beta(1, 1) for
each batch. Glyphs cannot be interpolated, so factor mixup pairs images of the same glyph. The paper does not say what
its digits look like or which network it trained, so this is a proxy of its figures.
"""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Generator, Tensor, nn

from classifiers.evaluation.deform import deform
from classifiers.evaluation.measures import error, nll
from classifiers.studies import Setting, Verdict, decide
from classifiers.supervised import CrossEntropy
from mmgan.engine import files
from mmgan.engine.randomness import stream
from mmgan.experiments.differences import difference, interval, spread
from mmgan.experiments.figures import LINES, WIDTH, log_scale
from mmgan.experiments.published import number, published
from mmgan.mixup import ClassifierMixup, Plans, Staged

SEEDS = 5
READS_RUNS = False
SIZE = 28
GLYPHS = "17"
ARMS = ("none", "input", "factor")
BATCH, TEST = 64, 2000
ANGLES = tuple(range(-90, 91, 5))
"""Degrees at which the networks' probabilities are drawn."""
SHOWN = 5
"""Images of each kind in the picture."""

Ranges = tuple[tuple[float, float], tuple[float, float]]
TRAIN: Ranges = ((-70, -50), (50, 80))


class Task(NamedTuple):
    """What to predict, and the test angles; each range of angles has half of the images."""

    label: Literal["angle", "glyph"]
    test: Ranges


TASKS = {
    "A": Task("angle", ((-30, -10), (10, 30))),
    "B": Task("angle", ((-30, -20), (-10, 30))),
    "C": Task("glyph", ((-30, 30), (-30, 30))),
}


class Factors(NamedTuple):
    """What images are rendered from, and their labels."""

    glyph: Tensor
    """int64 [N]: the first half of the rows has the first of GLYPHS, the second half the second."""
    angle: Tensor
    """Degrees, float32 [N]."""
    y: Tensor
    """float32 [N, 2], one-hot."""


def draw(task: Task, ranges: Ranges, n: int, generator: Generator) -> Factors:
    """`n` (even) rows of factors with angles from `ranges`, on the CPU."""
    glyph = torch.arange(n) * 2 // n
    side = torch.randint(2, (n,), generator=generator)
    low, high = torch.tensor(ranges, dtype=torch.float32)[side].T
    angle = low + (high - low) * torch.rand(n, generator=generator)
    return Factors(glyph, angle, F.one_hot(side if task.label == "angle" else glyph, 2).float())


@cache
def glyphs() -> Tensor:
    """GLYPHS upright, white on black, in DejaVu Sans: float32 [2, 1, 28, 28] in [0, 1]."""
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", SIZE)
    drawn = []
    for glyph in GLYPHS:
        image = Image.new("L", (SIZE, SIZE))
        left, top, right, bottom = font.getbbox(glyph)
        ImageDraw.Draw(image).text(((SIZE - left - right) / 2, (SIZE - top - bottom) / 2), glyph, 255, font)
        drawn.append(torch.from_numpy(np.array(image)))
    return torch.stack(drawn)[:, None].float() / 255


def render(glyph: Tensor, angle: Tensor) -> Tensor:
    """Images of glyphs int64 [N], turned by degrees [N]: float32 [N, 1, 28, 28] in [0, 1]."""
    cos, sin = (f(angle * (math.pi / 180)) for f in (torch.cos, torch.sin))
    maps = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    return deform(glyphs()[glyph], maps)


def batch(arm: str, factors: Factors, generator: Generator) -> tuple[Tensor, Tensor, Plans]:
    """The images and targets that an arm trains on, and the plans by which the network still has to mix them."""
    nothing = Plans(rows=len(factors.y))
    if arm == "none":
        return render(factors.glyph, factors.angle), factors.y, nothing
    blocks = 2 if arm == "factor" else 1  # each half of the batch has one glyph
    plans = ClassifierMixup(alpha=1.0, layers=(0,)).draw(len(factors.y), generator, blocks)
    if arm == "input":
        return render(factors.glyph, factors.angle), factors.y, plans
    angle, y = plans.mix(0, factors.angle, factors.y)
    return render(factors.glyph, angle), y, nothing


def train(task: Task, arm: str, seed: int, steps: int) -> Staged:
    """A small convolutional network after `steps` of Adam; arms of a seed see the same factors in every step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "weights", 0).initial_seed())
        first = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten())
        network = Staged(first, nn.Linear(16 * (SIZE // 4) ** 2, 2))
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    for step in range(steps):
        factors = draw(task, TRAIN, BATCH, stream(seed, "factors", step))
        x, y, plans = batch(arm, factors, stream(seed, "mixup", step))
        optimiser.zero_grad()
        CrossEntropy()(*network(x, plans, y)).backward()
        optimiser.step()
    return network


def units(setting: Setting) -> int:
    """Number of networks to train."""
    return len(TASKS) * len(ARMS) * len(setting.seeds)


@torch.no_grad()
def _probabilities(task: Task, network: Staged) -> list[float]:
    """Means over glyphs for each of ANGLES: of label 1 in tasks A and B, of the correct glyph in task C."""
    angle = torch.tensor(ANGLES, dtype=torch.float32)
    glyph = torch.arange(2).repeat_interleave(len(angle))
    p = network(render(glyph, angle.repeat(2))).softmax(1)
    p = p[:, 1] if task.label == "angle" else p.gather(1, glyph[:, None])[:, 0]
    return [round(value, 4) for value in p.reshape(2, -1).mean(0).tolist()]


def run(setting: Setting) -> dict[str, Any]:
    """Accuracy, NLL and probabilities over angles by task, arm and seed; the first seed's first images of each arm."""
    numbers: dict[str, Any] = {"seeds": list(setting.seeds), "tasks": {}, "images": {}}
    for name, task in TASKS.items():
        numbers["tasks"][name] = {arm: {"accuracy": {}, "nll": {}, "probability": {}} for arm in ARMS}
        for seed in setting.seeds:
            test = draw(task, task.test, TEST, stream(seed, "test", 0))
            x, labels = render(test.glyph, test.angle), test.y.argmax(1)
            for arm in ARMS:
                network = train(task, arm, seed, 20 if setting.fast else 500)
                with torch.no_grad():
                    logits = network(x)
                found = numbers["tasks"][name][arm]
                found["accuracy"][str(seed)] = 1 - error(logits, labels)
                found["nll"][str(seed)] = nll(logits, labels)
                found["probability"][str(seed)] = _probabilities(task, network)
                setting.progress(f"task {name}, {arm}, seed {seed}")
    first = setting.seeds[0]
    for arm in ARMS:
        x, target, plans = batch(
            arm, draw(TASKS["A"], TRAIN, BATCH, stream(first, "factors", 0)), stream(first, "mixup", 0)
        )
        x, y = plans.mix(0, x, target)
        rows = torch.randperm(BATCH, generator=stream(first, "shown", 0))[:SHOWN]
        pixels = (255 * x[rows, 0]).round().int().tolist()
        numbers["images"][arm] = {"pixels": pixels, "target": [round(t, 2) for t in y[rows, 1].tolist()]}
    return numbers


def verdicts(numbers: dict[str, Any]) -> list[Verdict]:
    """Per task: factor mixup above input mixup in accuracy and likelihood, input mixup above none in likelihood."""
    made = []
    for task, arms in numbers["tasks"].items():
        for arm, other, measure, says in (
            ("factor", "input", "accuracy", "mixup of the true factors gives higher accuracy than Input Mixup"),
            ("factor", "input", "nll", "mixup of the true factors gives a lower NLL than Input Mixup"),
            ("input", "none", "nll", "Input Mixup gives a lower NLL than no mixup"),
        ):
            a, b = ({int(seed): v for seed, v in arms[one][measure].items()} for one in (arm, other))
            found = difference(b, a) if measure == "accuracy" else difference(a, b)
            theirs = [paper(task, one, measure) for one in (arm, other)]
            claim = f"Task {task}: {says} (Table 4: {theirs[0]:g} against {theirs[1]:g})."
            name = "NLL" if measure == "nll" else measure
            because = f"{name} {spread(a)} against {spread(b)}, difference {interval(difference(a, b))}"
            made.append(Verdict(claim, decide(found), because))
    return made


def paper(task: str, arm: str, measure: str) -> float:
    """Table 4: the accuracy in %, or the NLL."""
    return number(published()[f"table-4-{task.lower()}-{measure}"].values[arm])


def plot(numbers: dict[str, Any], path: Path) -> None:
    """Fig. 5's images; below them probabilities over angles; below them Table 4, ours and the paper's."""
    figure = Figure(figsize=(WIDTH, 17), layout="constrained")
    rows = figure.subfigures(3, 1, squeeze=False, height_ratios=(4.5, 7, 5.5))[:, 0]
    titles = {"none": "training images", "input": "Input Mixup", "factor": "factor mixup"}
    for block, arm in zip(rows[0].subfigures(3, 1, squeeze=False)[:, 0], ARMS, strict=True):
        block.suptitle(f"{titles[arm]}, task A")
        images = numbers["images"][arm]
        for axes, image, y in zip(block.subplots(1, SHOWN), images["pixels"], images["target"], strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            axes.set_xlabel(f"y = {y:.2g}")
    for axes, (name, arms) in zip(rows[1].subplots(3, 1, sharex=True), numbers["tasks"].items(), strict=True):
        _draw_probabilities(axes, TASKS[name], arms)
        axes.set_title(f"task {name}")
    rows[1].axes[-1].set_xlabel("angle (degrees)")
    handles, labels = rows[1].axes[0].get_legend_handles_labels()
    rows[1].legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    for axes, measure in zip(rows[2].subplots(2, 1), ("accuracy", "nll"), strict=True):
        _draw_table(axes, numbers, measure)
    handles, labels = rows[2].axes[0].get_legend_handles_labels()
    rows[2].legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9)
    files.draw(figure, path, dpi=100)


def _draw_probabilities(axes: Axes, task: Task, arms: dict[str, Any]) -> None:
    for i, (low, high) in enumerate(TRAIN):
        axes.axvspan(low, high, color="0.8", label=None if i else "training angles")
    for i, (low, high) in enumerate(task.test):
        axes.axvspan(low, high, facecolor="none", edgecolor="0.6", hatch="///", label=None if i else "test angles")
    for (arm, found), line in zip(arms.items(), LINES, strict=False):
        curves = np.array(list(found["probability"].values()))
        axes.plot(ANGLES, curves.mean(0), linestyle=line, label=arm)
        axes.fill_between(ANGLES, curves.min(0), curves.max(0), alpha=0.15)
    p = "p(label 1)" if task.label == "angle" else "p(correct glyph)"
    axes.set(ylabel=p, ylim=(-0.03, 1.03), xlim=(-90, 90), xticks=range(-90, 91, 30))


def _draw_table(axes: Axes, numbers: dict[str, Any], measure: str) -> None:
    ticks = [(name, arm) for name in numbers["tasks"] for arm in ARMS]
    scale = 100 if measure == "accuracy" else 1
    for i, (name, arm) in enumerate(ticks):
        values = [scale * v for v in numbers["tasks"][name][arm][measure].values()]
        theirs = paper(name, arm, measure)
        axes.plot([i] * len(values), values, "o", color="tab:blue", fillstyle="none", label=None if i else "one seed")
        axes.plot(i, np.mean(values), "_", color="black", markersize=18, label=None if i else "mean")
        axes.plot(i, theirs, "x", color="tab:red", markersize=8, label=None if i else "the paper")
    axes.set_xticks(range(len(ticks)), [f"{name}\n{arm}" for name, arm in ticks], fontsize=9)
    axes.set_ylabel("test accuracy (%)" if measure == "accuracy" else "test NLL")
    if measure == "nll":
        log_scale(axes)
    axes.set_xlabel("task, mixup")
    axes.grid(alpha=0.3, axis="y")
