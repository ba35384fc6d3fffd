"""Images to score or to compare with, by number, from any source."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from mmgan import modules
from mmgan.data import DataConfig, class_names, data_sets, load
from mmgan.data.sets import folder
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.scoring import cache
from mmgan.scoring.protocol import Protocol

Draw = Callable[[int, int], Tensor]
"""Images `start` to `stop` - 1: uint8 [stop - start, C, H, W]."""

DENSE = 4
"""Images are read one by one if fewer than one in this many is needed."""


@dataclass(frozen=True)
class Source:
    """A set of images, or a generator of any number of them."""

    name: str
    """The name of a data set, `folder`, `array`, or the origin of a generator."""
    draws: Callable[[int], Draw]
    """Images by number for a sampling seed, which a set of images ignores."""
    shape: tuple[int, int, int]
    """(C, H, W) of every image."""
    hash: str
    """SHA-256 of the images, or of the generator; empty for a function."""
    split: str = ""
    """Split of a data set."""
    number: int | None = None
    """Number of images; None: a generator, which has no limit."""
    labels: Tensor | None = None
    """int64 [number], -1 for an image without a label; None if there are no labels."""
    labelled: Callable[[int, int], Tensor] | None = None
    """For a conditional generator: labels, int64 [n], of the first n images of a sampling seed."""
    drawn: str = ""
    """How those labels are drawn, as text."""
    changed: str = ""
    """How their size and channels were changed, as text; empty if they were not."""
    classes: tuple[str, ...] = ()
    """Names of the classes; empty if labels are numbers with a fixed meaning."""
    kinds: folder.Kinds | None = None
    """A description of the files, if they are decoded ones."""
    seeded: bool = False
    """Whether different sampling seeds give different images."""
    step: int = 0
    """Step of a run's checkpoint."""


def labels_of(source: Source, seed: int, n: int) -> Tensor | None:
    """Labels of the first `n` images of a sampling seed, int64 [n], -1 for images without one; None if no labels."""
    if source.labelled:
        return source.labelled(seed, n)
    return None if source.labels is None else source.labels[:n]


def named_classes(source: Source, names: Sequence[str]) -> Source:
    """`source`, whose labels index `names`, with these as labels if they are distinct numbers, else as `classes`."""
    if not all(name.isdecimal() for name in names) or len(set(map(int, names))) < len(names):
        return replace(source, classes=tuple(names))
    numbers = torch.tensor([*map(int, names), -1])  # the last is for images in no class
    labels, labelled = source.labels, source.labelled
    if labelled:
        return replace(source, labelled=lambda seed, n: numbers[labelled(seed, n)])
    return source if labels is None else replace(source, labels=numbers[labels])


def resized(source: Source, size: int) -> Source:
    """Its images at [size, size], by bilinear interpolation antialiased as in Pillow."""
    if source.shape[1:] == (size, size):
        return source
    from torchvision.transforms.v2.functional import resize  # noqa: PLC0415  # takes a second to import

    def draws(seed: int) -> Draw:
        draw = source.draws(seed)
        return lambda start, stop: resize(draw(start, stop), [size, size], antialias=True)

    how = f"{source.shape[2]}x{source.shape[1]} to {size}x{size}, bilinear, antialiased as Pillow does"
    return _changed(source, draws, (source.shape[0], size, size), how)


def in_channels(source: Source, channels: int) -> Source:
    """Its images in 1 channel (the luma of colours) or 3 (grey repeated)."""
    if source.shape[0] == channels:
        return source

    def draws(seed: int) -> Draw:
        draw = source.draws(seed)
        if channels == 3:
            return lambda start, stop: draw(start, stop).expand(-1, 3, -1, -1)
        from torchvision.transforms.v2.functional import rgb_to_grayscale  # noqa: PLC0415  # takes a second to import

        return lambda start, stop: rgb_to_grayscale(draw(start, stop))

    how = "grey repeated in three channels" if channels == 3 else "colour to its luma (ITU-R BT.601)"
    return _changed(source, draws, (channels, *source.shape[1:]), how)


def _changed(source: Source, draws: Callable[[int], Draw], shape: tuple[int, int, int], how: str) -> Source:
    content = hashlib.sha256(f"{source.hash} {how}".encode()).hexdigest() if source.hash else ""
    said = "; ".join(filter(None, [source.changed, how]))
    return replace(source, draws=draws, shape=shape, hash=content, changed=said)


def part(source: Source, rows: Tensor) -> Source:
    """Some images of a set: `rows`, int64, in ascending order."""
    draw = source.draws(0)

    def drawn(start: int, stop: int) -> Tensor:
        mine = rows[start:stop].tolist()
        if mine and mine[-1] - mine[0] < DENSE * len(mine):  # read one piece of the set, most of which is needed
            return draw(mine[0], mine[-1] + 1)[torch.tensor(mine) - mine[0]]
        return torch.cat([draw(row, row + 1) for row in mine]) if mine else draw(0, 0)

    digest = hashlib.sha256(f"{source.hash} {rows.tolist()}".encode()).hexdigest()
    labels = None if source.labels is None else source.labels[rows]
    return replace(source, draws=lambda _seed: drawn, hash=digest, number=len(rows), labels=labels)


