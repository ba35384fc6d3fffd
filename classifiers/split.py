"""Which images are trained on, and which choose the checkpoint."""

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
    """All rows outside `validation`, including `train` and images without a label; they are used without their labels
    (Oliver et al. 2018)."""


def split(labels: Tensor, config: ClassifierData) -> Split:
    """Draw `config.validation` rows with labels, then `config.labels_per_class` of every class from the others.

    `labels`: int64 [N], -1 for none. Depends only on them, the two numbers and `config.subset_seed`; raises UserError
    if there are too few images.
    """
    order = torch.randperm(len(labels), generator=stream(config.subset_seed, "split", 0))
    labelled, loose = order[labels[order] >= 0], order[labels[order] < 0]
    if not len(labelled):
        folders = "put the images of each class in a separate folder directly under data.root"
        raise UserError(
            f"none of the {len(labels)} images of {config.name} ({config.split}) has a label, and a classifier needs "
            f"labels: {folders if config.name == 'folder' else 'choose a data.split with labels'}; to score a GAN of "
            "such images, give mmgan train-gan --score.extractor Inception with --score.extractor.weights FILE, "
            "or a classifier of other images of the same size"
        )
    if config.validation >= len(labelled):
        raise UserError(f"data.validation {config.validation} leaves none of the {len(labelled)} images to train on")
    validation, train = labelled[: config.validation], labelled[config.validation :]
    pool = torch.cat([train, loose])
    if config.labels_per_class is not None:
        of_class = [train[labels[train] == c] for c in labels[labelled].unique()]
        fewest = min(len(rows) for rows in of_class)
        if fewest < config.labels_per_class:
            raise UserError(
                f"data.labels_per_class {config.labels_per_class} is more than the {fewest} images of the smallest "
                "class"
            )
        train = torch.cat([rows[: config.labels_per_class] for rows in of_class])
    return Split(*(rows.sort().values for rows in (train, validation, pool)))
