"""Which images train, and which choose the checkpoint."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from classifiers.config import ClassifierData
from mmgan.engine.randomness import stream
from mmgan.errors import UserError


class Split(NamedTuple):
    """Rows of a data set, int64, ascending."""

    train: Tensor
    validation: Tensor
    pool: Tensor
    """All that validation leaves, `train` among them: what is used without its labels (Oliver et al. 2018)."""


def split(labels: Tensor, config: ClassifierData) -> Split:
    """Draw `config.validation` rows, then `config.labels_per_class` of every class from the others.

    `labels`: int64 [N]. Depends on them, the two numbers and `config.subset_seed` alone; raises UserError where there
    are too few images.
    """
    if config.validation >= len(labels):
        raise UserError(f"data.validation {config.validation} leaves none of {len(labels)} images to train on")
    order = torch.randperm(len(labels), generator=stream(config.subset_seed, "split", 0))
    validation, pool = order[: config.validation], order[config.validation :]
    train = pool
    if config.labels_per_class is not None:
        of_class = [train[labels[train] == c] for c in labels.unique()]
        fewest = min(len(rows) for rows in of_class)
        if fewest < config.labels_per_class:
            raise UserError(f"data.labels_per_class {config.labels_per_class} is more than the {fewest} of a class")
        train = torch.cat([rows[: config.labels_per_class] for rows in of_class])
    return Split(*(rows.sort().values for rows in (train, validation, pool)))
