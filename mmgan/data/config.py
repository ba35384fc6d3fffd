"""Options of every data set."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from mmgan.errors import UserError

D = TypeVar("D", bound="DataConfig")


@dataclass(frozen=True)
class DataConfig:
    """The images."""

    name: str = "cifar10"
    """Data set: digits, fashion_mnist, mnist, cifar10, cifar100, svhn, stl10, folder or array (the files in
    mmgan/data/sets), or `package.module` with a `load` function like theirs."""
    root: str = "data"
    """Folder of the data set; for `folder`, the folder of images, or a zip file of them; for `array`, an .npy or .npz
    file. A run records its absolute path."""
    split: str = "train"
    """Split of the data set: train or test; svhn also has extra, stl10 unlabeled and train+unlabeled, folder and array
    only train."""
    resolution: int | None = None
    """Resize images to this many pixels, 1 to 16384; null: keep their size."""
    download: bool = False
    """Download a missing data set into root."""
    skip_broken: bool = False
    """Leave out broken files of `folder` and list them; false: report them as an error."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", str(Path(self.root).expanduser().absolute()))  # for any working folder
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"data.resolution must be positive, not {self.resolution}")
        if self.resolution is not None and self.resolution > 16384:
            raise ValueError(f"data.resolution must be at most 16384 pixels, not {self.resolution}")

    def split_of(self, *splits: str) -> str:
        """`split`, if it is one of `splits`; otherwise raises UserError."""
        if self.split not in splits:
            raise UserError(f"{self.name} has no data.split {self.split!r}, only {', '.join(splits)}")
        return self.split


@dataclass(frozen=True)
class DataChange:
    """The location of a run's images, if it has changed since training. Null leaves an option unchanged."""

    name: str | None = None
    """Data set; null: the run's."""
    root: str | None = None
    """Folder of the data set; for `folder` and `array`, the images themselves; null: the run's."""
    resolution: int | None = None
    """Resize images to this many pixels; null: as in the run."""
    download: bool | None = None
    """Download a missing data set into root; null: as in the run."""

    def of(self, data: D) -> D:
        """`data` with these changes."""
        return replace(data, **{name: value for name, value in vars(self).items() if value is not None})
