"""Augmentation of whole batches on the device; random draws are passed in as arguments."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_and_flip(
    images: Tensor, shifts: Tensor | None, pad: int, flips: Tensor | None, reflect: bool = False
) -> Tensor:
    """Crops of the images padded with `pad` black pixels, or by reflection, mirrored where `flips` is true.

    `images` [B, C, R, R], floating point if `reflect`; `shifts` int64 [B, 2] in [0, 2 pad], the crop's top left corner
    (`pad`, `pad` is the image itself); `flips` bool [B]. Returns the same dtype and shape, channels last in memory.
    """
    if shifts is None and flips is None:
        return images
    size, device = images.shape[-1], images.device
    offsets = torch.arange(size, device=device)
    rows = columns = offsets.expand(len(images), size)
    if shifts is not None:
        images = F.pad(images, (pad, pad, pad, pad), mode="reflect" if reflect else "constant")
        rows, columns = shifts[:, :1] + offsets, shifts[:, 1:] + offsets
    if flips is not None:
        columns = torch.where(flips[:, None], columns.flip(1), columns)
    batch = torch.arange(len(images), device=device)
    picked = images[batch[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


def cutout(x: Tensor, centres: Tensor, size: int, fill: Tensor) -> Tensor:
    """`x` [B, C, R, R] with a square of side `size` around `centres` set to `fill` [C] (DeVries & Taylor 2017).

    `centres` int64 [B, 2], row and column, anywhere in the image: a square may lie partly outside.
    """
    offsets = torch.arange(x.shape[-1], device=x.device)
    low = centres - size // 2
    inside = (offsets >= low[..., None]) & (offsets < low[..., None] + size)
    square = inside[:, 0, :, None] & inside[:, 1, None, :]
    return torch.where(square[:, None], fill[:, None, None], x)
