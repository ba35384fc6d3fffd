"""Section 3: when the mixup loss can be zero, with a linear output map and without.

Theorem 1: with a linear output map f and the squared loss, Eq. 4 can reach zero if dim H >= d - 1, where d is the
number of classes. Corollary 1: the states of a class may then still differ in dim H - d + 1 directions. The abstract
says that "the exact condition" is that dim H exceeds d. The theorem allows any representation (the lower network can
compute anything), so here the states themselves are the variables, one for each data point, and Eq. 4, with uniform
lam, is minimised over the states and f.

Linear f. With residuals r_i = A'h_i + b - y_i, the residual of a mix is lam r_i + (1 - lam) r_j. So f is right on
every mix if and only if it is right on every point, which needs d points in general position: an affine space of
d - 1 dimensions. With fewer dimensions, the best f captures dim H of the d - 1 equal singular values of the centred
one-hot targets. For n points the loss is then (d - 1 - dim H) / d times (2/3 - 1 / (3 (n - 1))), which the lines in
the picture's first panel show. The loss is minimised exactly, over all pairs and with lam integrated out, by L-BFGS in
double precision.

Nonlinear f. It can bend between points, so states need not be in general position. But it has one value at each point,
so a loss of zero needs segments between the classes' points that do not cross. In three dimensions, d points on a
curve have this property for any d; in the plane, K4 can be drawn without crossings and K5 cannot; on a line, only two
classes work. A crossing in the plane costs only as much as f is smooth there, because a mix lies on it with
probability 0; overlap on a line always costs something. One point for each class is enough: the loss with several
points is at least the mean loss over all choices of one point for each class. The map is a network with two hidden
layers, trained by Adam from several starts; the smallest loss counts.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from classifiers.studies import Setting, Verdict
from mmgan.engine import files
from mmgan.engine.randomness import stream
from mmgan.experiments.differences import Found
from mmgan.experiments.figures import LINES, WIDTH, log_scale
from mmgan.mixup import Plan

SEEDS = 3
READS_RUNS = False
DIMENSIONS, CLASSES = range(1, 13), (2, 3, 4, 5, 6, 8, 10)
FREE_DIMENSIONS, FREE_CLASSES = (1, 2, 3), (3, 4, 5, 6)
STARTS, HIDDEN, NODES = 6, 48, 13
ZERO = 1e-10
"""A loss below this counts as zero, with L-BFGS."""
SMALL = 0.05
"""A nonlinear map beats all linear ones if its loss is below this fraction of their smallest."""


def units(setting: Setting) -> int:
    """The number of problems to solve."""
    return len(setting.seeds) * (len(_linear(setting.fast)) + len(_free(setting.fast)))


def _linear(fast: bool) -> list[tuple[int, int]]:
    return [(h, d) for d in CLASSES for h in DIMENSIONS if not fast or (d in (3, 5) and h < 6)]


def _free(fast: bool) -> list[tuple[int, int]]:
    return [(h, d) for d in FREE_CLASSES for h in FREE_DIMENSIONS if not fast or d in (4, 5)]


def floor(dimension: int, classes: int, rows: int) -> float:
    """The smallest value of Eq. 4 over states and linear maps f, for `rows` states, equally many in each class.

    Mean |r|^2 is (d - 1 - H) / d. It is multiplied by E lam^2 + E (1 - lam)^2 = 2/3, less the part of
    2 E lam (1 - lam) = 1/3 that pairs of different rows contribute when the residuals sum to zero.
    """
    return max(0, classes - 1 - dimension) / classes * (2 / 3 - 1 / 3 / (rows - 1))


def mixes(rows: int, nodes: int) -> tuple[Plan, Tensor]:
    """All ordered pairs of different rows at Gauss nodes of lam in (0, 1), and the weight of each; weights sum to 1."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    left, right = torch.cartesian_prod(torch.arange(rows), torch.arange(rows)).T
    different = left != right
    left, right = left[different].repeat(nodes), right[different].repeat(nodes)
    pairs = rows * (rows - 1)
    lam = torch.tensor((1 + places) / 2).repeat_interleave(pairs)
    return Plan(0, left, right, lam), torch.tensor(weights / 2).repeat_interleave(pairs) / pairs


