"""Any tree of images: every file Pillow can read, of any size, grey or colour.

The images are decoded once, into an array that is then mapped into memory; it is kept in the user's cache folder
under a key of the files' names, sizes and times and of how they were decoded.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from mmgan.data.config import DataConfig
from mmgan.errors import UserError

FORMAT = 1  # part of the key: raise it when the same files are decoded differently


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    """All images under `root`, one split; labels count the folders right under it, -1 for images not in any.

    Images are colour unless all are grey. With `resolution` the shorter side is scaled to it and the middle kept;
    without, all must have one size.
    """
    config.split_of("train")
    if config.download:
        raise UserError("a folder of images cannot be downloaded; leave data.download false")
    root = Path(config.root).expanduser()
    suffixes = {suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN}  # not .pdf
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise UserError(f"no images under {root}" if root.is_dir() else f"no folder {root}; set data.root")
    names = [str(file.relative_to(root)) for file in files]
    stats = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((FORMAT, config.resolution, str(root.resolve()), names, stats)).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mmgan" / f"{root.name[:50]}-{key}.npy"
    try:
        images = np.load(cache, mmap_mode="c")
    except (OSError, ValueError, EOFError):  # not there yet, or torn
        _decode(files, config.resolution, cache)
        images = np.load(cache, mmap_mode="c")
    folders = [Path(name).parts[0] if len(Path(name).parts) > 1 else "" for name in names]
    classes = {folder: i for i, folder in enumerate(sorted(set(folders) - {""}))}
    labels = torch.tensor([classes.get(folder, -1) for folder in folders])
    return torch.from_numpy(images), labels


def _decode(files: list[Path], resolution: int | None, cache: Path) -> None:
    """Write all `files` as one array uint8 [N, C, H, W], moved to `cache` when complete."""
    with ThreadPoolExecutor() as pool:
        shapes = list(tqdm(pool.map(_shape, files), "reading headers", len(files), disable=None))
        sizes = {size for size, _ in shapes}
        if resolution is None and len(sizes) > 1:
            raise UserError(f"images of {len(sizes)} sizes under {files[0].parent}; set data.resolution")
        width, height = (resolution, resolution) if resolution else sizes.pop()
        mode = "L" if all(grey for _, grey in shapes) else "RGB"
        part = cache.with_name(f"{cache.name}.{os.getpid()}")
        shape = (len(files), len(mode), height, width)
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            try:
                array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
                decoded = pool.map(lambda file: _pixels(file, mode, resolution), files)
                for i, pixels in enumerate(tqdm(decoded, "decoding", len(files), disable=None)):
                    array[i] = pixels
                array.flush()
                part.rename(cache)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {part}: {error}; set XDG_CACHE_HOME to another folder") from error


def _shape(file: Path) -> tuple[tuple[int, int], bool]:
    """(width, height) and whether the image is grey."""
    with _opened(file) as image:
        return image.size, image.mode in ("1", "L", "LA")


def _pixels(file: Path, mode: str, resolution: int | None) -> np.ndarray:
    """The image as uint8 [C, H, W]."""
    with _opened(file) as opened:
        try:
            image = opened.convert(mode)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{file} is a broken image ({error}); mend or remove it") from error
    fitted = ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS) if resolution else image
    return np.atleast_3d(np.asarray(fitted)).transpose(2, 0, 1)


def _opened(file: Path) -> Image.Image:
    try:
        image = Image.open(file)
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} is not an image Pillow can read; mend or remove it") from error
    if image.mode.startswith(("I", "F")):
        image.close()
        raise UserError(f"{file} has more than 8 bits a channel (mode {image.mode}); convert it to 8 bits")
    return image
