"""What a score is measured by. Numbers of unlike protocols are never put beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mmgan.errors import UserError

Metric = Literal["is", "fid", "kid", "prc"]


@dataclass(frozen=True)
class Protocol:
    """How many generated images are compared with which real ones."""

    num_samples: int
    """Generated images."""
    reference: Literal["train", "test"] = "train"
    """Split the real images are of."""
    num_reference: int | None = None
    """Real images, drawn at random from the split; None: all of it."""
    is_samples: int | None = None
    """Generated images for the Inception Score alone; None: num_samples."""
    metrics: Sequence[Metric] = ("is", "fid")
    """is, fid, kid, and prc for precision and recall."""

    def __post_init__(self) -> None:
        if self.num_samples < 10 or (self.is_samples or 10) < 10:
            raise UserError("a score needs at least 10 samples, one for each of the Inception Score's ten parts")
        if not self.metrics or not set(self.metrics) <= set(get_args(Metric)):
            raise UserError(
                f"metrics must be some of {', '.join(get_args(Metric))}, not {','.join(self.metrics) or '-'}"
            )

    @property
    def drawn(self) -> int:
        """Images that have to be generated."""
        only_is = set(self.metrics) == {"is"}
        return max(0 if only_is else self.num_samples, self.for_is if "is" in self.metrics else 0)

    @property
    def for_is(self) -> int:
        """Generated images the Inception Score is of."""
        return self.is_samples or self.num_samples


PROTOCOLS = {
    "train-50k": Protocol(50_000),
    "test-10k": Protocol(10_000, "test"),
    "miyato": Protocol(5_000, "test", 10_000),
    "paper": Protocol(5_000, "test", 10_000, is_samples=50_000),
}
"""Protocols by name.

`paper`: the paper states no protocol. Its baseline, FID 21.9 at IS 7.97, is Miyato et al.'s network and lies beside
their own 21.7, measured on 5,000 generated and 10,000 real test images, while that network scores about 14 to 17 with
50,000 samples against the training set. So FID is read as theirs, and IS as on 50,000 samples in ten parts, the field's
custom (Salimans et al.) and Miyato et al.'s.

`miyato`: their FID; its IS is of the same 5,000 samples and so not theirs.
"""


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """`field x, not y` for every field in which two stamps differ."""
    return [f"{key} {a.get(key)}, not {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raise UserError, naming the fields, when two stamps differ."""
    if fields := differing(a, b):
        raise UserError(f"scores by different protocols are not compared: {'; '.join(fields)}")
