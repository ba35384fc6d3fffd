"""Images in a NumPy file: an `.npy`, or the array `arr_0` of an `.npz`.

They are uint8, [N, H, W, C] or [N, C, H, W] with 1 or 3 channels, or grey, [N, H, W]. An `.npz` may also hold labels,
`arr_1`, int [N]. An `.npy` is memory-mapped; an `.npz` is unpacked once, into the user's cache folder, and mapped.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from mmgan.data.cache import cached
from mmgan.data.config import DataConfig
from mmgan.errors import UserError

PIECE = 2**24
"""Bytes to unpack at a time."""


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    """All images of the file `root`, one split; labels are -1 if the file has none."""
    config.split_of("train")
    if config.download:
        raise UserError("a file of images cannot be downloaded; leave data.download false")
    file = Path(config.root)
    if file.suffix not in (".npy", ".npz") or not file.is_file():
        raise UserError(f"{file} is not an .npy or .npz file; set data.root")
    try:
        images, labels = _npy(file) if file.suffix == ".npy" else _npz(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} contains no readable images ({error})") from error
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UserError(f"{file}: its labels must be whole numbers, one for each of {len(images)} images")
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


def _npy(file: Path) -> tuple[np.ndarray, np.ndarray]:
    images = np.load(file, mmap_mode="c", allow_pickle=False)
    images = _channels_first(images, images.shape, images.dtype)
    return images, np.full(len(images), -1)


def _npz(file: Path) -> tuple[np.ndarray, np.ndarray]:
    with file.open("rb") as stream:
        key = hashlib.file_digest(stream, "sha256").hexdigest()
    with zipfile.ZipFile(file) as archive:
        arrays = [name.removesuffix(".npy") for name in archive.namelist()]
        if "arr_0" not in arrays:
            raise ValueError(f"its arrays are {', '.join(arrays) or 'none'}, but the images must be arr_0")
        name = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]
        found = cached(f"{file.stem[:50]}-{name}", key, lambda put: _unpack(archive, put))
        labels = np.full(len(found.images), -1)
        if "arr_1" in arrays:
            with archive.open("arr_1.npy") as stream:
                labels = np.lib.format.read_array(stream, allow_pickle=False)
    return found.images, labels


def _unpack(archive: zipfile.ZipFile, put: Callable[[bytes], object]) -> dict[str, Any]:
    """Pass the images to `put` in pieces, [C, H, W] each; returns their shape."""
    with archive.open("arr_0.npy") as stream:
        shape, dtype = _header(stream)
        size = int(np.prod(shape[1:]))
        rows = max(1, PIECE // max(1, size))
        made: list[int] = []
        for start in range(0, shape[0], rows):
            n = min(rows, shape[0] - start)
            piece = np.frombuffer(stream.read(n * size), np.uint8).reshape(n, *shape[1:])
            images = _channels_first(piece, shape, dtype)
            put(images.tobytes())
            made = [shape[0], *images.shape[1:]]
    return {"shape": made}


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if fortran:
        raise ValueError("it is in Fortran order; save numpy.ascontiguousarray of it")
    _layout(shape, dtype)
    return shape, dtype


def _channels_first(images: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """`images`, a part of an array of `shape`, as [N, C, H, W]."""
    layout = _layout(shape, dtype)
    if layout == "NHW":
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if layout == "NHWC" else images


def _layout(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """NHWC, NCHW or NHW; raises ValueError if it is none of them or ambiguous."""
    said = f"{dtype} {list(shape)}"
    if dtype != np.uint8:
        raise ValueError(f"it is {said}, but must be uint8, from 0 to 255")
    if len(shape) == 3 and all(shape):
        return "NHW"
    channels = [len(shape) == 4 and all(shape) and shape[axis] in (1, 3) for axis in (1, -1)]
    if channels[0] == channels[1]:  # neither, or, in images of 1 or 3 pixels, both
        raise ValueError(f"it is {said}, but must be [N, H, W, C] or [N, C, H, W] with 1 or 3 channels, or [N, H, W]")
    return "NCHW" if channels[0] else "NHWC"
