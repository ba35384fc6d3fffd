"""What is done to images before anything else: a scale and shift of each channel, or Oliver et al.'s GCN and ZCA."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from classifiers.networks import moments

Preprocess = Literal["standardise", "symmetric", "gcn-zca"]
Fitted = tuple[Tensor, Tensor, nn.Module | None]
"""Mean and standard deviation of each channel, float32 [C], after the preprocessing module, if there is one."""


def gcn(x: Tensor) -> Tensor:
    """Global contrast normalisation: rows of `x` [B, D] minus their mean, at Euclidean norm 55; 0 if constant."""
    x = x - x.mean(1, keepdim=True)
    return 55 * x / x.norm(dim=1, keepdim=True).clamp(min=1e-10)


def zca(x: Tensor, eps: float = 0.1) -> tuple[Tensor, Tensor]:
    """Mean m [D] and symmetric matrix (C + eps I)^(-1/2) [D, D] of rows `x` [N, D] of covariance C (divided by N).

    With `eps` 0, (x - m) W has covariance I. Computed in float64, returned in float32.
    """
    mean = x.double().mean(0)
    covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for part in x.split(1000):
        centred = part.double() - mean
        covariance += centred.T @ centred
    values, vectors = torch.linalg.eigh(covariance / len(x))
    return mean.float(), ((vectors * (values + eps).rsqrt()) @ vectors.T).float()


class Whiten(nn.Module):
    """GCN and ZCA of pixels in [0, 1], float32 [B, C, R, R], flattened in the order channel, height, width."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        """`mean` [C R R] and `matrix` [C R R, C R R], as `zca` computes them from the output of `gcn`."""
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, whitened."""
        return ((gcn(x.flatten(1)) - self.mean) @ self.matrix).view(x.shape)


def fit(kind: Preprocess, train: Tensor, pool: Tensor) -> Fitted:
    """Preprocessing for the training images uint8 [N, C, R, R]; whitening is fitted on the larger `pool`."""
    channels = train.shape[1]
    if kind == "standardise":
        return (*moments(train), None)
    if kind == "symmetric":
        return torch.full([channels], 0.5), torch.full([channels], 0.5), None
    return torch.zeros(channels), torch.ones(channels), Whiten(*zca(gcn(pool.flatten(1).float() / 255)))


def blank(kind: Preprocess, shape: list[int]) -> Fitted:
    """Unfitted preprocessing for images of `shape` [C, R, R], for a network into which weights are loaded."""
    pixels = shape[0] * shape[1] * shape[2]
    whiten = Whiten(torch.zeros(pixels), torch.zeros(pixels, pixels)) if kind == "gcn-zca" else None
    return torch.zeros(shape[0]), torch.ones(shape[0]), whiten
