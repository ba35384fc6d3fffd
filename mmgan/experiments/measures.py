"""The names of the measures of runs, and their format."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """A number measured for a run; its name in results is, for example, `fid`, `error`, `best/fid` or `fgsm/0.05`."""

    title: str
    decimals: int = 3
    factor: float = 1.0
    """Factor that multiplies the number for display: 100 for per cent."""


_PERCENT = 100.0
KNOWN = {
    "is": Measure("Inception Score"),
    "fid": Measure("FID"),
    "kid": Measure("KID", 5),
    "precision": Measure("precision"),
    "recall": Measure("recall"),
    "d/real": Measure("d of training images"),
    "d/held_out": Measure("d of held-out images"),
    "d/fake": Measure("d of fakes"),
    "d/gap": Measure("gap: d of training minus held-out images"),
    "d/overfit": Measure("overfitting: gap over the distance of training images and fakes"),
    "spectral_norm/least": Measure("smallest spectral norm", 2),
    "spectral_norm/largest": Measure("largest spectral norm", 2),
    "error": Measure("error, %", 2, _PERCENT),
    "nll": Measure("NLL", 4),
    "train_error": Measure("training error, %", 2, _PERCENT),
    "train_nll": Measure("training NLL", 4),
    "ece": Measure("ECE, %", 2, _PERCENT),
    "knn_1": Measure("kNN error, k = 1, %", 2, _PERCENT),
    "knn_5": Measure("kNN error, k = 5, %", 2, _PERCENT),
    "knn_20": Measure("kNN error, k = 20, %", 2, _PERCENT),
    "deformed": Measure("error, mean of 17 deformations, %", 2, _PERCENT),
    "clean": Measure("accuracy without attack, %", 1, _PERCENT),
    "unbounded": Measure("accuracy under PGD without a bound, %", 1, _PERCENT),
    "fgsm": Measure("accuracy under FGSM, %", 1, _PERCENT),
    "minutes": Measure("minutes of training, at the machine's load", 1),
}
ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "transfer": "transferred PGD", "autoattack": "AutoAttack"}
FAMILIES = {
    "best": Measure("{}, best checkpoint"),
    "bend": Measure("bend of d's path at {}"),
    "interpolated": Measure("NLL interpolated at {}, mean over lam"),
    "deformed": Measure("accuracy, {}, %", 1, _PERCENT),
    **{key: Measure(f"accuracy under {name}, eps {{}}, %", 1, _PERCENT) for key, name in ATTACKS.items()},
}
"""Families of measures, by the part of the name before the slash."""


def describe(name: str) -> Measure:
    """The description of a measure; an unknown measure is described by its name.

    Examples:
        >>> describe("fgsm/0.05").title
        'accuracy under FGSM, eps 0.05, %'
    """
    if name in KNOWN:
        return KNOWN[name]
    head, _, member = name.partition("/")
    if member and head in FAMILIES:
        inner = KNOWN.get(member)
        found = FAMILIES[head]
        return (inner or found)._replace(title=found.title.format(inner.title if inner else member))
    if member and head in ("normalised", "l2"):  # attacks in another space, or another norm
        inner = describe(member)
        return inner._replace(title=f"{inner.title}, {head}")
    return Measure(name)


def corrected_with(name: str) -> str:
    """The name shared by measures whose claims are corrected together: an attack at all its eps, or one at all layers.

    Examples:
        >>> corrected_with("l2/fgsm/0.05"), corrected_with("interpolated/h1"), corrected_with("best/fid")
        ('l2/fgsm', 'interpolated', 'best/fid')
    """
    head = name.rpartition("/")[0]
    return head if head.rpartition("/")[2] in {*ATTACKS, "interpolated", "bend"} else name


def layer_name(layer: int | str) -> str:
    """The paper's name of a layer: input, h1, h2."""
    return "input" if int(layer) == 0 else f"h{layer}"