def apart(source: Source, n: int) -> tuple[Source, Source]:
    """`n` images of a set, a fixed random choice, and the others."""
    assert source.number is not None
    order = torch.randperm(source.number, generator=stream(0, "apart", 0))
    return part(source, order[:n].sort().values), part(source, order[n:].sort().values)


def first(source: Source, n: int, seed: int, content: str) -> Source:
    """The first `n` images of a generator for a seed, as a set with the hash `content`."""
    labels = labels_of(source, seed, n)
    return replace(source, draws=lambda _seed: source.draws(seed), number=n, hash=content, labels=labels, labelled=None)


def of(images: Tensor, name: str, split: str = "", labels: Tensor | None = None) -> Source:
    """Images uint8 [N, C, H, W] as a source."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    content = cache.content_hash(images)
    if labels is not None and not (labels >= 0).any():
        labels = None
    return Source(name, lambda _seed: lambda a, b: images[a:b], shape, content, split, len(images), labels)


def of_data(data: DataConfig, accelerator: Accelerator, count: int | None = None, square: bool = True) -> Source:
    """`count` images of a data set, a fixed random choice, or all; raises UserError if they are not available.

    One process per machine goes first and decodes the images into the cache for the others.
    """
    problem = None
    with accelerator.local_main_process_first():
        try:
            images, labels = load(data, square)
        except UserError as error:  # raised once all processes are past the barrier
            problem = error
    if problem:
        raise problem
    if count is not None and count < len(images):
        rows = torch.randperm(len(images), generator=stream(0, "reference", 0))[:count].sort().values
        images, labels = images[rows], labels[rows]
    return of(images, data.name, data.split, labels)


def of_files(data: DataConfig, accelerator: Accelerator) -> Source:
    """The images of a folder, a zip or an array; labels are numbers if all class names are."""
    found = replace(of_data(data, accelerator, square=False), split="")
    if data.name != "folder":
        return found
    kinds, size = folder.kinds(data), data.resolution
    if size and kinds.sizes.keys() != {(size, size)}:
        found = replace(found, changed=f"shorter side to {size} by Pillow's Lanczos filter, the middle kept")
    if found.labels is not None and kinds.classes:
        found = named_classes(found, kinds.classes)
    return replace(found, kinds=kinds)


def reference_of(data: DataConfig, protocol: Protocol, accelerator: Accelerator) -> Source:
    """The images of a run's data set that `protocol` compares with; classes are treated as in `of_files`.

    Raises UserError if they are not available.
    """
    try:
        found = of_data(replace(data, split=protocol.reference), accelerator, protocol.num_reference)
    except UserError as error:
        raise UserError(f"reference {protocol.reference}: {error}") from error
    names = class_names(data)
    return named_classes(found, names) if names and found.labels is not None else found


def data_of(text: str, data: DataConfig) -> DataConfig | None:
    """The data set that `text` names: NAME, NAME:SPLIT, a folder or zip of images, an .npy or .npz; None if none.

    `data` gives the rest: the resolution, and the root of a named data set.

    Examples:
        >>> data_of("digits:test", DataConfig()).split
        'test'
    """
    name, _, split = text.partition(":")
    path = Path(text).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".zip"):
        return replace(data, name="folder", root=str(path), split="train", download=False)
    if path.is_file() and path.suffix in (".npy", ".npz"):
        return replace(data, name="array", root=str(path), split="train", download=False)
    if name in data_sets() and name not in ("folder", "array"):
        return replace(data, name=name, split=split or "train")
    return None


def of_function(text: str) -> Source | None:
    """The function that `text` names as module:function; None if it names none.

    For (start, stop), it returns images start to stop - 1, uint8 [stop - start, C, H, W]. Raises UserError if it cannot
    be imported or returns anything else.
    """
    module, _, name = text.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        return None
    modules.trust([module])  # the user named it on the command line
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module may raise anything
        raise UserError(f"cannot import the function {text} ({type(error).__name__}: {error})") from error
    return of_draw(function, text)


def of_draw(draw: Draw, name: str) -> Source:
    """A function from (start, stop) to images start to stop - 1, uint8 [stop - start, C, H, W], as a source."""
    checked, shape = checked_draw(draw, name)
    return Source(name, lambda _seed: checked, shape, "")


def checked_draw(draw: Draw, name: str) -> tuple[Draw, tuple[int, int, int]]:
    """`draw`, made to raise UserError unless it returns images of one shape, and that shape."""
    shape: tuple[int, ...] | None = None

    def checked(start: int, stop: int) -> Tensor:
        try:
            images = draw(start, stop)
        except UserError:
            raise
        except Exception as error:  # the user's code may raise anything
            said = str(error).strip().rpartition("\n")[2]
            raise UserError(f"{name} fails at ({start}, {stop}) with {type(error).__name__}: {said}") from error
        wanted = (stop - start, *(shape or ("1 or 3", "H", "W")))
        whole = isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4
        if not whole or images.shape[1] not in (1, 3) or (shape and images.shape != wanted) or len(images) != wanted[0]:
            found = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise UserError(
                f"{name} returns {found} for ({start}, {stop}); it must be uint8 [{', '.join(map(str, wanted))}]"
            )
        return images

    first = checked(0, 2)
    shape = (first.shape[1], first.shape[2], first.shape[3])
    return checked, shape
