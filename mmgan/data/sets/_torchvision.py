"""Code shared by the data sets from torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mmgan.data.config import DataConfig
from mmgan.errors import UserError

if TYPE_CHECKING:
    from torchvision.datasets import MNIST, VisionDataset  # takes half a second to import


def open_set(make: Callable[..., VisionDataset], config: DataConfig, **arguments: Any) -> Any:
    """`make(root, download=..., **arguments)`; raises UserError, saying what to do, if the files are not in root."""
    try:
        return make(config.root, download=config.download, **arguments)
    except (RuntimeError, OSError, ValueError, AssertionError) as error:  # the last two: a damaged MNIST
        if config.download:
            raise UserError(f"cannot download {config.name} into {config.root}: {error}") from error
        raise UserError(
            f"{config.name} is missing or damaged in {config.root}; pass --data.download true or another --data.root"
        ) from error


def from_raw(kind: type[MNIST]) -> type[MNIST]:
    """`kind`, read only from its raw files: torchvision prefers pickles of its older versions, `processed/*.pt`."""
    return type(kind.__name__, (kind,), {"_check_legacy_exist": lambda _: False})  # the folder has the class's name


def tensors(images: np.ndarray | Tensor, labels: Sequence[int] | np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
    """Images, uint8 [N, H, W] or [N, C, H, W], and labels as the tensors of an image set."""
    images = torch.as_tensor(images)
    return images.unsqueeze(1) if images.ndim == 3 else images, torch.as_tensor(labels).long()