def solve(dimension: int, classes: int, seed: int) -> dict[str, Any]:
    """The smallest value of Eq. 4 for a linear f, found from random states, and the directions within each class."""
    each = max(3, dimension - classes + 3)
    labels = torch.arange(classes).repeat_interleave(each)
    y = torch.eye(classes, dtype=torch.float64)[labels]
    plan, weight = mixes(len(labels), 2)  # two nodes integrate a square exactly
    generator = stream(seed, f"theorem/{dimension}", classes)
    h = torch.randn(len(labels), dimension, dtype=torch.float64, generator=generator).requires_grad_()
    lbfgs = torch.optim.LBFGS(
        [h], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )
    targets = plan.mix_states(y)

    def loss() -> Tensor:
        z = F.pad(plan.mix_states(h), (0, 1), value=1)
        ab = torch.linalg.lstsq(z.detach(), targets).solution  # weights are equal; at the best f its gradient is 0
        return weight @ (z @ ab - targets).square().sum(1)

    def closure() -> float:
        lbfgs.zero_grad()
        value = loss()
        value.backward()
        return value.item()

    lbfgs.step(closure)
    with torch.no_grad():
        means = torch.stack([h[labels == c].mean(0) for c in range(classes)])
        ranks = [int(_rank(h[labels == c] - means[c])) for c in range(classes)]
        return {"loss": float(f"{loss().item():.7g}"), "rank": ranks, "floor": floor(dimension, classes, len(labels))}


def _rank(deviations: Tensor) -> int:
    """The number of singular values above a thousandth; states start as N(0, 1)."""
    return int((torch.linalg.svdvals(deviations) > 1e-3).sum())


def solve_free(dimension: int, classes: int, seed: int, steps: int) -> dict[str, Any]:
    """The smallest value of Eq. 4 for a nonlinear f over `STARTS` starts, and its states, one for each class."""
    plan, weight = mixes(classes, NODES)
    plan, weight = replace(plan, lam=plan.lam.float()), weight.float()
    targets = plan.mix_states(torch.eye(classes))[:, None]
    generator = stream(seed, f"free/{dimension}", classes)
    h = torch.randn(classes, STARTS, dimension, generator=generator).requires_grad_()
    sizes = (dimension, HIDDEN, HIDDEN, classes)
    layers = [
        (
            (torch.randn(STARTS, n, m, generator=generator) * (2 / n) ** 0.5).requires_grad_(),
            torch.zeros(STARTS, 1, m).requires_grad_(),
        )
        for n, m in pairwise(sizes)
    ]
    adam = torch.optim.Adam([h, *(tensor for layer in layers for tensor in layer)], 5e-3, fused=True)

    def losses() -> Tensor:
        z = plan.mix_states(h).transpose(0, 1)
        for w, b in layers[:-1]:
            z = torch.tanh(torch.baddbmm(b, z, w))
        w, b = layers[-1]
        return ((torch.baddbmm(b, z, w).transpose(0, 1) - targets).square().sum(2) * weight[:, None]).sum(0)

    for step in range(steps):
        adam.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        adam.zero_grad()
        losses().sum().backward()
        adam.step()
    with torch.no_grad():
        found = losses()
        states = h[:, found.argmin()]
    return {
        "loss": float(f"{found.min().item():.4g}"),
        "floor": floor(dimension, classes, classes),
        "crossings": crossings(states.tolist()) if dimension == 2 else None,
        "states": [[round(v, 3) for v in state] for state in states.tolist()],
    }


def crossings(points: list[list[float]]) -> int:
    """The number of pairs of segments, between points of the plane, that cross."""

    def side(a: list[float], b: list[float], c: list[float]) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    found = 0
    for (a, b), (c, d) in combinations(combinations(range(len(points)), 2), 2):
        if len({a, b, c, d}) == 4:
            p, q, r, s = points[a], points[b], points[c], points[d]
            found += side(p, q, r) * side(p, q, s) < 0 and side(r, s, p) * side(r, s, q) < 0
    return found


