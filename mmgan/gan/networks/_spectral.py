"""Spectral normalisation (Miyato et al. 2018), PyTorch's implementation, in full precision."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import ParametrizationList


def normalise(layer: nn.Module, power_iterations: int = 1) -> None:
    """Divide the weight of `layer` by its largest singular value, whose estimate improves in every training pass."""
    spectral_norm(layer, n_power_iterations=power_iterations)
    weight = cast("ParametrizationList", layer.get_submodule("parametrizations.weight"))
    weight[0] = _FullPrecision(weight[0])


class _FullPrecision(nn.Module):
    """A parametrization outside autocast: half precision would make the power iteration inaccurate."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return self.norm(weight)
