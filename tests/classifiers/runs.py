"""What tests of classifier runs share."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from classifiers.config import ClassifierConfig
from classifiers.learnt import network_of
from classifiers.preprocess import fit
from classifiers.updates import Updates
from mmgan.data import Images, load
from mmgan.engine import checkpoint


def first_updates(config: ClassifierConfig, factor: float) -> Updates:
    """The first updates of a run on forty digits; the last layer's weights are `factor` times those that it has."""
    AcceleratorState._reset_state(reset_partial_state=True)
    pool = load(config.data)
    labelled = Images(pool.images[:40], pool.labels[:40])
    torch.manual_seed(0)
    net = network_of(config, 10, fit("standardise", pool.images, pool.images), [1, 8, 8])
    with torch.no_grad():  # predictions that differ
        net.stages[-1].get_parameter("weight").mul_(factor)
    return Updates(config, net, labelled, 10, Accelerator(cpu=True), pool.images if config.ssl else None)


def begun(run: Path, copy: Path) -> Path:
    """A copy of a run as it was at the first of its checkpoints that are kept."""
    shutil.copytree(run, copy)
    for late in checkpoint.steps(copy / "checkpoints")[1:]:
        shutil.rmtree(late)
    return copy
