"""Section 2: how often Beta(2, 2) draws a lam that leaves an example almost unchanged.

The paper says: "With alpha = 2.0, about 5% of the time lambda is within 5% of 0 or 1". The probability that a draw from
Beta(alpha, alpha) is within 0.05 of 0 or 1 is computed exactly, and measured in 200,000 draws for each seed with the
sampler that training uses, for every alpha in the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats

from classifiers.studies import Setting, Verdict
from mmgan.engine.randomness import stream
from mmgan.experiments.differences import Found, difference, interval
from mmgan.experiments.figures import LINES, WIDTH, log_scale, save
from mmgan.mixup import ClassifierMixup

SEEDS = 10
READS_RUNS = False
ALPHAS = (0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""From the paper's tables and its search for semi-supervised learning (appendix E)."""
NEAR = 0.05
PAPER = 0.05
"""What the paper says about alpha 2."""


def units(setting: Setting) -> int:
    """One report for each seed and alpha."""
    return len(setting.seeds) * len(ALPHAS)


def run(setting: Setting) -> dict[str, Any]:
    """Probabilities, and fractions of draws, within `NEAR` of 0 or 1, and the distance whose probability is 5 %."""
    draws = 2_000 if setting.fast else 200_000
    rows = torch.arange(draws)
    shares: dict[str, dict[str, float]] = {str(alpha): {} for alpha in ALPHAS}
    for alpha in ALPHAS:
        rule = ClassifierMixup(alpha=alpha, lam_per="pair")
        for seed in setting.seeds:
            lam = rule.plan(rows, rows, stream(seed, "lambda", int(10 * alpha))).lam
            shares[str(alpha)][str(seed)] = (torch.minimum(lam, 1 - lam) < NEAR).double().mean().item()
            setting.progress(f"alpha {alpha}")
    return {
        "near": NEAR,
        "draws": draws,
        "exact": {str(alpha): within(alpha, NEAR) for alpha in ALPHAS},
        "drawn": shares,
        "distance of 5 %": {str(alpha): float(stats.beta.ppf(PAPER / 2, alpha, alpha)) for alpha in ALPHAS},
    }


def within(alpha: float, distance: float) -> float:
    """The probability that a draw from Beta(alpha, alpha) is within `distance` of 0 or 1."""
    return float(2 * stats.beta.cdf(distance, alpha, alpha))


def verdicts(numbers: dict[str, Any]) -> list[Verdict]:
    """Whether alpha 2 gives the paper's 5 %; "about" allows a fifth less or more."""
    exact, near = numbers["exact"]["2.0"], numbers["near"]
    seeds = {int(seed): share for seed, share in numbers["drawn"]["2.0"].items()}
    below = difference(seeds, dict.fromkeys(seeds, 0.8 * PAPER))
    above = difference(seeds, dict.fromkeys(seeds, 1.2 * PAPER))
    off: Found = "undecided"
    if below.high < 0 or above.low > 0:
        off = "the opposite shows"
    elif below.low > 0 and above.high < 0:
        off = "shows"
    drawn = interval(difference(seeds, dict.fromkeys(seeds, 0.0)), 5)
    because = (
        f"the probability is {exact:.2%}, the fraction of draws {drawn}; 5 % are within "
        f"{numbers['distance of 5 %']['2.0']:.3f} of 0 or 1, and {within(2, 2 * near):.2%} are within {2 * near}"
    )
    claim = "With alpha = 2.0, lam is within 5 % of 0 or 1 about 5 % of the time (section 2)."
    return [Verdict(claim, off, because)]


def plot(numbers: dict[str, Any], path: Path) -> None:
    """The probability that lam is within a distance of 0 or 1, one line for each alpha, and the paper's 5 %."""
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    axes = figure.subplots()
    distance = np.linspace(1e-5, 0.15, 600)
    shown = [alpha for alpha in numbers["exact"] if float(alpha) in (0.1, 0.5, 1.0, 2.0, 4.0, 6.0)]
    for alpha, line in zip(shown, LINES, strict=False):
        a = float(alpha)
        axes.plot(distance, 200 * stats.beta.cdf(distance, a, a), linestyle=line, label=f"Beta({a:g}, {a:g})")
        found = [*numbers["drawn"][alpha].values()]
        axes.plot([numbers["near"]] * len(found), 100 * np.array(found), "o", color="black", ms=3, zorder=3)
    axes.plot([], [], "o", color="black", ms=3, label="draws, one dot per seed")
    axes.plot(NEAR, 100 * PAPER, "*", color="black", ms=14, mfc="white", label="the paper, for Beta(2, 2)", zorder=4)
    axes.set(xlabel="distance from 0 or 1", ylabel="lam within that distance (%)", xlim=(0, 0.15), ylim=(0.1, 100))
    log_scale(axes)
    axes.grid(alpha=0.3, which="both")
    save(figure, path)
