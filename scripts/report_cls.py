"""Compare evaluated classifiers: arms of several seeds each, in one table, with paired differences and verdicts.

    python scripts/report_cls.py runs/fashion-cls --output docs/results/classifiers

Looks for FOLDER/ARM/RUN/evaluation.json and writes report.md, report.json, interpolation.png and epochs.png.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from classifiers.compare import Arms, Difference, claims, difference, of, read
from classifiers.deform import TABLE_5
from classifiers.plot import plot_epochs, plot_interpolation
from mmgan.engine import cli

NAMES = {
    "error": ("error, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "knn_1": ("kNN error, k = 1, %", 100, 2),
    "knn_5": ("kNN error, k = 5, %", 100, 2),
    "knn_20": ("kNN error, k = 20, %", 100, 2),
    "interpolated_0": ("NLL interpolated in layer 0", 1, 3),
    "interpolated_1": ("in layer 1", 1, 3),
    "interpolated_2": ("in layer 2", 1, 3),
    "interpolated_3": ("in layer 3", 1, 3),
    "interpolated_4": ("in layer 4", 1, 3),
    "deformed": ("error, mean of 17 deformations, %", 100, 2),
}
"""Measures: their names, factors and decimals."""
ORDER = ("none", "input", "manifold", "all-layers", "blocked", "dropout", "cutout")


def report(folder: Path, output: Path, baseline: str = "none") -> None:
    """Compare evaluated classifiers: arms of several seeds each, with paired differences and verdicts.

    Args:
        folder: where the runs are, as FOLDER/ARM/RUN
        output: folder to write to
        baseline: the arm that the others are compared with
    """
    found = read(folder)
    arms: Arms = {arm: found[arm] for arm in sorted(found, key=lambda a: (ORDER.index(a) if a in ORDER else 99, a))}
    output.mkdir(parents=True, exist_ok=True)
    curves = {arm: [run["interpolated_nll"] for run in runs.values()] for arm, runs in arms.items()}
    plot_interpolation(curves, output / "interpolation.png")
    plot_epochs(
        {arm: [_epochs(Path(run["run"])) for run in runs.values()] for arm, runs in arms.items()}, output / "epochs.png"
    )
    (output / "report.md").write_text(_markdown(arms, baseline))
    numbers = {arm: {name: of(arms, arm, name) for name in NAMES} for arm in arms}
    differences = {
        arm: {name: difference(of(arms, arm, name), of(arms, baseline, name))._asdict() for name in NAMES}
        for arm in arms
    }
    verdicts = [{**claim._asdict(), **one._asdict(), "verdict": word} for claim, one, word in claims(arms)]
    text = json.dumps({"by seed": numbers, f"minus {baseline}": differences, "claims": verdicts}, indent=1)
    (output / "report.json").write_text(text + "\n")
    print((output / "report.md").read_text())


def _epochs(run: Path) -> list[tuple[float, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["epoch"], row["validation/nll"]) for row in rows if "validation/nll" in row]


def _markdown(arms: Arms, baseline: str) -> str:
    any_run = next(iter(next(iter(arms.values())).values()))
    lines = [
        f"{any_run['data']}, {any_run['num_train']} training images, {any_run['checkpoint']} checkpoint, evaluated on "
        f"the {any_run['num_images']} {any_run['split']} images. Mean and standard deviation over n runs; smaller is "
        "better.",
        "",
        _row("", *arms),
        _row(*["---"] * (len(arms) + 1)),
        _row("n", *(str(len(runs)) for runs in arms.values())),
    ]
    for name, (title, factor, digits) in NAMES.items():
        values = [[factor * v for v in of(arms, arm, name).values()] for arm in arms]
        if any(values):
            lines.append(_row(title, *(_spread(v, digits) for v in values)))
    lines += ["", f"Minus `{baseline}`, paired by seed, with 95 % confidence intervals:", "", _row("", *arms)]
    lines += [_row(*["---"] * (len(arms) + 1))]
    for name, (title, factor, digits) in NAMES.items():
        base = of(arms, baseline, name)
        if base:
            cells = [difference(of(arms, arm, name), base) if arm != baseline else None for arm in arms]
            lines.append(_row(title, *(_interval(c, factor, digits) for c in cells)))
    lines += ["", "The paper's directions, each arm minus the other:", ""]
    lines += [_row("claim", "measure", "difference", "verdict", "the paper"), _row(*["---"] * 5)]
    for claim, one, word in claims(arms):
        title, factor, digits = NAMES[claim.measure]
        cell = _interval(one, factor, digits)
        lines.append(_row(f"{claim.arm} below {claim.other}", title, cell, word, claim.source))
    lines += [
        "",
        "Accuracy on deformed images, %, and the paper's (PreActResNet34, CIFAR-100) none / input alpha 1 / manifold:",
        "",
    ]
    lines += [_row("", *arms, "the paper"), _row(*["---"] * (len(arms) + 2))]
    for row in TABLE_5:
        runs = [[100 * run["deformed_accuracy"][row.name] for run in of_arm.values()] for of_arm in arms.values()]
        theirs = f"{row.none:.2f} / {row.input1:.2f} / {row.manifold:.2f}"
        lines.append(_row(row.name, *(_spread(v, 1) for v in runs), theirs))
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float], digits: int) -> str:
    if not values:
        return "-"
    spread = f" +- {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def _interval(found: Difference | None, factor: float, digits: int) -> str:
    if found is None or not found.n:
        return "-"
    mean, low, high, _ = found
    return f"{factor * mean:+.{digits}f} [{factor * low:+.{digits}f}, {factor * high:+.{digits}f}]"


if __name__ == "__main__":
    cli.run(lambda: cli.call(report))