def run(setting: Setting) -> dict[str, Any]:
    """The smallest losses, by dimension, classes and seed, for a linear and a nonlinear f."""
    linear, free = [], []
    for dimension, classes in _linear(setting.fast):
        for seed in setting.seeds:
            linear.append({"H": dimension, "d": classes, "seed": seed} | solve(dimension, classes, seed))
            setting.progress(f"linear, dim H {dimension}, d {classes}")
    for dimension, classes in _free(setting.fast):
        for seed in setting.seeds:
            found = solve_free(dimension, classes, seed, 100 if setting.fast else 3000)
            free.append({"H": dimension, "d": classes, "seed": seed} | found)
            setting.progress(f"nonlinear, dim H {dimension}, d {classes}")
    return {"linear": linear, "free": free}


def verdicts(numbers: dict[str, Any]) -> list[Verdict]:
    """Theorem 1, Corollary 1, the abstract's exact condition, and whether a nonlinear f needs it."""
    linear, free = numbers["linear"], numbers["free"]
    wide = [row for row in linear if row["H"] >= row["d"] - 1]
    narrow = [row for row in linear if row["H"] < row["d"] - 1]
    reached = sum(row["loss"] < ZERO for row in wide)
    off = max((abs(row["loss"] / row["floor"] - 1) for row in narrow), default=0.0)
    least = min((row["loss"] for row in narrow), default=float("nan"))
    zero: Found = "shows" if reached == len(wide) and least > ZERO else "the opposite shows"
    spare = [row for row in wide if row["H"] >= row["d"]]
    right = sum(set(row["rank"]) == {row["H"] - row["d"] + 1} for row in wide)
    ranks: Found = "shows" if right == len(wide) else "the opposite shows"
    small = [row for row in wide if row["H"] <= row["d"]]
    enough = sum(row["loss"] < ZERO for row in small)
    exact: Found = "the opposite shows" if enough else "shows"
    best = least_losses(free)
    beaten = [
        f"dim H = {h}, d = {d} ({best[h, d][0]:.2g} instead of {best[h, d][1]:.2g})"
        for h, d in best
        if _beaten(*best[h, d])
    ]
    bound: Found = "the opposite shows" if beaten else "shows"
    planes = {d: [row for row in free if (row["H"], row["d"]) == (2, d)] for h, d in best if h == 2}
    layouts = {d: min(rows, key=lambda row: row["loss"])["crossings"] for d, rows in planes.items()}
    line = ", ".join(f"d = {d}: {best[1, d][0]:.2g}" for h, d in best if h == 1)
    return [
        Verdict(
            "With a linear output and the squared loss, the mixup loss reaches zero if and only if dim H >= d - 1 "
            "(Theorem 1).",
            zero,
            f"it is zero (< {ZERO:g}) in {reached} of the {len(wide)} problems with dim H >= d - 1; in the "
            f"{len(narrow)} others it is at least {least:.2g}, and its relative distance from the closed form is at "
            f"most {off:.1g}",
        ),
        Verdict(
            "The states of a class then spread over dim H - d + 1 dimensions, none if dim H = d - 1 (Corollary 1).",
            ranks,
            f"that is the number in every class of {right} of the {len(wide)} problems with dim H >= d - 1, of which "
            f"{len(spare)} have dim H >= d",
        ),
        Verdict(
            "The exact condition is that the dimension of the hidden states exceeds the number of classes (abstract).",
            exact,
            f"the loss is zero in {enough} of the {len(small)} problems with dim H of d - 1 or d: the condition is "
            "sufficient, but asks for one or two dimensions more than are necessary",
        ),
        Verdict(
            "dim H >= d - 1 is also necessary for a loss of zero when f is not linear (in the theorem it is).",
            bound,
            f"the loss is below {SMALL:.0%} of the smallest one for a linear f in: {'; '.join(beaten) or 'none'}. On a "
            f"line, where segments overlap, it is {line}. Crossings between the best states in the plane: "
            + ", ".join(f"d = {d}: {n}" for d, n in layouts.items()),
        ),
    ]


