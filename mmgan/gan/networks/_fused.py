"""Two exact identities that reduce the multiplications of a resampling 3x3 convolution to 4/9.

Averaging, or repeating, pixels can be folded into the kernel of a convolution: a 3x3 kernel, summed over its four
placements in 4x4, is applied with stride 2. Both results equal those of the two steps up to rounding.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def _box(weight: Tensor) -> Tensor:
    """Sum of the four placements of a 3x3 kernel inside 4x4: [O, I, 3, 3] to [O, I, 4, 4]."""
    rows = F.pad(weight, (0, 0, 0, 1)) + F.pad(weight, (0, 0, 1, 0))
    return F.pad(rows, (0, 1, 0, 0)) + F.pad(rows, (1, 0, 0, 0))


def conv_pool(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`avg_pool2d(conv2d(x, weight, bias, padding=1), 2)` as one strided convolution.

    `x` is [N, I, H, W] with H and W even, `weight` [O, I, 3, 3]; the result is [N, O, H/2, W/2].
    """
    return F.conv2d(x, _box(weight) / 4, bias, stride=2, padding=1)


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv2d(interpolate(x, scale_factor=2), weight, bias, padding=1)`, nearest, as one transposed convolution.

    `x` is [N, I, H, W], `weight` [O, I, 3, 3]; the result is [N, O, 2H, 2W].
    """
    h = F.conv_transpose2d(x, _box(weight).flip(2, 3).transpose(0, 1), stride=2, padding=1)
    # On a CPU, the gradient of a bias inside the transposed convolution takes a third of its backward pass.
    # If it were added in a precision other than the map's, the map would be copied twice.
    return h if bias is None else h.add_(bias.to(h.dtype)[:, None, None])
