"""Any tree of images, a folder or a zip of one: every file Pillow can read, of any size, as a viewer shows it.

The orientation in a file's EXIF data is applied, and transparency is shown on white. The images are decoded once, into
an array in the user's cache folder that is then memory-mapped; its key is a hash of the files' names and contents.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor, distributed
from tqdm import tqdm

from mmgan.data.cache import cached
from mmgan.data.config import DataConfig
from mmgan.errors import UserError

Tree = Path | zipfile.Path
"""A folder, a folder in a zip, or a file in one of them."""
FORMAT = 2  # part of the key: increase it whenever decoding changes
LABELS = "dataset.json"
UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, RuntimeError)
"""Errors that reading a file may raise; the last is for an encrypted zip or an unknown compression."""
LISTED = 10
"""How many entries of a list a message names."""


def load(config: DataConfig) -> tuple[Tensor, Tensor]:
    """All images under `root`, as the only split; labels number the folders directly under it, -1 for images in none.

    A `dataset.json` in `root`, as written by StyleGAN's tool, takes precedence: {"labels": [[file, label], ...]}. Links
    are followed; hidden files and folders are skipped. A folder without images keeps its number. Images are colour
    unless all are grey. With `resolution`, the shorter side is scaled to it and the centre is kept; otherwise all must
    have the same size. Prints one line that describes what was found. Raises UserError if there are no images, or if
    some cannot be used and `skip_broken` is false.
    """
    config.split_of("train")
    if config.download:
        raise UserError("a folder of images cannot be downloaded; leave data.download false")
    root, passed = Path(config.root), Counter[str]()
    try:
        tree, names = _zipped(root, passed) if root.is_file() else _tree(root, passed)
        folders = _classes(tree)
        said = _said(tree / LABELS)
    except OSError as error:
        raise UserError(f"cannot read {error.filename} ({error.strerror})") from error
    over = f"skipped: {_list([f'{passed[kind]} {kind}' for kind in sorted(passed)])}" if passed else ""
    if not names:
        raise UserError(f"no images under {root}" + (f" ({over})" if over else ""))
    with ThreadPoolExecutor() as pool:
        digests = list(_bar(pool.map(lambda name: _digest(tree / name), names), "reading", names))
    source = hashlib.sha256(repr((str(root.resolve()), config.resolution)).encode()).hexdigest()[:16]
    key = hashlib.sha256(repr((FORMAT, names, digests)).encode()).hexdigest()
    images, facts = cached(
        f"{root.name[:50]}-{source}", key, lambda put: _decode(tree, names, config.resolution, config.skip_broken, put)
    )
    broken: dict[str, str] = facts["broken"]
    if broken and not config.skip_broken:  # cached by an earlier run, which left them out
        raise _refusal(root, broken, len(names))
    kept = [Path(name) for name in names if name not in broken]
    if said is None:
        numbers = {folder: i for i, folder in enumerate(folders)}
        labels = torch.tensor([numbers[name.parts[0]] if len(name.parts) > 1 else -1 for name in kept])
    else:
        labels, folders = torch.tensor([said.get(name.as_posix(), -1) for name in kept]), []
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank()):
        left_out = f"left out as broken: {_list(list(broken))}" if broken else ""
        _say("; ".join(filter(None, [f"{root}: {_summary(folders, labels, facts)}", left_out, over])))
    return torch.from_numpy(images), labels


class Kinds(NamedTuple):
    """A description of the first files of a data set."""

    formats: Counter[str]
    """Number of files of each format (PNG, JPEG, ...), by Pillow's name for it."""
    sizes: Counter[tuple[int, int]]
    """Number of files of each width and height."""
    alpha: int
    """Number of files with transparency."""
    classes: list[str]
    """The folders directly under it, in the order of their labels; empty if `dataset.json` has the labels."""


def kinds(config: DataConfig) -> Kinds:
    """Describe the first 256 images of `root` (all of them, if they are resized) and name the classes."""
    root = Path(config.root)
    tree, names = _zipped(root, Counter()) if root.is_file() else _tree(root, Counter())
    found = Kinds(Counter(), Counter(), 0, classes(config))
    for name in names if config.resolution else names[:256]:
        image = _opened(tree / name)
        if isinstance(image, str):  # it is broken
            continue
        with image:
            found.formats[image.format or "unknown"] += 1
            found.sizes[image.size] += 1
            found = found._replace(alpha=found.alpha + image.has_transparency_data)
    return found


