"""Fortified Networks (Lamb et al. 2018): a denoising autoencoder as a stage of a classifier, between two others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from mmgan.engine.modes import evaluating
from mmgan.mixup import Staged

Activation = Literal["tanh", "leaky-relu"]


@dataclass(frozen=True, kw_only=True)
class Fortified:
    """A denoising autoencoder in the classifier, which continues from the reconstruction; noisy at test time too."""

    layer: int | None = None
    """Number of the network's stages before it, 1 or more; as a stage of its own, it raises the numbers of all later
    layers by one; null: before the last stage, as in the authors' code. On feature maps (our extension) it acts on each
    pixel separately."""
    hidden: int = 512
    """Number of its hidden units."""
    activation: Activation = "tanh"
    """Activation after both of its layers; leaky-relu has a slope of 0.2, as in the authors' smaller networks."""
    noise: float = 0.1
    """Standard deviation of the Gaussian noise added to its input, in training and at test time."""
    weight: float = 1.0
    """Weight of its reconstruction error, the squared error averaged over the states."""
    cross: bool = False
    """Also add the error of an attacked image's reconstruction against the clean states; needs adversarial.clean."""
    blocking: bool = False
    """Block the gradient of these errors to the target states, so that these do not move towards the reconstruction."""

    def __post_init__(self) -> None:
        if self.layer is not None and self.layer < 1:
            raise ValueError(f"fortified.layer must be 1 or more, not {self.layer}")
        if self.hidden < 1:
            raise ValueError(f"fortified.hidden must be positive, not {self.hidden}")
        if not self.weight and (self.cross or self.blocking):
            raise ValueError("fortified.cross and blocking have no effect with fortified.weight 0")
        for name in ("noise", "weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"fortified.{name} must be 0 or more, not {getattr(self, name)}")


class Autoencoder(nn.Module):
    """r(h) = s(s((h + noise * n) W + b) W' + b'), n ~ N(0, 1), of states [B, size] or, at each pixel, [B, size, H, W].

    Both layers share one weight matrix. Noise is drawn for the rows of all processes and each takes its share, so that
    the result does not depend on their number.
    """

    def __init__(self, size: int, hidden: int, activation: Activation, noise: float) -> None:
        super().__init__()
        bound = (size + hidden) ** -0.5
        self.weight = nn.Parameter(torch.empty(size, hidden).uniform_(-bound, bound))
        self.encoder_bias = nn.Parameter(torch.zeros(hidden))
        self.decoder_bias = nn.Parameter(torch.zeros(size))
        self.activation: nn.Module = nn.Tanh() if activation == "tanh" else nn.LeakyReLU(0.2)
        self.noise = noise
        self.generator: Generator | None = None
        """The source of the noise; None: torch's global generator."""
        self.rank, self.world = 0, 1
        """This process's number, and how many processes there are."""

    def forward(self, h: Tensor) -> Tensor:
        """r(h), of the shape of `h`."""
        if self.noise:
            shape, own = (self.world * len(h), *h.shape[1:]), slice(self.rank * len(h), (self.rank + 1) * len(h))
            h = h + self.noise * torch.randn(shape, device=h.device, dtype=h.dtype, generator=self.generator)[own]
        hidden = self.activation(F.linear(h.movedim(1, -1), self.weight.T, self.encoder_bias))
        return self.activation(F.linear(hidden, self.weight, self.decoder_bias)).movedim(-1, 1)


def fortify(network: Staged, config: Fortified | None, shape: list[int]) -> Staged:
    """`network`, for images of `shape` [C, R, R], with the autoencoder of `config`, if there is one.

    Raises ValueError, naming the option, for a layer that the network does not have.
    """
    if config:
        layer = network.depth - 1 if config.layer is None else config.layer
        if layer >= network.depth:
            raise ValueError(f"fortified.layer {layer}: the network has layers 1 to {network.depth - 1}")
        with torch.no_grad(), evaluating(network):
            size = network(torch.zeros(1, *shape), stop=layer).shape[1]
        network.stages.insert(layer, Autoencoder(size, config.hidden, config.activation, config.noise))
    return network


def reconstruction(h: Tensor, r: Tensor, blocking: bool) -> Tensor:
    """||h - r||^2 / d, a mean over rows, for the states `h` [B, ...] and their reconstruction `r`, of one shape."""
    return F.mse_loss(r.float(), (h.detach() if blocking else h).float())
