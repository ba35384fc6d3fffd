"""Compare attacked classifiers: arms of several seeds each, with paired differences, verdicts and the masking report.

    python scripts/report_attacks.py runs/fashion-cls docs/results/adversarial

Looks for FOLDER/ARM/RUN/attack.json, and attack-normalised.json beside it, and writes OUTPUT.md and the folder OUTPUT
with its figure and numbers, report.json.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classifiers.attacks.robustness import UNBOUNDED, Check
from classifiers.compare import Arms, changes, minutes, numbers, of, read
from classifiers.plot import plot_arms_attacked
from classifiers.tables import head, row
from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.experiments.differences import difference, interval, spread, verdict

PROTOCOL = (
    *("data", "images", "split", "num_images", "checkpoint", "seed"),
    *("norm", "space", "loss", "eps", "iterations", "step_size", "restarts"),
)
"""What must be the same of all attacks that are compared."""
FILES = ("attack.json", "attack-normalised.json")
ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "transfer": "transferred PGD", "autoattack": "AutoAttack"}
ORDER = ("none", "input", "manifold", "adversarial")

TABLE_3 = (
    ("CIFAR-10, PreActResNet18", {"none": "36.32", "input": "71.51", "manifold": "77.50", "adversarial": "56.10"}),
    ("CIFAR-100", {"input": "40.7", "manifold": "44.96"}),
    ("SVHN, WideResNet20-10", {"none": "21.49", "input": "56.98", "manifold": "65.91", "adversarial": "72.80"}),
)
"""Accuracy under FGSM, %."""
CLAIMS = (
    ("input", "none", "fgsm", "Table 3: 36.32 to 71.51; 21.49 to 56.98"),
    ("manifold", "input", "fgsm", "Table 3: 71.51 to 77.50; 40.7 to 44.96; 56.98 to 65.91"),
    ("manifold", "none", "pgd", "section 5.3: no significant gain"),
    ("adversarial", "manifold", "fgsm", "Table 3: below on CIFAR-10 (77.50 to 56.10), above on SVHN (65.91 to 72.80)"),
    ("adversarial", "manifold", "pgd", "not measured there"),
)
"""An arm, another, under which attack the first may have the higher accuracy, and what the paper has."""


def report(folder: Path, output: Path, trust: bool = False) -> None:
    """Compare attacked classifiers: arms of several seeds each, with paired differences, verdicts, masking report.

    Args:
        folder: where the runs are, as FOLDER/ARM/RUN
        output: OUTPUT.md is the report, OUTPUT the folder of its figure and numbers
        trust: let the runs name classes that are not mmgan's own, which are then imported
    """
    files = [name for name in FILES if name == FILES[0] or next(folder.glob(f"*/*/{name}"), None)]
    spaces = [_ordered(read(folder, name, PROTOCOL, _measures, "scripts/attack_cls.py", trust)) for name in files]
    page = output.with_name(f"{output.name}.md")
    lines = [
        "# Classifiers under attack",
        "",
        f"Made by `python scripts/report_attacks.py {folder} {output}`.",
        "",
        *_setting(spaces[0]),
        *(line for arms, name in zip(spaces, files, strict=True) for line in _section(arms, name, output.name)),
        *_table_3(),
    ]
    try:
        output.mkdir(parents=True, exist_ok=True)
        for arms, name in zip(spaces, files, strict=True):
            _plot(arms, output / f"{Path(name).stem}.png")
        for arm, runs in spaces[0].items():
            picture = Path(next(iter(runs.values()))["run"]) / "plots" / "attack_examples.png"
            if picture.exists():
                shutil.copyfile(picture, output / f"examples-{arm}.png")
                lines += [
                    "",
                    f"`{arm}`:",
                    "",
                    f"![images, attacked ones and differences]({output.name}/examples-{arm}.png)",
                ]
        found = {name: _numbers(arms) for arms, name in zip(spaces, files, strict=True)}
        (output / "report.json").write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
        page.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error.strerror}); choose another") from error
    print(page.read_text())


def _measures(found: Mapping[str, Any]) -> dict[str, float]:
    """Accuracies in %, larger is better, by names like `pgd 0.1`.

    Raises ValueError, KeyError, TypeError or AttributeError for what is no attack's.
    """
    numbers = {name: 100 * float(found[name]["accuracy"]) for name in ("clean", "unbounded")}
    for name in ATTACKS:
        if name in found and [one["eps"] for one in found[name]] != found["eps"]:
            raise ValueError(f"{name} has other eps")
        numbers |= {f"{name} {one['eps']:.4g}": 100 * float(one["accuracy"]) for one in found.get(name, ())}
    for check in found["checks"]:
        if check.keys() != set(Check._fields) or check["passed"] not in (True, False, None):
            raise ValueError("a check is damaged")
    return {f"accuracy {name}": value for name, value in numbers.items()}


def _ordered(arms: Arms) -> Arms:
    return dict(sorted(arms.items(), key=lambda one: ORDER.index(one[0]) if one[0] in ORDER else len(ORDER)))


def _any(arms: Arms) -> dict[str, Any]:
    return next(iter(next(iter(arms.values())).values()))


def _names(arms: Arms) -> list[str]:
    return list(dict.fromkeys(name for runs in arms.values() for run in runs.values() for name in _measures(run)))


def _title(measure: str, found: Mapping[str, Any]) -> str:
    attack, _, eps = measure.removeprefix("accuracy ").partition(" ")
    plain = {"clean": "no attack", "unbounded": f"PGD without a bound, {UNBOUNDED[0]} x {UNBOUNDED[1]}"}
    names = ATTACKS | {"pgd": f"PGD-{found['iterations']}, {found['restarts']} restarts"}
    return plain.get(attack) or f"{names[attack]}, eps {eps}"


def _setting(arms: Arms) -> list[str]:
    base = next(iter(arms))
    lines = []
    for arm, runs in arms.items():
        own, of_base = (next(iter(arms[name].values()))["config"] for name in (arm, base))
        what = "the baseline" if arm == base else "; ".join(changes(of_base, own)) or "nothing different"
        times = [m for run in runs.values() if (m := minutes(Path(run["run"]) / "metrics.jsonl"))]
        seeds = ", ".join(str(seed) for seed in sorted(runs))
        lines.append(
            f"- `{arm}`: {what} (seeds {seeds}; {spread(times, 1)} minutes of training, as the machine was loaded)"
        )
    return [*lines, ""]


def _section(arms: Arms, name: str, folder: str) -> list[str]:
    """All there is of one space."""
    found = _any(arms)
    where = {
        "pixel": "Pixel space: eps in units of [0, 1], images clamped to it",
        "normalised": "Normalised space, as the authors': eps in units of the channels' deviations, nothing clamped",
    }
    names, base = _names(arms), next(iter(arms))
    lines = [
        f"## {where[found['space']]}",
        "",
        f"{found['norm']} attacks on {found['num_images']} {found['split']} images of {found['data']}, drawn by seed "
        f"{found['seed']}; {found['checkpoint']} checkpoint; loss {found['loss']}; PGD of {found['iterations']} "
        f"iterations of {found['step_size']}, {found['restarts']} random starts, of which the worst counts. Accuracy "
        "in %, larger is better: mean and standard deviation over n runs. A proxy: the paper's figures are of other "
        "data and larger networks.",
        "",
        *head("", *arms),
        row("n", *(str(len(runs)) for runs in arms.values())),
        *(row(_title(name, found), *(spread(list(of(arms, arm, name).values()), 1) for arm in arms)) for name in names),
        "",
        f"![accuracy over eps]({folder}/{Path(name).stem}.png)",
        "",
        f"Minus `{base}`, paired by seed, with 95 % confidence intervals (Student's t, between seeds), in points:",
        "",
        *head("", *(arm for arm in arms if arm != base)),
    ]
    for measure in names:
        base_values = of(arms, base, measure)
        cells = [difference(of(arms, arm, measure), base_values) for arm in arms if arm != base]
        lines.append(row(_title(measure, found), *(interval(cell, 1) for cell in cells)))
    lines += ["", *_claims(arms), "", *_masking(arms), ""]
    return lines


def _claims(arms: Arms) -> list[str]:
    eps = _any(arms)["eps"]
    lines = [
        "Who is ahead, in points, at each eps (shows: the interval is above 0; the opposite shows: below it):",
        "",
        *head("", *(f"eps {bound:.4g}" for bound in eps), "the paper"),
    ]
    for arm, other, attack, source in CLAIMS:
        cells = []
        for bound in eps:
            a, b = (of(arms, name, f"accuracy {attack} {bound:.4g}") for name in (arm, other))
            ahead = difference(a, b)
            cells.append(f"{interval(ahead, 1)} {verdict(difference(b, a))}" if ahead.n else "-")
        lines.append(row(f"`{arm}` above `{other}`, {ATTACKS[attack]}", *cells, source))
    return [*lines, "", f"None of these {len(CLAIMS) * len(eps)} intervals is corrected for there being several."]


def _masking(arms: Arms) -> list[str]:
    """In how many runs each line of the report on gradient masking passed, and what was found where it did not."""
    checks = {check["name"]: check["meaning"] for check in _any(arms)["checks"]}
    lines = ["Signs of masked gradients: runs that passed, of those measured.", "", *head("", *arms, "if not")]
    failures = []
    for name, meaning in checks.items():
        cells = []
        for arm, runs in arms.items():
            results = {seed: check for seed, run in runs.items() for check in run["checks"] if check["name"] == name}
            measured = {seed: check for seed, check in results.items() if check["passed"] is not None}
            cells.append(
                f"{sum(check['passed'] for check in measured.values())} of {len(measured)}" if measured else "-"
            )
            failures += [
                f"- `{arm}`, seed {seed}, failed: {name} ({check['found']})"
                for seed, check in measured.items()
                if not check["passed"]
            ]
        lines.append(row(name, *cells, meaning))
    return [*lines, "", *failures] if failures else lines


def _table_3() -> list[str]:
    return [
        "## The paper's Table 3",
        "",
        "Accuracy under FGSM, %, eps not stated; the authors' code has 0.03 on normalised images, not clamped. "
        "Adversarial training on CIFAR-10 is quoted there from Madry et al., who attack pixels by 8/255; a row with "
        "Fortified Networks, 81.80, is quoted too.",
        "",
        *head("", *ORDER),
        *(row(name, *(values.get(arm, "-") for arm in ORDER)) for name, values in TABLE_3),
        "",
        f"Appendix F, PGD without a bound, {UNBOUNDED[0]} iterations of {UNBOUNDED[1]}: input 1, manifold 0.",
    ]


def _plot(arms: Arms, path: Path) -> None:
    def curve(run: Mapping[str, Any], attack: str) -> Sequence[tuple[float, float]]:
        return [(0.0, run["clean"]["accuracy"]), *((one["eps"], one["accuracy"]) for one in run[attack])]

    shown = [name for name in ATTACKS if all(name in run for runs in arms.values() for run in runs.values())]
    plot_arms_attacked(
        {
            ATTACKS[name]: {arm: [curve(run, name) for run in runs.values()] for arm, runs in arms.items()}
            for name in shown
        },
        path,
    )


def _numbers(arms: Arms) -> dict[str, Any]:
    """All numbers of a section."""
    checks = {arm: {seed: run["checks"] for seed, run in runs.items()} for arm, runs in arms.items()}
    return numbers(arms, next(iter(arms)), _names(arms)) | {"checks": checks}


if __name__ == "__main__":
    cli.run(lambda: cli.call(report))
