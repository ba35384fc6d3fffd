"""Compare evaluated classifiers: arms of several seeds each, in one table, with paired differences and verdicts.

    python scripts/report_cls.py runs/fashion-cls docs/results/classifiers

Looks for FOLDER/ARM/RUN/evaluation.json and writes OUTPUT.md and the folder OUTPUT with its figures and numbers,
report.json.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import json
from pathlib import Path
from typing import Any

import numpy as np

from classifiers.compare import PAPER, Arms, changes, claims, measures, minutes, numbers, of, read
from classifiers.evaluation.deform import TABLE_5
from classifiers.evaluation.plots import plot_interpolation
from classifiers.plot import plot_epochs
from classifiers.tables import head
from classifiers.tables import row as _row
from mmgan.engine import cli, files
from mmgan.errors import UserError
from mmgan.experiments.differences import difference, interval, spread

NAMES = {
    "error": ("error, %", 100, 2),
    "nll": ("NLL", 1, 4),
    "ece": ("ECE, %", 100, 2),
    "knn_1": ("kNN error, k = 1, %", 100, 2),
    "knn_5": ("kNN error, k = 5, %", 100, 2),
    "knn_20": ("kNN error, k = 20, %", 100, 2),
    "deformed": ("error, mean of 17 deformations, %", 100, 2),
}
"""Measures: their names, factors and decimals. Interpolated NLL has a measure a layer."""
ORDER = (
    *("none", "input", "manifold", "all-layers", "blocked", "dropout", "cutout"),
    *("supervised", "pseudo-label", "pi", "mean-teacher", "vat", "vat-em", "ssl-input", "ssl-manifold"),
)


def report(folder: Path, output: Path, baseline: str = "none", trust: bool = False) -> None:
    """Compare evaluated classifiers: arms of several seeds each, with paired differences and verdicts.

    Args:
        folder: where the runs are, as FOLDER/ARM/RUN
        output: OUTPUT.md is the report, OUTPUT the folder of its figures and numbers
        baseline: the arm that the others are compared with
        trust: let the runs name classes that are not mmgan's own, which are then imported
    """
    found = read(folder, trust=trust)
    if baseline not in found:
        raise UserError(f"{folder} has no arm {baseline!r} to compare with; --baseline can be {', '.join(found)}")
    arms: Arms = {arm: found[arm] for arm in sorted(found, key=lambda a: (ORDER.index(a) if a in ORDER else 99, a))}
    command = f"python scripts/report_cls.py {folder} {output}" + (f" --baseline {baseline}" * (baseline != "none"))
    page = output.with_name(f"{output.name}.md")
    curves = {arm: [run["interpolated_nll"] for run in runs.values()] for arm, runs in arms.items()}
    epochs = {arm: [_epochs(Path(run["run"])) for run in runs.values()] for arm, runs in arms.items()}
    validated = all(
        runs[0] and len({tuple(epoch for epoch, _ in run) for run in runs}) == 1 for runs in epochs.values()
    )
    try:
        output.mkdir(parents=True, exist_ok=True)
        plot_interpolation(curves, output / "interpolation.png")
        if validated:
            plot_epochs(epochs, output / "epochs.png")
        (output / "report.json").write_text(json.dumps(_numbers(arms, baseline), indent=1, allow_nan=False) + "\n")
        page.write_text(_markdown(arms, baseline, command, output.name, validated))
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error.strerror}); choose another") from error
    print(page.read_text())


def _epochs(run: Path) -> list[tuple[float, float]]:
    rows = [(row.get("epoch"), row.get("validation/nll")) for row in files.read_rows(run / "metrics.jsonl")]
    return [(epoch, nll) for epoch, nll in rows if isinstance(epoch, int | float) and isinstance(nll, int | float)]


def _measured(arms: Arms) -> list[str]:
    """The measures that any run has, in their order."""
    return list(dict.fromkeys(name for runs in arms.values() for run in runs.values() for name in measures(run)))


def _title(measure: str) -> tuple[str, int, int]:
    """A measure's name, factor and decimals."""
    layer = measure.removeprefix("interpolated_")
    return NAMES[measure] if layer == measure else (f"NLL interpolated in layer {layer}, mean over lam", 1, 3)


def _numbers(arms: Arms, baseline: str) -> dict[str, Any]:
    """All numbers of the report."""
    return numbers(arms, baseline, _measured(arms)) | {
        "claims": [claim._asdict() | one.finite() | {"verdict": word} for claim, one, word in claims(arms)],
        "interpolated NLL": {
            arm: {seed: run["interpolated_nll"] for seed, run in runs.items()} for arm, runs in arms.items()
        },
        "deformed accuracy": {
            arm: {seed: run["deformed_accuracy"] for seed, run in runs.items() if "deformed_accuracy" in run}
            for arm, runs in arms.items()
        },
    }


