"""Evaluated runs of several arms and seeds, compared: means, paired differences, verdicts on the paper's directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from classifiers.config import ClassifierConfig
from classifiers.deform import TABLE_5
from mmgan.engine import cli, files
from mmgan.engine.run import differences
from mmgan.engine.values import shown
from mmgan.errors import UserError
from mmgan.experiments.differences import Difference, difference, verdict
from mmgan.experiments.published import published

PROTOCOL = ("data", "images", "split", "num_images", "num_train", "checkpoint", "seed", "pairs")
"""What must be the same of all evaluations."""

Arms = dict[str, dict[int, dict[str, Any]]]
"""Evaluations by arm and by the run's seed."""


class Figure(NamedTuple):
    """What the paper measured, arm by arm, in the unit of the report."""

    measure: str
    setting: str
    arms: Mapping[str, str]


PAPER = (
    Figure(
        "error",
        "CIFAR-10, PreActResNet18, 1200 epochs",
        {"none": "5.12", "input": "3.50", "manifold": "2.89", "blocked": "4.33"},
    ),
    Figure(
        "error",
        "CIFAR-10, PreActResNet152, 1200 epochs",
        {"none": "4.20", "input": "3.15", "manifold": "2.76", "all-layers": "2.38"},
    ),
    Figure(
        "error",
        "CIFAR-10, PreResNet50, 600 epochs, five trials",
        {
            "none": "4.96 +- 0.19",
            "input": "4.25 +- 0.11",
            "manifold": "3.77 +- 0.18",
            "dropout": "5.09 +- 0.09",
            "cutout": "4.77 +- 0.38",
        },
    ),
    Figure(
        "nll",
        "CIFAR-10, PreActResNet18, 1200 epochs",
        {"none": "0.2646", "input": "0.1945", "manifold": "0.1407"},
    ),
    Figure(
        "nll",
        "CIFAR-10, PreActResNet152, 1200 epochs",
        {"none": "0.1994", "input": "0.2312", "manifold": "0.1419", "all-layers": "0.0957"},
    ),
    Figure(
        "knn_5",
        "CIFAR-10, PreResNet18, k not stated",
        {"none": "6.09", "input": "5.54", "manifold": "5.16"},
    ),
    Figure(
        "deformed",
        "CIFAR-100, PreActResNet34",
        published()["table-5-mean"].values,
    ),
    Figure(
        "error",
        "CIFAR-10, 4,000 labels, WRN-28-2, five trials",
        {
            "supervised": "20.26 +- 0.38",
            "mean-teacher": "15.87 +- 0.28",
            "vat": "13.86 +- 0.27",
            "vat-em": "13.13 +- 0.39",
            "ssl-input": "10.71 +- 0.44",
            "ssl-manifold": "10.26 +- 0.32",
        },
    ),
    Figure(
        "error",
        "SVHN, 1,000 labels, WRN-28-2, five trials",
        {
            "supervised": "12.83 +- 0.47",
            "mean-teacher": "5.65 +- 0.47",
            "vat": "5.63 +- 0.20",
            "vat-em": "5.35 +- 0.19",
            "ssl-input": "6.54 +- 0.62",
            "ssl-manifold": "5.70 +- 0.48",
        },
    ),
)
"""Tables 1, 2 and 5, section 5.1. Another data set and much larger networks than a proxy's: only directions compare."""


class Claim(NamedTuple):
    """A direction the paper states: `arm` has the smaller `measure` than `other`."""

    arm: str
    other: str
    measure: str
    source: str


CLAIMS = (
    Claim("input", "none", "error", "Table 1: 5.12 to 3.50"),
    Claim("manifold", "input", "error", "Table 1: 3.50 to 2.89"),
    Claim("all-layers", "manifold", "error", "Table 1, PreActResNet152: 2.76 to 2.38"),
    Claim("input", "none", "nll", "Table 1: 0.2646 to 0.1945"),
    Claim("manifold", "input", "nll", "Table 1: 0.1945 to 0.1407"),
    Claim("all-layers", "manifold", "nll", "Table 1, PreActResNet152: 0.1419 to 0.0957"),
    Claim("blocked", "none", "error", "section 5.1: 5.12 to 4.33"),
    Claim("input", "blocked", "error", "section 5.1: 4.33 to 3.50"),
    Claim("manifold", "blocked", "error", "section 5.1: 4.33 to 2.89"),
    Claim("manifold", "dropout", "error", "section 5.1, PreActResNet50: 5.09 to 3.77"),
    Claim("manifold", "cutout", "error", "section 5.1, PreActResNet50: 4.77 to 3.77"),
    Claim("input", "none", "knn_5", "section 5.1, k not stated: 6.09 to 5.54"),
    Claim("manifold", "input", "knn_5", "section 5.1, k not stated: 5.54 to 5.16"),
    Claim("input", "manifold", "interpolated_0", "Fig. 2, input layer: manifold very slightly worse"),
    Claim("manifold", "input", "interpolated_1", "Fig. 2, first layer"),
    Claim("manifold", "input", "interpolated_2", "Fig. 2, second layer"),
    Claim("manifold", "none", "deformed", "Table 5, mean of 17 errors: 74.2 to 66.4"),
    Claim("manifold", "input", "deformed", "Table 5, mean of 17 errors, alpha 1: 68.6 to 66.4"),
    Claim("mean-teacher", "supervised", "error", "Table 2, CIFAR-10: 20.26 to 15.87"),
    Claim("vat", "supervised", "error", "Table 2, CIFAR-10: 20.26 to 13.86"),
    Claim("vat-em", "vat", "error", "Table 2, CIFAR-10: 13.86 to 13.13"),
    Claim("ssl-input", "supervised", "error", "Table 2, CIFAR-10: 20.26 to 10.71"),
    Claim("ssl-manifold", "supervised", "error", "Table 2, CIFAR-10: 20.26 to 10.26"),
    Claim("ssl-manifold", "mean-teacher", "error", "Table 2, CIFAR-10: 15.87 to 10.26; on SVHN 5.65 to 5.70"),
    Claim("ssl-manifold", "vat-em", "error", "Table 2, CIFAR-10: 13.13 to 10.26; on SVHN 5.35 to 5.70"),
    Claim("ssl-manifold", "ssl-input", "error", "Table 2, CIFAR-10: 10.71 to 10.26"),
)


