"""The classifiers that studies take from the runs of configs/sweeps/classifiers_fashion_mnist.yaml."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from classifiers import load
from classifiers.config import ClassifierConfig
from classifiers.studies import Setting
from mmgan.errors import UserError
from mmgan.mixup import Staged

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def finished(setting: Setting, arm: str, seed: int) -> tuple[Staged, ClassifierConfig, Tensor]:
    """Network, configuration and rows of the images trained on (int64) of the run RUNS/`arm`/seed-`seed`.

    The checkpoint is the best by validation error if there is one. Raises UserError for a run that is missing or
    unfinished.
    """
    if setting.runs is None:
        raise UserError("this study needs --runs FOLDER with the runs of configs/sweeps/classifiers_fashion_mnist.yaml")
    run = setting.runs / arm / f"seed-{seed}"
    network, config, _ = load.load_classifier(run, "auto", DEVICE)
    if not load.finished(run, config):
        raise UserError(f"{run} is not finished; the command that trains it resumes it")
    return network, replace(config, data=setting.data.of(config.data)), load.trained_rows(run)
