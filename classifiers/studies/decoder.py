"""Figs. 3 and 4: what a mixed hidden state looks like, by a decoder from the second stage's states to the image.

A small convolutional decoder learns to invert the first two stages of a saved classifier that was trained with Manifold
Mixup; its loss is the squared error in pixels. Pairs of test images of different classes are then interpolated, both in
pixels and in hidden states, which are decoded. The paper looks at such pictures and says that the second kind blends
features rather than pixels, and that none of them shows a third category.

Two things are measured. The first is the distance of decoded interpolations from the blend of the two decoded images,
compared with the decoder's error on test images. The second is how another classifier judges the interpolations, the
one of the same seed trained without mixup: how often it predicts a class that is neither of the two, and how much
probability it gives to such classes. It classifies both images of every pair correctly. Since decoding blurs, pixel
blends that were encoded and decoded are judged as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from classifiers.evaluation.measures import LAMS, predict
from classifiers.networks import Normalise
from classifiers.studies import Setting, Verdict, decide
from classifiers.studies._saved import DEVICE, finished
from mmgan.data import load
from mmgan.engine import files
from mmgan.engine.randomness import batch_rows, stream
from mmgan.experiments.differences import difference, interval, spread
from mmgan.experiments.figures import LINES, WIDTH
from mmgan.mixup import Staged
from mmgan.mixup.plans import interpolate as mix

SEEDS = 3
READS_RUNS = True
LAYER = 2
BATCH, PAIRS, SHOWN = 64, 500, 3
MARGIN = 0.01
STRIDE = 2
"""Every second value of lam is in the picture."""
KINDS = {
    "pixels": "mixed pixels",
    "hidden": "mixed states, decoded",
    "decoded_pixels": "mixed pixels, encoded and decoded",
}


def decoder(states: Tensor, images: Tensor) -> nn.Sequential:
    """From states [N, C, r, r], standardised by channel, to pixels in [0, 1], sized as uint8 `images` [N, c, R, R]."""
    channels, size = states.shape[1], images.shape[2]
    return nn.Sequential(
        Normalise(states.mean((0, 2, 3)), states.std((0, 2, 3))),
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
        *(nn.Upsample((size, size)), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, images.shape[1], 3, padding=1), nn.Sigmoid()),
    )


def units(setting: Setting) -> int:
    """For every seed, one report for ten steps of the decoder and one for the evaluation."""
    return len(setting.seeds) * (_steps(setting.fast) // 10 + 1)


def _steps(fast: bool) -> int:
    return 20 if fast else 800


def train(network: Staged, images: Tensor, seed: int, steps: int, progress: Callable[[int], None]) -> nn.Sequential:
    """A decoder of `network`'s states after LAYER, trained by `steps` of Adam on uint8 `images` [N, C, R, R]."""
    states = predict(network, images, DEVICE, stop=LAYER)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "weights", 0).initial_seed())
        made = decoder(states, images).to(DEVICE)
    optimiser = torch.optim.Adam(made.parameters(), lr=2e-3)
    for step in range(steps):
        rows = batch_rows(seed, step, BATCH, len(images))
        target = images[rows].to(DEVICE).float() / 255
        optimiser.zero_grad()
        F.mse_loss(made(states[rows].to(DEVICE)), target).backward()
        optimiser.step()
        if (step + 1) % 10 == 0:
            progress(step + 1)
    return made.eval()