def classes(config: DataConfig) -> list[str]:
    """The folders directly under `root`, in the order of their labels; empty if `dataset.json` has the labels."""
    root = Path(config.root)
    tree = zipfile.Path(root) if root.is_file() else root
    return [] if (tree / LABELS).is_file() else _classes(tree)


def _classes(tree: Tree) -> list[str]:
    return sorted(entry.name for entry in tree.iterdir() if entry.is_dir() and not _hidden(entry.name))


def _tree(root: Path, passed: Counter[str]) -> tuple[Path, list[str]]:
    """A folder and its images."""
    if not root.is_dir():
        raise UserError(f"no folder or zip {root}; set data.root")
    return root, [str(name) for name in sorted(Path(file).relative_to(root) for file in _files(str(root), (), passed))]


def _zipped(root: Path, passed: Counter[str]) -> tuple[zipfile.Path, list[str]]:
    """The root of a zip and its images, in the order that they would have in a folder."""
    try:
        archive = zipfile.ZipFile(root)
    except zipfile.BadZipFile as error:
        raise UserError(f"{root} is neither a zip nor a folder ({error}); set data.root") from error
    files = [name for name in archive.namelist() if not name.endswith("/")]
    return zipfile.Path(archive), [str(name) for name in sorted(map(Path, files)) if _is_image(name, passed)]


def _is_image(file: Path, passed: Counter[str]) -> bool:
    """Whether Pillow has a reader for a file in a zip; `passed` counts the other files."""
    hidden = next((f"{part}/" for part in file.parts[:-1] if _hidden(part)), "hidden" if _hidden(file.name) else "")
    over = hidden or _unread(file.name)
    if over and str(file) != LABELS:
        passed[over] += 1
    return not over


def _unread(name: str) -> str:
    """The suffix of a file, if Pillow has no reader for it; otherwise empty."""
    suffix = Path(name).suffix.lower()
    return "" if suffix in _suffixes() else suffix or "without a suffix"


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _said(file: Tree) -> dict[str, int] | None:
    """The labels in a `dataset.json`, by file; None if it is missing. Raises UserError if its form is wrong."""
    if not file.is_file():
        return None
    try:
        labels = json.loads(file.read_bytes())["labels"] or []
        found = {name: label for name, label in labels}  # noqa: C416  # a list of pairs, or an error
        if not all(type(label) is int and label >= 0 for label in found.values()):
            raise ValueError("a label is not a whole number")
    except (ValueError, TypeError, KeyError) as error:
        form = '{"labels": [[file, number], ...]}, or null in place of the list'
        raise UserError(f"{file} is not of the form {form} ({error}); repair or remove it") from error
    return found


@cache
def _say(line: str) -> None:
    """Print a line, once per process."""
    print(line, flush=True)


def _files(folder: str, above: tuple[str, ...], passed: Counter[str]) -> Iterator[str]:
    """The files under `folder` that Pillow has a reader for; `passed` counts the others. `above`: real folders."""
    real = os.path.realpath(folder)
    if real in above:
        passed["link to a folder that contains it"] += 1
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == LABELS and not above:
                continue
            if _hidden(entry.name):
                passed[f"{entry.name}/" if entry.is_dir() else "hidden"] += 1
            elif entry.is_dir():
                yield from _files(entry.path, (*above, real), passed)
            elif not entry.is_file():
                passed["broken link or not a regular file"] += 1
            elif over := _unread(entry.name):
                passed[over] += 1
            else:
                yield entry.path


@cache
def _suffixes() -> set[str]:
    return {suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN}  # not .pdf


