"""Conversion from uint8 rows of an image set to a network's input, on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from mmgan.memory import free


class Feed:
    """Rows of images, or of labels, kept on `device`; on a GPU, only if they take less than 1/8 of its free memory."""

    def __init__(self, images: Tensor, device: torch.device) -> None:
        self.device = device
        fits = device.type != "cuda" or images.nbytes < free(device) / 8  # networks and activations come later
        self.images = images.to(device) if fits else images

    def __call__(self, rows: Tensor) -> Tensor:
        """The images or labels of `rows`, int64 [B] on the CPU: [B, ...] on the device, in the dtype of the set."""
        if self.images.device.type == self.device.type:  # a device may lack the index its tensors have
            return self.images[rows.to(self.device, non_blocking=True)]
        return self.images[rows].pin_memory().to(self.device, non_blocking=True)


NOISE_BELOW = 1 - 2**-16
"""The largest noise below one grey level that float32 can add to 255; more would round to the next level."""


def to_network(images: Tensor, flips: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
    """uint8 [B, C, H, W] to float32 in [-1, 1]: v / 127.5 - 1, or, with `noise` u in [0, 1), (v + u) / 128 - 1.

    `flips` is bool [B]: which images to mirror. Dequantisation with noise of one grey level follows Miyato et al.
    """
    x = images.float()
    if flips is not None:
        x = torch.where(flips[:, None, None, None], x.flip(3), x)
    return x / 127.5 - 1 if noise is None else (x + noise.clamp(max=NOISE_BELOW)) / 128 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1], floating point, to 256 levels of equal width: uint8 of the same shape.

    The inverse of `to_network`, with or without noise: floor(128 (x + 1)), and 255 for 1.
    """
    return ((x.float() + 1) * 128).floor().clamp(0, 255).to(torch.uint8)
