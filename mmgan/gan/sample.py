"""Images from a generator: by number, as a grid, along a line between latents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan.data import to_uint8
from mmgan.engine.modes import evaluating
from mmgan.engine.randomness import stream

BLOCK = 1024
"""Latents are drawn in blocks of so many, each from its own stream."""


def latents(seed: int, start: int, stop: int, z_dim: int) -> Tensor:
    """Latents number `start` to `stop` - 1 of a seed: float32 [stop - start, z_dim] on the CPU.

    Latent i depends on the seed and on i alone.
    """
    blocks = range(start // BLOCK, (stop - 1) // BLOCK + 1)
    z = torch.cat([torch.randn(BLOCK, z_dim, generator=stream(seed, "sample", block)) for block in blocks])
    return z[start - blocks[0] * BLOCK :][: stop - start]


@torch.no_grad()
def generate(generator: nn.Module, z: Tensor, batch_size: int = 256) -> Iterator[Tensor]:
    """Images of `z` in batches, uint8 [B, C, H, W] on the generator's device, whose modes are left as they were."""
    device = next(generator.parameters()).device
    for batch in z.split(batch_size):
        with evaluating(generator):
            images = to_uint8(generator(batch.to(device)))
        yield images


def interpolation(z: Tensor, rows: int, columns: int) -> Tensor:
    """Latents on great circles from z[2r] to z[2r + 1], `columns` of them for each of `rows`: [rows * columns, z_dim].

    Circles keep about the length of a Gaussian latent; a straight line would pass near the origin, where none is drawn.
    """
    a, b = z[0 : 2 * rows : 2, None], z[1 : 2 * rows : 2, None]
    t = torch.linspace(0, 1, columns)[None, :, None]
    angle = F.cosine_similarity(a, b, dim=-1).clamp(-0.999, 0.999).acos()[..., None]
    return ((torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)).flatten(0, 1)


def save_grid(images: Tensor, path: Path, columns: int) -> Tensor:
    """Write uint8 images [N, C, H, W] as one PNG, `columns` a row, enlarged to at least 32 pixels each.

    Returns what is in it: uint8 [3, H', W'].
    """
    path.parent.mkdir(exist_ok=True)
    scale = max(1, 32 // images.shape[-1])
    from torchvision.transforms.v2.functional import to_pil_image  # noqa: PLC0415  # takes a second to import
    from torchvision.utils import make_grid  # noqa: PLC0415

    picture = make_grid(F.interpolate(images.cpu(), scale_factor=scale), columns, pad_value=128)
    to_pil_image(picture).save(path)
    return picture
