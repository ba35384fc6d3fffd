"""Evaluated runs of several arms and seeds, compared: means, paired differences, verdicts on the paper's directions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy import stats

from mmgan.errors import UserError

PROTOCOL = ("data", "split", "num_images", "num_train", "checkpoint", "seed")
"""What must be the same of all evaluations."""

Arms = dict[str, dict[int, dict[str, Any]]]
"""Evaluations by arm and by the run's seed."""


class Difference(NamedTuple):
    """Of an arm to another, paired by seed: mean and 95 % confidence interval (Student's t, n - 1 degrees)."""

    mean: float
    low: float
    high: float
    n: int


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
    Claim("manifold", "blocked", "error", "section 5.1: 4.33 to 2.89"),
    Claim("manifold", "dropout", "error", "section 5.1, PreActResNet50: 5.09 to 3.77"),
    Claim("manifold", "cutout", "error", "section 5.1, PreActResNet50: 4.77 to 3.77"),
    Claim("input", "none", "knn_5", "section 5.1, k not stated: 6.09 to 5.54"),
    Claim("manifold", "input", "knn_5", "section 5.1, k not stated: 5.54 to 5.16"),
    Claim("manifold", "input", "interpolated_0", "Fig. 2, input layer"),
    Claim("manifold", "input", "interpolated_1", "Fig. 2, first layer"),
    Claim("manifold", "input", "interpolated_2", "Fig. 2, second layer"),
    Claim("manifold", "none", "deformed", "Table 5, mean of 17 errors: 74.2 to 66.4"),
    Claim("manifold", "input", "deformed", "Table 5, mean of 17 errors, alpha 1: 68.6 to 66.4"),
)


def read(folder: Path) -> Arms:
    """The evaluations of the runs FOLDER/ARM/RUN.

    Raises UserError where there are none, or where they were not made by one protocol, naming the field.
    """
    arms: Arms = {}
    first: dict[str, Any] | None = None
    for file in sorted(folder.glob("*/*/evaluation.json")):
        found = json.loads(file.read_text())
        first = first or found
        for key in PROTOCOL:
            if found[key] != first[key]:
                raise UserError(f"{file.parent} was evaluated with {key} {found[key]}, others with {first[key]}")
        run_seed = yaml.safe_load((file.parent / "config.yaml").read_text())["seed"]
        arms.setdefault(file.parent.parent.name, {})[run_seed] = found | measures(found) | {"run": str(file.parent)}
    if not arms:
        raise UserError(f"{folder} holds no evaluated run ARM/RUN/evaluation.json; run scripts/evaluate_cls.py first")
    return arms


def measures(found: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation to compare; smaller is better in all of them."""
    numbers = {name: found[name] for name in ("error", "nll", "ece", "knn_1", "knn_5", "knn_20") if name in found}
    numbers |= {f"interpolated_{layer}": float(np.mean(c)) for layer, c in found["interpolated_nll"].items()}
    if "deformed_accuracy" in found:
        numbers["deformed"] = 1 - float(np.mean(list(found["deformed_accuracy"].values())))
    return numbers


def difference(arm: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """`arm` minus `other` over the seeds both have; the interval is endless for fewer than two."""
    seeds = sorted(arm.keys() & other.keys())
    values = np.array([arm[seed] - other[seed] for seed in seeds])
    if len(values) < 2:
        return Difference(float(values.mean()) if len(values) else np.nan, -np.inf, np.inf, len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return Difference(float(values.mean()), float(values.mean() - half), float(values.mean() + half), len(values))


def verdict(found: Difference) -> str:
    """What a difference says of the claim that it is negative."""
    if found.high < 0:
        return "shows"
    if found.low > 0:
        return "the opposite shows"
    return "undecided"


def of(arms: Arms, arm: str, measure: str) -> dict[int, float]:
    """A measure of an arm by seed; empty where there is no such arm."""
    return {seed: found[measure] for seed, found in arms.get(arm, {}).items() if measure in found}


def claims(arms: Arms, made: Sequence[Claim] = CLAIMS) -> list[tuple[Claim, Difference, str]]:
    """Every claim that the arms allow to look at, its difference and its verdict."""
    found = [
        (claim, difference(of(arms, claim.arm, claim.measure), of(arms, claim.other, claim.measure))) for claim in made
    ]
    return [(claim, one, verdict(one)) for claim, one in found if one.n]
