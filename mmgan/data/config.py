"""Which images: the options of every data set."""

from __future__ import annotations

from dataclasses import dataclass

from mmgan.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """Images."""

    name: str = "cifar10"
    """Data set: digits, fashion_mnist, mnist, cifar10, cifar100, svhn, stl10 or folder (the files of mmgan/data/sets),
    or `package.module` with a function `load` like theirs."""
    root: str = "data"
    """Folder the data set is in; for `folder`, the images themselves."""
    split: str = "train"
    """Part of it: train or test; svhn also has extra, stl10 unlabeled and train+unlabeled, folder only train."""
    resolution: int | None = None
    """Resize to so many pixels; null: as they are."""
    download: bool = False
    """Fetch a missing data set into root."""

    def __post_init__(self) -> None:
        if self.resolution is not None and self.resolution < 1:
            raise ValueError(f"data.resolution must be positive, not {self.resolution}")
        if self.resolution is not None and self.resolution > 16384:
            raise ValueError(f"data.resolution must be at most 16384 pixels, not {self.resolution}")

    def split_of(self, *splits: str) -> str:
        """`split`, one of `splits`; raises UserError for another."""
        if self.split not in splits:
            raise UserError(f"{self.name} has no split {self.split!r}; data.split can be {', '.join(splits)}")
        return self.split
