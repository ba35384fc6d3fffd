"""Images from a generator: by number, as a grid, or interpolated between latents or classes."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan.data import to_uint8
from mmgan.engine import files
from mmgan.engine.modes import evaluating


@torch.no_grad()
def generate(generator: nn.Module, z: Tensor, batch_size: int = 256) -> Tensor:
    """Images of inputs `z` [N, D]: uint8 [N, C, H, W] on the device of `generator`, whose mode does not change."""
    device = next(generator.parameters()).device
    with evaluating(generator):
        return torch.cat([to_uint8(generator(batch.to(device))) for batch in z.split(batch_size)])


def interpolation(a: Tensor, b: Tensor, columns: int, z_dim: int) -> Tensor:
    """`columns` inputs from each row of `a` to that of `b`, both [rows, z_dim + C]: [rows * columns, z_dim + C].

    Latents follow great circles, which roughly preserve the norm of a Gaussian latent (a straight line would pass near
    the origin, where none are drawn), and class vectors straight lines.
    """
    a, b = a[:, None], b[:, None]
    t = torch.linspace(0, 1, columns)[None, :, None]
    z, to = a[..., :z_dim], b[..., :z_dim]
    angle = F.cosine_similarity(z, to, dim=-1).clamp(-0.999, 0.999).acos()[..., None]
    circle = (torch.sin((1 - t) * angle) * z + torch.sin(t * angle) * to) / torch.sin(angle)
    line = torch.lerp(a[..., z_dim:], b[..., z_dim:], t)
    return torch.cat([circle, line], -1).flatten(0, 1)


def save_grid(images: Tensor, path: Path, columns: int) -> Tensor:
    """Write uint8 images [N, C, H, W] as one PNG, `columns` per row, small ones enlarged, to 32 pixels at most.

    Returns the picture: uint8 [3, H', W'].
    """
    path.parent.mkdir(exist_ok=True)
    scale = max(1, 32 // images.shape[-1])
    from torchvision.transforms.v2.functional import to_pil_image  # noqa: PLC0415  # takes a second to import
    from torchvision.utils import make_grid  # noqa: PLC0415

    picture = make_grid(F.interpolate(images.cpu(), scale_factor=scale), columns, pad_value=128)
    with files.replacing(path) as file:
        to_pil_image(picture).save(file, "PNG")
    return picture
