"""Temporary changes: a network in evaluation mode, or a step that is undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards, even after an error, every module is back in its previous mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def undone(*parts: Any) -> Iterator[None]:
    """Restore networks, optimisers and other objects with a `state_dict` after the block."""
    before = [deepcopy(part.state_dict()) for part in parts]
    yield
    for part, state in zip(parts, before, strict=True):
        part.load_state_dict(state)
