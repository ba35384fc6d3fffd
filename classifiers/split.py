"""Which images train, and which choose the checkpoint."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from classifiers.config import ClassifierData
from mmgan.engine.randomness import stream
from mmgan.errors import UserError


class Split(NamedTuple):
    """Rows of a data set, int64, ascending; all but those of `pool` have labels."""

    train: Tensor
    validation: Tensor
    pool: Tensor
    """All that validation leaves, `train` and images without a label among them: what is used without its labels
    (Oliver et al. 2018)."""


def split(labels: Tensor, config: ClassifierData) -> Split:
    """Draw `config.validation` rows with labels, then `config.labels_per_class` of every class from the others.

    `labels`: int64 [N], -1 for none. Depends on them, the two numbers and `config.subset_seed` alone; raises UserError
    where there are too few images.
    """
    order = torch.randperm(len(labels), generator=stream(config.subset_seed, "split", 0))
    labelled, loose = order[labels[order] >= 0], order[labels[order] < 0]
    if not len(labelled):
        folders = "put those of each class in a folder of its own right under data.root"
        raise UserError(
            f"none of {len(labels)} images of {config.name} ({config.split}) has a label, which a classifier learns "
            f"from: {folders if config.name == 'folder' else 'choose a data.split with labels'}; to score a GAN of "
            "such images, give scripts/train_gan.py --score.extractor Inception with --score.extractor.weights FILE, "
            "or a classifier of other images of their size"
        )
    if config.validation >= len(labelled):
        raise UserError(f"data.validation {config.validation} leaves none of {len(labelled)} images to train on")
    validation, train = labelled[: config.validation], labelled[config.validation :]
    pool = torch.cat([train, loose])
    if config.labels_per_class is not None:
        of_class = [train[labels[train] == c] for c in labels[labelled].unique()]
        fewest = min(len(rows) for rows in of_class)
        if fewest < config.labels_per_class:
            raise UserError(f"data.labels_per_class {config.labels_per_class} is more than the {fewest} of a class")
        train = torch.cat([rows[: config.labels_per_class] for rows in of_class])
    return Split(*(rows.sort().values for rows in (train, validation, pool)))
