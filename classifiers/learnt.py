"""What a classifier run trains: its network, and the parts that a mixup rule learns alongside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from classifiers.config import ClassifierConfig
from classifiers.fortified import fortify
from classifiers.networks import build, normalise_of
from classifiers.preprocess import Fitted
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.mixup import Staged


def network_of(config: ClassifierConfig, classes: int, preprocess: Fitted, shape: list[int]) -> Staged:
    """The network of `config` for images of `shape` [C, R, R], with its autoencoder, if it has one.

    Raises UserError for an autoencoder at a layer that the network does not have.
    """
    network = build(config.network, classes, *preprocess)
    try:
        return fortify(network, config.fortified, shape)
    except ValueError as error:
        raise UserError(str(error)) from error


class Learnt(NamedTuple):
    """The parts that a mixup rule learns alongside the network."""

    policy: nn.Module | None = None
    head: nn.Module | None = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The parts that exist, by name."""
        return {name: one for name, one in self._asdict().items() if one is not None}


class Heads(nn.Module):
    """Two heads on the same features, side by side: [B, classes + columns of the second]."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, features: Tensor) -> Tensor:
        """Both heads' outputs for `features` [B, d]."""
        return torch.cat([self.first(features), self.second(features)], 1)


def learnt(config: ClassifierConfig, network: Staged, classes: int) -> Learnt:
    """The parts that the mixup rule of `config` learns, if any; `network` comes from `build`."""
    if not (config.mixup and config.mixup.learns):
        return Learnt()
    torch.manual_seed(stream(config.seed, "rule's weights", 0).initial_seed())
    scale = normalise_of(network)

    def backbone() -> nn.Module:
        return Staged(*build(config.network, classes, scale.mean.flatten(), scale.std.flatten()).stages[:-1])

    size = int(network.stages[-1].get_parameter("weight").shape[1])
    return Learnt(config.mixup.policy(backbone, size), config.mixup.head(size))