def read(
    folder: Path,
    name: str = "evaluation.json",
    protocol: Sequence[str] = PROTOCOL,
    measured: Callable[[Mapping[str, Any]], dict[str, float]] | None = None,
    script: str = "scripts/evaluate_cls.py",
    trust: bool = False,
) -> Arms:
    """What `script` wrote as `name` of the runs FOLDER/ARM/RUN, each with its folder `run` and its `config`.

    And with what `measured`, by default `measures`, makes of it. With `trust` runs may name classes that are not
    mmgan's own, which are then imported.

    Raises UserError where there are none; where they were not made by one protocol, naming the field; and where the
    runs of an arm are not finished, or differ in more than their seeds.
    """
    arms: Arms = {}
    first: dict[str, Any] | None = None
    for file in sorted(folder.glob(f"*/*/{name}")):
        run = file.parent
        try:
            found = files.read_json(file)
            config = yaml.safe_load(cli.to_yaml(cli.config_of(ClassifierConfig, run / "config.yaml", trust)))
            missing = [key for key in (*protocol, "finished") if key not in dict(found)]
            seed = config["seed"]
            compared = {} if missing else (measured or measures)(found)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
            raise UserError(
                f"{run} has a damaged {name} or config.yaml ({shown(error)}); run {script} on it again, or remove it"
            ) from error
        if missing:
            raise UserError(f"{file} does not say {missing[0]}, another version wrote it; evaluate {run} again")
        if not found["finished"]:
            raise UserError(f"{run} was evaluated before its training had finished; finish it and evaluate it again")
        first = first or found
        for key in protocol:
            if found[key] != first[key]:
                raise UserError(f"{run} was evaluated with {key} {found[key]}, others with {first[key]}")
        runs = arms.setdefault(run.parent.name, {})
        if seed in runs:
            raise UserError(f"{run} and {runs[seed]['run']} are both of seed {seed}; keep one of them")
        unlike = changes(next(iter(runs.values()))["config"], config) if runs else []
        if unlike:
            raise UserError(f"{run} is no repetition of its arm's other runs: {'; '.join(unlike)}")
        runs[seed] = found | compared | {"run": str(run), "config": config}
    if not arms:
        raise UserError(f"{folder} holds no evaluated run ARM/RUN/{name}; run {script} first")
    return arms


def changes(config: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What is different in the configuration `other`, but for seeds and what cannot change a result."""
    old, new = (one | {"seed": 0, "data": one["data"] | {"subset_seed": 0}} for one in (config, other))
    return differences(old, new)


def minutes(metrics: Path) -> float | None:
    """How long a run trained, by the speeds in its metrics.jsonl; None where there are none."""
    rows = [(row["step"], row.get("steps_per_second")) for row in files.read_rows(metrics)]
    speeds = [(step, speed) for step, speed in rows if isinstance(speed, int | float) and speed > 0]
    starts = [0, *(step for step, _ in speeds)]
    return sum((step - start) / speed for start, (step, speed) in zip(starts, speeds, strict=False)) / 60 or None


def measures(found: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation to compare; smaller is better in all of them.

    Raises ValueError, KeyError, TypeError or AttributeError for what is no evaluation.
    """
    if np.array(list(found["interpolated_nll"].values()), dtype=float).ndim != 2:
        raise ValueError("interpolated_nll holds no curves")
    names = ("error", "nll", "ece", "knn_1", "knn_5", "knn_20")
    numbers = {name: float(found[name]) for name in names if name in found}
    numbers |= {f"interpolated_{layer}": float(np.mean(c)) for layer, c in found["interpolated_nll"].items()}
    if "deformed_accuracy" in found:
        numbers["deformed"] = 1 - float(np.mean([found["deformed_accuracy"][row.name] for row in TABLE_5]))
    return numbers


def of(arms: Arms, arm: str, measure: str) -> dict[int, float]:
    """A measure of an arm by seed; empty where there is no such arm."""
    return {seed: found[measure] for seed, found in arms.get(arm, {}).items() if measure in found}


def numbers(arms: Arms, baseline: str, names: Sequence[str]) -> dict[str, Any]:
    """The measures `names` of every run, and each arm's difference to the baseline, for JSON."""
    return {
        "by seed": {arm: {name: of(arms, arm, name) for name in names} for arm in arms},
        f"minus {baseline}": {
            arm: {name: difference(of(arms, arm, name), of(arms, baseline, name)).finite() for name in names}
            for arm in arms
        },
    }


def claims(arms: Arms, made: Sequence[Claim] = CLAIMS) -> list[tuple[Claim, Difference, str]]:
    """Every claim that the arms allow to look at, its difference and its verdict."""
    found = [
        (claim, difference(of(arms, claim.arm, claim.measure), of(arms, claim.other, claim.measure))) for claim in made
    ]
    return [(claim, one, verdict(one)) for claim, one in found if one.n]
