"""Fig. 2: how well saved classifiers predict the mixed target of mixed states.

Test images are mixed in 1,000 pairs, at the input and after the first and the second group of blocks, at eleven values
of lam. The measure is the NLL of the mixed target, for classifiers trained without mixup, with Input Mixup and with
Manifold Mixup. The paper finds Manifold Mixup much better when hidden states are mixed, and very slightly worse at the
input. Its networks were trained on CIFAR-10; these are a proxy, trained by the experiment classifiers_fashion_mnist.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.evaluation.measures import LAMS, interpolated_nll
from classifiers.evaluation.plots import plot_interpolation
from classifiers.studies import Setting, Verdict, decide
from classifiers.studies._saved import DEVICE, finished
from mmgan.data import load
from mmgan.experiments.differences import difference, interval, spread

SEEDS = 3
READS_RUNS = True
ARMS = ("none", "input", "manifold")
LAYERS = (0, 1, 2)
PAIRS = 1000


def units(setting: Setting) -> int:
    """The number of curves."""
    return len(ARMS) * len(LAYERS) * len(setting.seeds)


def run(setting: Setting) -> dict[str, Any]:
    """NLL by arm, seed, layer and lam; raises UserError if `runs` lacks a finished run."""
    curves: dict[str, dict[str, dict[str, list[float]]]] = {arm: {} for arm in ARMS}
    for seed in setting.seeds:
        for arm in ARMS:
            network, config, _ = finished(setting, arm, seed)
            size = 100 if setting.fast else PAIRS
            images, labels = (part[:size] for part in load(replace(config.data, split="test")))
            classes = network(images[:1].to(DEVICE).float() / 255).shape[1]
            curves[arm][str(seed)] = {}
            for layer in LAYERS:
                curve = interpolated_nll(network, images, labels, classes, layer, DEVICE)
                curves[arm][str(seed)][str(layer)] = [round(value, 5) for value in curve]
                setting.progress(f"{arm}, seed {seed}, layer {layer}")
    return {"seeds": list(setting.seeds), "data": config.data.name, "pairs": len(images), "lams": LAMS, "nll": curves}


def verdicts(numbers: dict[str, Any]) -> list[Verdict]:
    """In hidden layers, Manifold Mixup has the lowest NLL; at the input, Input Mixup is below it, but by less."""
    means = {
        arm: {layer: {int(s): float(np.mean(one[str(layer)])) for s, one in curves.items()} for layer in LAYERS}
        for arm, curves in numbers["nll"].items()
    }

    def made(claim: str, arm: dict[int, float], other: dict[int, float], names: str) -> Verdict:
        found = difference(arm, other)
        because = f"{names} {spread(arm)} against {spread(other)}, difference {interval(found)}"
        return Verdict(claim, decide(found), because)

    manifold, visible = means["manifold"], means["input"]
    results = []
    for layer in LAYERS[1:]:
        for other, name in (("input", "Input Mixup"), ("none", "no mixup")):
            claim = f"With mixing at layer {layer}, the NLL of Manifold Mixup is lower than that of {name} (Fig. 2)."
            results.append(made(claim, manifold[layer], means[other][layer], "mean over lam"))
    claim = "With mixing at the input, the NLL of Input Mixup is lower than that of Manifold Mixup (Fig. 2)."
    results.append(made(claim, visible[0], manifold[0], "mean over lam"))
    change = {s: abs(manifold[0][s] - visible[0][s]) for s in visible[0]}
    gain = {s: float(np.mean([visible[k][s] - manifold[k][s] for k in LAYERS[1:]])) for s in visible[0]}
    claim = (
        "Between Input and Manifold Mixup, the NLL changes less with mixing at the input than it falls with mixing in "
        "hidden layers (Fig. 2)."
    )
    results.append(made(claim, change, gain, "change at the input"))
    return results


def plot(numbers: dict[str, Any], path: Path) -> None:
    """Fig. 2."""
    plot_interpolation({arm: list(curves.values()) for arm, curves in numbers["nll"].items()}, path)
