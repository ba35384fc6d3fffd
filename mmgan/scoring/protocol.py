"""Protocols of scores. Scores by different protocols are never compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from mmgan.errors import UserError

Metric = Literal["is", "fid", "kid", "prc", "dc", "intra"]
FIRST: dict[Metric, str] = {"is": "is", "fid": "fid", "kid": "kid"}
FIRST |= {"prc": "precision", "dc": "density", "intra": "intra_fid"}
"""The first number that each metric gives."""


@dataclass(frozen=True)
class Protocol:
    """The number of generated images and the real images to compare them with."""

    num_samples: int
    """Number of generated images."""
    reference: str = "train"
    """Split of the real images."""
    num_reference: int | None = None
    """Number of real images, drawn at random from the split; None: all."""
    is_samples: int | None = None
    """Number of generated images for the Inception Score; None: num_samples."""
    metrics: Sequence[Metric] = ("is", "fid")
    """is, fid, kid, prc (precision and recall), dc (density and coverage), intra (FID of each class)."""

    def __post_init__(self) -> None:
        if (least := min(self.num_samples, self.for_is)) < 10:
            raise UserError(f"num_samples must be at least 10, one for each part of the Inception Score, not {least}")
        known = get_args(Metric)
        if not self.metrics or not set(self.metrics) <= set(known):
            unknown = ", ".join(metric for metric in self.metrics if metric not in known)
            raise UserError(f"metrics must be some of {', '.join(known)}, not {unknown or 'none'}")

    def of(self, metrics: str) -> Protocol:
        """The same protocol with other metrics, as in options: `is,fid,prc`. Raises UserError for unknown ones.

        Examples:
            >>> PROTOCOLS["test-10k"].of("fid, kid").metrics
            ('fid', 'kid')
        """
        return replace(self, metrics=tuple(re.findall(r"\w+", metrics.lower())))

    @property
    def drawn(self) -> int:
        """Number of images to generate."""
        only_is = set(self.metrics) == {"is"}
        return max(0 if only_is else self.num_samples, self.for_is if "is" in self.metrics else 0)

    @property
    def for_is(self) -> int:
        """Number of generated images for the Inception Score."""
        return self.is_samples or self.num_samples

    @property
    def facts(self) -> dict[str, Any]:
        """The protocol's part of a score's stamp."""
        numbers = {"reference": self.reference, "num_samples": self.num_samples, "is_samples": self.for_is}
        return numbers | {"quantisation": "floor to 256 levels"}


ProtocolName = Literal["train-50k", "test-10k", "miyato", "paper"]
PROTOCOLS = {
    "train-50k": Protocol(50_000),
    "test-10k": Protocol(10_000, "test"),
    "miyato": Protocol(5_000, "test", 10_000, is_samples=50_000),
    "paper": Protocol(50_000, "test"),
}
"""Protocols by name.

`paper`: the paper states no protocol; this is that of its authors' launcher (`gan/task_launcher.py` in the branch
new_gan): 50,000 images, floored to 8 bits, FID against the test set, IS in ten parts.

`miyato`: Miyato et al.'s, FID of 5,000 images against 10,000 of the test set, IS of ten times 5,000. The paper may
have used it: its baseline, FID 21.9 at IS 7.97, is their network and close to their 21.7, while this network scores
about 14 to 17 with 50,000 samples against the training set.
"""


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """`field x, not y` for every field in which two stamps differ."""
    return [f"{key} {a.get(key)}, not {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def comparable(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    """Raise UserError, naming the fields, if two stamps differ."""
    if fields := differing(a, b):
        raise UserError(f"scores by different protocols cannot be compared: {'; '.join(fields)}")
