"""Discriminator mixup on two-dimensional toys: a ring of 8 and a grid of 25 Gaussians.

The paper has no such experiment. Its appendix G claims, for CIFAR-10, that input mixup is a useful regulariser of the
discriminator, and that mixup in hidden layers is a better one. This study compares no mixup, mixup of the input and
mixup after the discriminator's first hidden layer (Eq. 8-11 with the paper's best alpha, 0.5), by the number of
Gaussians that the generator covers and the fraction of its samples that are good. Both networks are trained for 3,000
steps with batches of 64.

As usual with these toys, a sample is good if it is within three standard deviations of a Gaussian's mean, and a
Gaussian is covered if at least one of 2,500 samples is that close to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor, nn, vmap
from torch.func import functional_call, stack_module_state

from classifiers.studies import Setting, Verdict, decide
from mmgan.engine.randomness import stream
from mmgan.experiments.differences import difference, interval, spread
from mmgan.experiments.figures import WIDTH, save
from mmgan.mixup import DiscriminatorMixup, Plans, Staged, discriminator_loss, generator_loss

SEEDS = 5
READS_RUNS = False
ARMS = {"none": None, "input": DiscriminatorMixup(layers=(0,)), "hidden": DiscriminatorMixup(layers=(1,))}
STD = 0.05
Weights = dict[str, Tensor]
BATCH, HIDDEN, Z = 64, 64, 2
SAMPLES, SHOWN = 2500, 400
SIDE, EXTENT = 41, {"ring": 3.0, "grid": 5.0}
"""Points per side of the landscape's grid, from -EXTENT to EXTENT."""


def centres(target: str) -> Tensor:
    """Means of the Gaussians: 8 on a circle of radius 2, or 25 at -4, -2, ... 4; float32 [K, 2]."""
    if target == "ring":
        angle = torch.arange(8) * (torch.pi / 4)
        return 2 * torch.stack([angle.cos(), angle.sin()], 1)
    line = torch.arange(-4.0, 5.0, 2.0)
    return torch.cartesian_prod(line, line)


def draw(target: str, n: int, generator: Generator) -> Tensor:
    """Points of the mixture, float32 [n, 2]."""
    means = centres(target)
    return means[torch.randint(len(means), (n,), generator=generator)] + STD * torch.randn(n, 2, generator=generator)


def covered(samples: Tensor, target: str) -> tuple[int, float]:
    """The number of Gaussians with a sample [N, 2] within three deviations, and the fraction of such samples."""
    near = torch.cdist(samples, centres(target), compute_mode="donot_use_mm_for_euclid_dist") <= 3 * STD
    return int(near.any(0).sum()), near.any(1).double().mean().item()


def networks(seed: int) -> tuple[nn.Sequential, Staged]:
    """A generator and a discriminator of two hidden layers each; the discriminator's are its layers 1 and 2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "weights", 0).initial_seed())
        generator = nn.Sequential(
            *(nn.Linear(Z, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))
        )
        discriminator = Staged(
            nn.Sequential(nn.Linear(2, HIDDEN), nn.ReLU()),
            nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
            nn.Sequential(nn.Linear(HIDDEN, 1), nn.Flatten(0)),
        )
    return generator, discriminator


def train(
    target: str, mixup: DiscriminatorMixup | None, seeds: Sequence[int], steps: int
) -> list[tuple[nn.Sequential, Staged]]:
    """Both networks of every seed after `steps` of Adam each; a seed's points and z are the same for every `mixup`.

    Seeds are trained side by side in one batched pass, independently of each other.
    """
    nets = [networks(seed) for seed in seeds]
    (G, D), (g, d) = nets[0], (stack_module_state([pair[k] for pair in nets])[0] for k in range(2))
    optimisers = [torch.optim.Adam(weights.values(), 1e-3, betas=(0.5, 0.999), fused=True) for weights in (g, d)]
    drawn = mixup.draw(BATCH) if mixup else Plans(rows=2 * BATCH)  # one layer, all pairs: draws differ only in lam

    def generate(weights: Weights, z: Tensor) -> Tensor:
        return functional_call(G, weights, (z,))

    def plans(lam: Tensor) -> Plans:
        return replace(drawn, plans=tuple(replace(plan, lam=lam) for plan in drawn.plans))

    def discriminator(weights: Weights, real: Tensor, fake: Tensor, lam: Tensor) -> Tensor:
        terms = discriminator_loss(partial(_call, D, weights), real, fake, plans(lam))
        return torch.stack(list(terms.values())).sum()

    def generator(weights: Weights, judge: Weights, real: Tensor, z: Tensor, lam: Tensor) -> Tensor:
        terms = generator_loss(partial(_call, D, judge), generate(weights, z), real, plans(lam))
        return torch.stack(list(terms.values())).sum()

    for step in range(steps):
        draws = [stream(seed, target, step) for seed in seeds]
        real = torch.stack([draw(target, BATCH, one) for one in draws])
        z = torch.stack([torch.randn(2 * BATCH, Z, generator=one) for one in draws])
        lams = [
            torch.stack([mixup.draw(BATCH, one).plans[0].lam if mixup else torch.zeros(()) for one in draws])
            for _ in range(2)
        ]
        with torch.no_grad():
            fake = vmap(generate)(g, z[:, :BATCH])
        optimisers[1].zero_grad()
        vmap(discriminator)(d, real, fake, lams[0]).sum().backward()
        optimisers[1].step()
        judge = {name: weight.detach() for name, weight in d.items()}
        optimisers[0].zero_grad()
        vmap(generator)(g, judge, real, z[:, BATCH:], lams[1]).sum().backward()
        optimisers[0].step()
    for i, pair in enumerate(nets):
        for net, weights in zip(pair, (g, d), strict=True):
            net.load_state_dict({name: weight[i] for name, weight in weights.items()})
    return nets


def _call(network: nn.Module, weights: Weights, *inputs: Any) -> Tensor:
    return functional_call(network, weights, inputs)


def units(setting: Setting) -> int:  # noqa: ARG001
    """One report for each target and arm; seeds are trained side by side."""
    return len(EXTENT) * len(ARMS)


def run(setting: Setting) -> dict[str, Any]:
    """Gaussians covered and fraction of good samples by target, arm and seed; the first seed's samples, landscape."""
    numbers: dict[str, Any] = {"seeds": list(setting.seeds), "steps": 30 if setting.fast else 3000, "targets": {}}
    for target in EXTENT:
        numbers["targets"][target] = {}
        for arm, mixup in ARMS.items():
            nets = train(target, mixup, setting.seeds, numbers["steps"])
            numbers["targets"][target][arm] = _measure(target, dict(zip(setting.seeds, nets, strict=True)))
            setting.progress(f"{target}, {arm}")
    return numbers