def _markdown(arms: Arms, baseline: str, command: str, folder: str, validated: bool) -> str:
    any_run = next(iter(arms[baseline].values()))
    names = _measured(arms)
    lines = [
        f"# Classifiers on {any_run['data']}",
        "",
        f"Made by `{command}`.",
        "",
        f"{any_run['data']}, {any_run['num_train']} training images, {any_run['checkpoint']} checkpoint, evaluated on "
        f"the {any_run['num_images']} {any_run['split']} images; interpolations of {any_run['pairs']} pairs; pairs and "
        f"deformations by seed {any_run['seed']}, the same for all runs. Mean and standard deviation over n runs; "
        "smaller is better. A proxy: the paper's figures, where it has one, are of other data and larger networks, so "
        "that directions can be compared and sizes cannot.",
        "",
        *(f"- `{arm}`: {_setting(arms, arm, baseline)}" for arm in arms),
        "",
        *head("", *arms),
        _row("n", *(str(len(runs)) for runs in arms.values())),
    ]
    for name in names:
        title, factor, digits = _title(name)
        lines.append(_row(title, *(spread([factor * v for v in of(arms, arm, name).values()], digits) for arm in arms)))
        for figure in PAPER:
            if figure.measure == name and figure.arms.keys() & arms.keys():
                lines.append(_row(f"*the paper: {figure.setting}*", *(figure.arms.get(arm, "-") for arm in arms)))
    times = [
        [m for run in runs.values() if (m := minutes(Path(run["run"]) / "metrics.jsonl"))] for runs in arms.values()
    ]
    lines.append(_row("minutes of training, as the machine was loaded", *(spread(t, 1) for t in times)))

    lines += ["", f"Minus `{baseline}`, paired by seed, with 95 % confidence intervals:", "", *head("", *arms)]
    for name in names:
        title, factor, digits = _title(name)
        base = of(arms, baseline, name)
        cells = [difference(of(arms, arm, name), base) if arm != baseline else None for arm in arms]
        lines.append(_row(title, *(interval(c, digits, factor) for c in cells)))

    lines += [
        "",
        "## The paper's directions",
        "",
        *head("claim", "measure", "n", "difference", "verdict", "the paper"),
    ]
    verdicts = claims(arms)
    for claim, one, word in verdicts:
        title, factor, digits = _title(claim.measure)
        cell = interval(one, digits, factor)
        lines.append(_row(f"{claim.arm} below {claim.other}", title, str(one.n), cell, word, claim.source))
    lines += [
        "",
        "Undecided: the interval holds 0. That is not evidence of no difference: with n = 3 an interval reaches 2.5 "
        "standard deviations of the differences to either side, and with n = 5 still 1.2. The intervals are of "
        "Student's t, for variation between seeds, not between test images, which are the same in all runs. They are "
        f"not corrected for there being {len(verdicts)} of them: without any difference about one in 20 would lie "
        "beside 0.",
        "",
        "## Interpolated targets (Fig. 2)",
        "",
        f"![NLL of interpolated targets over lam, a panel for each layer]({folder}/interpolation.png)",
    ]
    if validated:
        lines += ["", "## Over epochs (Fig. 8, of validation images; bands from the least to the largest)", ""]
        lines += [f"![validation NLL over epochs]({folder}/epochs.png)"]
    if any("deformed" in run for runs in arms.values() for run in runs.values()):
        lines += ["", *_deformations(arms)]
    return "\n".join(lines) + "\n"


def _setting(arms: Arms, arm: str, baseline: str) -> str:
    """Seeds of an arm, and how its configuration differs from the baseline's."""
    base, own = (next(iter(arms[name].values()))["config"] for name in (baseline, arm))
    what = "the baseline" if arm == baseline else "; ".join(changes(base, own)) or "nothing different"
    return f"{what} (seeds {', '.join(str(seed) for seed in sorted(arms[arm]))})"


def _deformations(arms: Arms) -> list[str]:
    """Table 5, and in how many of its rows one arm's mean is above another's."""
    rows = {
        row: {
            arm: [100 * run["deformed_accuracy"][row.name] for run in runs.values() if "deformed_accuracy" in run]
            for arm, runs in arms.items()
        }
        for row in TABLE_5
    }
    lines = [
        "## Deformed images (Table 5)",
        "",
        "Accuracy, %, larger is better, and the paper's (PreActResNet34, CIFAR-100): none / input alpha 1 / input "
        "alpha 2 / manifold.",
        "",
        *head("", *arms, "the paper"),
    ]
    for row, values in rows.items():
        theirs = f"{row.none:.2f} / {row.input1:.2f} / {row.input2:.2f} / {row.manifold:.2f}"
        lines.append(_row(row.title, *(spread(v, 1) for v in values.values()), theirs))
    for other in ("none", "input"):
        both = [(v["manifold"], v[other]) for v in rows.values() if v.get("manifold") and v.get(other)]
        if both:
            wins = sum(np.mean(a) > np.mean(b) for a, b in both)
            paper = sum(row.manifold > (row.none if other == "none" else row.input1) for row in TABLE_5)
            lines += [
                "",
                f"`manifold` has the larger mean than `{other}` in {wins} of 17 rows; in the paper in {paper}.",
            ]
    return lines


if __name__ == "__main__":
    cli.run(lambda: cli.call(report))
