"""Which images: the options of every data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from mmgan.errors import UserError

D = TypeVar("D", bound="DataConfig")


@dataclass(frozen=True)
class DataConfig:
    """Images."""

    name: str = "cifar10"
    """Data set: digits, fashion_mnist, mnist, cifar10, cifar100, svhn, stl10, folder or array (the files of
    mmgan/data/sets), or `package.module` with a function `load` like theirs."""
    root: str = "data"
    """Folder the data set is in; for `folder`, the images themselves, or a zip of them; for `array`, a file .npy or
    .npz. A run keeps its absolute path."""
    split: str = "train"
    """Part of it: train or test; svhn also has extra, stl10 unlabeled and train+unlabeled, folder and array only
    train."""
    resolution: int | None = None
    """Resize to so many pixels; null: as they are."""
    download: bool = False
    """Fetch a missing data set into root."""
    skip_broken: bool = False
    """Leave out files of `folder` that are broken, and list them; false: they are an error."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", str(Path(self.root).expanduser().absolute()))  # for any working folder
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"data.resolution must be positive, not {self.resolution}")
        if self.resolution is not None and self.resolution > 16384:
            raise ValueError(f"data.resolution must be at most 16384 pixels, not {self.resolution}")

    def split_of(self, *splits: str) -> str:
        """`split`, one of `splits`; raises UserError for another."""
        if self.split not in splits:
            raise UserError(f"{self.name} has no data.split {self.split!r}, only {', '.join(splits)}")
        return self.split


@dataclass(frozen=True)
class DataChange:
    """Where the images of a run are, if not where they were when it was trained. Null leaves an option as it was."""

    name: str | None = None
    """Data set."""
    root: str | None = None
    """Folder the data set is in; for `folder` and `array`, the images themselves."""
    resolution: int | None = None
    """Resize to so many pixels."""
    download: bool | None = None
    """Fetch a missing data set into root."""

    def of(self, data: D) -> D:
        """`data` with what is changed."""
        return replace(data, **{name: value for name, value in vars(self).items() if value is not None})