@torch.no_grad()
def _measure(target: str, nets: dict[int, tuple[nn.Sequential, Staged]]) -> dict[str, Any]:
    found: dict[str, Any] = {"covered": {}, "quality": {}}
    line = torch.linspace(-EXTENT[target], EXTENT[target], SIDE)
    points = torch.cartesian_prod(line, line).flip(1)  # a row of the landscape is a value of y
    for seed, (G, D) in nets.items():
        samples = G(torch.randn(SAMPLES, Z, generator=stream(seed, "samples", 0)))
        found["covered"][str(seed)], found["quality"][str(seed)] = covered(samples, target)
        if "samples" not in found:
            found["samples"] = [[round(v, 3) for v in point] for point in samples[:SHOWN].tolist()]
            found["landscape"] = [
                [round(v, 3) for v in row] for row in D(points).sigmoid().reshape(SIDE, SIDE).tolist()
            ]
    return found


def verdicts(numbers: dict[str, Any]) -> list[Verdict]:
    """For each target: input mixup against none, hidden against both, in Gaussians covered and in quality."""
    made = []
    for target, arms in numbers["targets"].items():
        for arm, other in (("input", "none"), ("hidden", "input"), ("hidden", "none")):
            for measure, name in (("covered", "covers more Gaussians"), ("quality", "makes more good samples")):
                a, b = ({int(seed): v for seed, v in arms[one][measure].items()} for one in (arm, other))
                found = difference(a, b)
                beside = "no mixup" if other == "none" else "input mixup"
                claim = f"On the {target}, {arm} mixup {name} than {beside} (appendix G, for CIFAR-10)."
                because = f"{spread(a)} against {spread(b)}, difference {interval(found)}, {found.n} seeds"
                made.append(Verdict(claim, decide(difference(b, a)), because))
    return made


def plot(numbers: dict[str, Any], path: Path) -> None:
    """For each target, samples of each arm on the discriminator's landscape; below them, the measures of all seeds."""
    figure = Figure(figsize=(WIDTH, 10), layout="constrained")
    parts = figure.subfigures(len(numbers["targets"]), 1, squeeze=False)[:, 0]
    for part, (target, arms) in zip(parts, numbers["targets"].items(), strict=True):
        upper, lower = part.subfigures(2, 1, height_ratios=(1, 1.1))
        extent, means = EXTENT[target], centres(target)
        panels = upper.subplots(1, len(ARMS))
        for axes, arm in zip(panels, ARMS, strict=True):
            span = (-extent, extent, -extent, extent)
            landscape = arms[arm]["landscape"]
            image = axes.imshow(
                landscape, "Greys_r", origin="lower", extent=span, vmin=0, vmax=1, interpolation="bilinear"
            )
            axes.scatter(*means.T, s=40, facecolors="none", edgecolors="white", linewidths=2.5)
            axes.scatter(*means.T, s=40, facecolors="none", edgecolors="black", linewidths=1, label="Gaussians")
            x, y = np.array(arms[arm]["samples"]).T
            axes.plot(x, y, ".", color="tab:orange", markeredgecolor="black", markeredgewidth=0.3, label="samples")
            axes.set(xlim=span[:2], ylim=span[2:], xticks=[], yticks=[], title=f"{target}, {arm}")
        upper.colorbar(image, ax=panels, label="p(real)", shrink=0.9)
        for axes, measure in zip(lower.subplots(1, 2), ("covered", "quality"), strict=True):
            for i, arm in enumerate(ARMS):
                values = list(arms[arm][measure].values())
                axes.plot([i] * len(values), values, "o", fillstyle="none", color="tab:blue", label="one seed")
                axes.plot(i, np.mean(values), "_", color="black", markersize=18, label="mean")
            axes.set_xticks(range(len(ARMS)), ARMS)
            axes.set(xlabel="mixup", ylabel="Gaussians covered" if measure == "covered" else "fraction of good samples")
            axes.set(xlim=(-0.5, len(ARMS) - 0.5), ylim=(0, 1.05 * (len(means) if measure == "covered" else 1)))
            axes.grid(alpha=0.3, axis="y")
    save(figure, path)