def _digest(file: Tree) -> str:
    """SHA-256 of a file; empty if it cannot be read, which is reported when it is decoded."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except UNREADABLE:
        return ""


class _Header(NamedTuple):
    size: tuple[int, int]
    """Width and height, as shown."""
    grey: bool


def _decode(
    root: Tree, names: Sequence[str], resolution: int | None, skip_broken: bool, put: Callable[[bytes], object]
) -> dict[str, Any]:
    """Pass all images, [C, H, W] each, to `put`, and return facts about them; raises UserError if some are unusable."""
    with ThreadPoolExecutor() as pool:
        found = _bar(pool.map(lambda name: _header(root / name), names), "reading headers", names)
        headers = dict(zip(names, found, strict=True))
        good = {name: header for name, header in headers.items() if isinstance(header, _Header)}
        broken = {name: header for name, header in headers.items() if isinstance(header, str)}
        sizes = Counter(header.size for header in good.values())
        if resolution is None and len(sizes) > 1:
            raise UserError(f"images under {root} have {len(sizes)} sizes: {_sizes(sizes)}; set data.resolution")
        mode = "L" if all(header.grey for header in good.values()) else "RGB"
        width, height = (resolution, resolution) if resolution else next(iter(sizes), (0, 0))
        shape = (len(mode), height, width)
        decoded = _bar(pool.map(lambda name: _pixels(root / name, mode, resolution), good), "decoding", good)
        for name, pixels in zip(good, decoded, strict=True):
            if isinstance(pixels, str):
                broken[name] = pixels
            elif pixels.shape != shape:
                broken[name] = f"decodes to {pixels.shape}, not {shape}"
            elif not broken or skip_broken:
                put(pixels.tobytes())
    broken = {name: broken[name] for name in names if name in broken}
    if broken and (not skip_broken or len(broken) == len(names)):
        raise _refusal(root, broken, len(names))
    kept = Counter(header.size for name, header in good.items() if name not in broken)
    return {
        "shape": [kept.total(), *shape],
        "broken": broken,
        "sizes": [[*size, n] for size, n in kept.most_common()],
    }


def _bar(found: Any, what: str, names: Any) -> Any:
    return tqdm(found, what, len(names), disable=None)


def _header(file: Tree) -> _Header | str:
    """Size and kind of an image, or why it cannot be used."""
    image = _opened(file)
    if isinstance(image, str):
        return image
    with image:
        width, height = image.size
        turned = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return _Header((height, width) if turned else (width, height), image.mode in ("1", "L", "LA"))


def _pixels(file: Tree, mode: str, resolution: int | None) -> np.ndarray | str:
    """The image as uint8 [C, H, W], or why it cannot be used."""
    opened = _opened(file)
    if isinstance(opened, str):
        return opened
    with opened:
        try:
            image = ImageOps.exif_transpose(opened)
            if image.has_transparency_data:
                over = image.convert("RGBA")
                image = Image.new("RGBA", over.size, "white")
                image.alpha_composite(over)
            image = image.convert(mode)
        except (OSError, SyntaxError, ValueError) as error:
            return str(error)
    fitted = ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS) if resolution else image
    return np.atleast_3d(np.asarray(fitted)).transpose(2, 0, 1)


def _opened(file: Tree) -> Image.Image | str:
    try:
        image = Image.open(file if isinstance(file, Path) else io.BytesIO(file.read_bytes()))
    except (*UNREADABLE, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return error.strerror or "not an image that Pillow can read" if isinstance(error, OSError) else str(error)
    if image.mode.startswith(("I", "F")):
        image.close()
        return f"more than 8 bits per channel (mode {image.mode}), convert it to 8"
    return image


def _refusal(root: Tree, broken: Mapping[str, str], of: int) -> UserError:
    """The error for files that cannot be used."""
    files = _list([f"{name} ({why})" for name, why in broken.items()])
    return UserError(
        f"{len(broken)} of {of} images under {root} cannot be used: {files}; repair or remove them, or leave them out "
        "with --data.skip_broken true"
    )


def _summary(folders: Sequence[str], labels: Tensor, facts: Mapping[str, Any]) -> str:
    """Number, classes, sizes and cropping of the images, as text."""
    n, _, height, width = facts["shape"]
    counts = Counter(labels.tolist())
    loose = counts.pop(-1, 0)
    text = f"{n} images"
    if folders:
        classes = [f"{i} {folder}: {counts[i] or 'none'}" for i, folder in enumerate(folders)]
        text += f" in {len(folders)} classes ({_list(classes)})"
    if loose:
        text += f", {loose} without a label"
    sizes = Counter({(w, h): count for w, h, count in facts["sizes"]})
    text += f"; sizes {_sizes(sizes)}"
    uneven = sum(count for (w, h), count in sizes.items() if w != h)
    if uneven and width == height:
        most = max(1 - min(size) / max(size) for size in sizes)
        text += f"; {uneven} are not square and lose up to {most:.0%} of their longer side"
    return text


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    return _list([f"{width}x{height} ({n})" for (width, height), n in sizes.most_common()])


def _list(words: Sequence[str]) -> str:
    """The first words, and the number of others."""
    more = [f"{len(words) - LISTED} more"] if len(words) > LISTED else []
    return ", ".join([*words[:LISTED], *more])