def pairs(judge: Staged, images: Tensor, labels: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Left and right rows, int64, of up to `n` pairs of images of different classes that the judge gets right."""
    right = (predict(judge, images, DEVICE).argmax(1) == labels).nonzero()[:, 0]
    partner = right[torch.randperm(len(right), generator=stream(0, "pairs", 0))]
    rows = (labels[right] != labels[partner]).nonzero()[:n, 0]
    return right[rows], partner[rows]


@torch.no_grad()
def interpolate(network: Staged, made: nn.Module, x: Tensor, lam: float) -> dict[str, Tensor]:
    """KINDS of images for `x` float32 [2N, C, R, R], where row i mixes with row N + i, and blends of decoded images."""
    n = len(x) // 2
    by = (*torch.arange(2 * n, device=x.device).chunk(2), torch.tensor(lam, device=x.device))
    h, pixels = network(x, stop=LAYER), mix(x, *by)
    found = {"pixels": pixels, "hidden": made(mix(h, *by)), "decoded_pixels": made(network(pixels, stop=LAYER))}
    return found | {"blend": mix(made(h), *by)}


def third(logits: Tensor, left: Tensor, right: Tensor) -> tuple[float, float]:
    """The fraction of rows whose largest logit belongs to neither class, and the mean probability of such classes."""
    predicted, p = logits.argmax(1), logits.softmax(1)
    outside = 1 - p.gather(1, left[:, None]) - p.gather(1, right[:, None])
    return ((predicted != left) & (predicted != right)).double().mean().item(), outside.mean().item()


def run(setting: Setting) -> dict[str, Any]:
    """Errors, distances and the judge's predictions over lam by seed; the first seed's first pairs as pixels."""
    numbers: dict[str, Any] = {"seeds": list(setting.seeds), "lams": LAMS, "by_seed": {}}
    for seed in setting.seeds:
        network, config, rows = finished(setting, "manifold", seed)
        judge, _, _ = finished(setting, "none", seed)
        images, _ = load(config.data)
        size, most = (200, 50) if setting.fast else (2000, PAIRS)
        test, labels = (part[:size] for part in load(replace(config.data, split="test")))
        steps = _steps(setting.fast)
        shown = images[rows[: 200 if setting.fast else None]]
        made = train(network, shown, seed, steps, partial(_report, setting.progress, seed))
        numbers["by_seed"][str(seed)] = found = _measure(network, made, judge, test, labels, most)
        strips = found.pop("shown")
        numbers = {"data": config.data.name, "steps": steps, "shown": strips} | numbers  # of the first seed
        setting.progress(f"seed {seed}, evaluated")
    return numbers


def _report(progress: Callable[[str], None], seed: int, step: int) -> None:
    progress(f"seed {seed}, step {step}")


@torch.no_grad()
def _measure(network: Staged, made: nn.Module, judge: Staged, test: Tensor, labels: Tensor, n: int) -> dict[str, Any]:
    x = test.to(DEVICE).float() / 255
    decoded = torch.cat([made(network(part, stop=LAYER)) for part in x.split(500)])
    left, right = pairs(judge, test, labels, n)
    both, y = x[torch.cat([left, right])], (labels[left].to(DEVICE), labels[right].to(DEVICE))
    found: dict[str, Any] = {"pairs": len(left), "error": F.mse_loss(decoded, x).item(), "distance": []}
    found["apart"] = F.mse_loss(both[: len(left)], both[len(left) :]).item()
    found |= {"third": {kind: [] for kind in KINDS}, "outside": {kind: [] for kind in KINDS}}
    strips: dict[str, list[Any]] = {"pixels": [], "hidden": []}
    for i, lam in enumerate(LAMS):
        mixed = interpolate(network, made, both, lam)
        found["distance"].append(F.mse_loss(mixed["hidden"], mixed["blend"]).item())
        for kind in KINDS:
            share, mass = third(judge(mixed[kind]), *y)
            found["third"][kind].append(share)
            found["outside"][kind].append(round(mass, 5))
        for kind, strip in strips.items() if i % STRIDE == 0 else ():
            strip.append((255 * mixed[kind][:SHOWN].mean(1)).round().int().tolist())
    classes = [part[:SHOWN].tolist() for part in y]
    return found | {"shown": {"left": classes[0], "right": classes[1], **strips}}


def verdicts(numbers: dict[str, Any]) -> list[Verdict]:
    """Decoded interpolations are not pixel blends; they show no third class, or at least less often than blends do."""
    seeds = {int(seed): found for seed, found in numbers["by_seed"].items()}
    half = len(numbers["lams"]) // 2
    error = {s: found["error"] for s, found in seeds.items()}
    distance = {s: found["distance"][half] for s, found in seeds.items()}
    between = {kind: {s: float(np.mean(f["third"][kind][1:-1])) for s, f in seeds.items()} for kind in KINDS}
    ends = {s: float(np.mean([f["third"]["hidden"][0], f["third"]["hidden"][-1]])) for s, f in seeds.items()}
    hidden, found = between["hidden"], difference(error, distance)
    made = [
        Verdict(
            "Decoded interpolations of hidden states are not blends of pixels (section 6, Figs. 3 and 4).",
            decide(found),
            f"the decoder's squared error is {spread(error, 4)}, the squared distance from the blend of decoded images "
            f"at lam 0.5 is {spread(distance, 4)}, the difference {interval(found, 4)}",
        )
    ]
    found = difference(hidden, ends)
    made.append(
        Verdict(
            "No interpolated state between two categories shows a third one (section 6), taken to mean that the judge "
            f"predicts a third class at most {MARGIN:.0%} more often than for decoded states that are not mixed.",
            decide(difference(hidden, {s: share + MARGIN for s, share in ends.items()})),
            f"it predicts a third class for a fraction of {spread(hidden)} at lam 0.1 to 0.9 and of {spread(ends)} at "
            f"0 and 1, difference {interval(found)}",
        )
    )
    for kind, name in (("pixels", "blended pixels"), ("decoded_pixels", "blended pixels sent through the decoder")):
        found = difference(hidden, between[kind])
        made.append(
            Verdict(
                f"Interpolated states show a third category less often than {name} (Figs. 3 and 4).",
                decide(found),
                f"fraction at lam 0.1 to 0.9 {spread(hidden)} against {spread(between[kind])}, difference "
                f"{interval(found)}",
            )
        )
    return made


def plot(numbers: dict[str, Any], path: Path) -> None:
    """Strips of interpolations in pixels (Fig. 3) and in hidden states (Fig. 4); below them the judge's predictions."""
    figure = Figure(figsize=(WIDTH, 12), layout="constrained")
    top, bottom = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.15, 1))[:, 0]
    shown, lams = numbers["shown"], numbers["lams"][::STRIDE]
    panels = top.subplots(2 * len(shown["left"]), len(lams), squeeze=False)
    for row, line in enumerate(panels):
        pair, kind = row // 2, ("pixels", "hidden")[row % 2]
        for lam, images, axes in zip(lams, shown[kind], line, strict=True):
            axes.imshow(images[pair], cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(f"lam {lam:g}", fontsize=10)
        line[0].set_ylabel("pixels" if kind == "pixels" else "hidden\nstates")
        if kind == "pixels":
            line[0].set_xlabel(f"class {shown['right'][pair]}")
            line[-1].set_xlabel(f"class {shown['left'][pair]}")
    upper, lower = bottom.subplots(2, 1)
    for (kind, name), line in zip(KINDS.items(), LINES, strict=False):
        curves = np.array([found["third"][kind] for found in numbers["by_seed"].values()])
        upper.plot(numbers["lams"], 100 * curves.mean(0), linestyle=line, label=name)
        upper.fill_between(numbers["lams"], 100 * curves.min(0), 100 * curves.max(0), alpha=0.15)
    upper.set_ylabel("judged a third class (%)")
    curves = np.array([found["distance"] for found in numbers["by_seed"].values()])
    lower.plot(numbers["lams"], curves.mean(0), "-", color="black", label="from a decoded mix to the blend of decoded")
    lower.fill_between(numbers["lams"], curves.min(0), curves.max(0), color="0.8")
    error = np.mean([found["error"] for found in numbers["by_seed"].values()])
    lower.axhline(error, linestyle="--", color="black", label="the decoder's error")
    lower.set_ylabel("squared distance")
    for axes in (upper, lower):
        axes.legend(fontsize=9, loc="upper center")
        axes.set(xlabel="lam", ylim=(0, 1.4 * axes.get_ylim()[1]))  # room for the legend
        axes.grid(alpha=0.3)
    files.draw(figure, path, dpi=100)