def least_losses(free: list[dict[str, Any]]) -> dict[tuple[int, int], tuple[float, float]]:
    """By dimension and classes, the smallest loss over seeds and the smallest for a linear f."""
    keys = dict.fromkeys((row["H"], row["d"]) for row in free)
    rows = {key: [row for row in free if (row["H"], row["d"]) == key] for key in keys}
    return {key: (min(row["loss"] for row in found), found[0]["floor"]) for key, found in rows.items()}


def _beaten(loss: float, least: float) -> bool:
    return loss < SMALL * least


def plot(numbers: dict[str, Any], path: Path) -> None:
    """Losses and ranks over dim H for a linear f; losses of a nonlinear one; its best states in the plane."""
    figure = Figure(figsize=(WIDTH, 12), layout="constrained")
    panels = figure.subplot_mosaic(
        [["loss", "loss", "loss"], ["rank", "rank", "rank"], ["free", "free", "free"], ["4", "5", "6"]],
        height_ratios=(3, 3, 3, 2),
    )
    linear, free = numbers["linear"], numbers["free"]
    marks = "os^Dv<>"
    for d, mark in zip(sorted({row["d"] for row in linear}), marks, strict=False):
        rows = [row for row in linear if row["d"] == d]
        wide = range(1, max(row["H"] for row in rows) + 1)
        count = {row["H"]: len(row["rank"]) * max(3, row["H"] - d + 3) for row in rows}
        closed = panels["loss"].plot(wide, [floor(h, d, count[h]) for h in wide], "-", lw=0.8)
        color = closed[0].get_color()
        panels["loss"].plot(
            [r["H"] for r in rows], [r["loss"] for r in rows], mark, color=color, label=f"d = {d}", ms=5
        )
        rows = [row for row in rows if row["H"] >= d - 1]
        panels["rank"].plot(
            [row["H"] - d + 1 for row in rows], [max(row["rank"]) for row in rows], mark, color=color, mfc="none"
        )
    panels["loss"].set(xlabel="dim H", ylabel="smallest mixup loss", title="linear f (lines: closed form)")
    panels["loss"].legend(fontsize=9, ncols=2)
    top = max(row["H"] - row["d"] + 1 for row in linear)
    panels["rank"].plot([0, top], [0, top], ":", color="grey", label="Corollary 1")
    panels["rank"].set(xlabel="dim H - d + 1", ylabel="directions within a class", title="linear f: directions left")
    panels["rank"].legend(fontsize=9)
    best = least_losses(free)
    dimensions = sorted({h for h, _ in best})
    for h, line, mark in zip(dimensions, LINES, marks, strict=False):
        classes = sorted(d for k, d in best if k == h)
        losses = [best[h, d][0] for d in classes]
        panels["free"].plot(classes, losses, marker=mark, linestyle=line, color="black", label=f"dim H = {h}", ms=5)
        floors = [best[h, d][1] or np.nan for d in classes]
        label = "smallest for linear f" if h == 1 else None
        panels["free"].plot(classes, floors, marker=mark, linestyle=line, color="0.65", label=label, mfc="none", ms=5)
    panels["free"].set(xlabel="classes d", ylabel="smallest mixup loss", title="nonlinear f")
    log_scale(panels["free"])
    panels["free"].set_xticks(classes)
    panels["free"].margins(y=0.3)
    panels["free"].legend(fontsize=9, ncols=2, loc="upper center")
    for d in (4, 5, 6):
        axes = panels[str(d)]
        rows = [row for row in free if (row["H"], row["d"]) == (2, d)]
        axes.set(xticks=[], yticks=[], xlabel="h1", ylabel="h2")
        if rows:
            row = min(rows, key=lambda row: row["loss"])
            for a, b in combinations(row["states"], 2):
                axes.plot(*zip(a, b, strict=True), "-", color="0.6", lw=1)
            axes.plot(*zip(*row["states"], strict=True), "o", color="black")
            axes.set_title(f"nonlinear f, d = {d}\n{row['crossings']} crossing(s)", fontsize=10)
    files.draw(figure, path, dpi=100)
