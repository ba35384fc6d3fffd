"""The classifiers that studies take from the runs of scripts/compare_cls.sh."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor

from classifiers.config import ClassifierConfig
from classifiers.load import load_classifier
from mmgan.engine.checkpoint import at
from mmgan.errors import UserError
from mmgan.mixup import Staged

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def finished(runs: Path | None, arm: str, seed: int) -> tuple[Staged, ClassifierConfig, Tensor]:
    """Network, configuration and rows of the images trained on (int64) of the run `runs`/`arm`/seed-`seed`.

    The checkpoint is the best by validation error where there is one. Raises UserError for a run that is not there, or
    not finished.
    """
    if runs is None:
        raise UserError("this study needs --runs FOLDER with the runs of scripts/compare_cls.sh, FOLDER/ARM/seed-N")
    run = runs / arm / f"seed-{seed}"
    network, config, _ = load_classifier(run, "best" if (run / "best").is_dir() else "last", DEVICE)
    rows = torch.tensor(json.loads((run / "split.json").read_text())["train"])
    if not at(run / "checkpoints", math.ceil(config.epochs * len(rows) / config.batch_size)).exists():
        raise UserError(f"{run} is not finished; the command that trains it goes on from where it is")
    return network, config, rows
