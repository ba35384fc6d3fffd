"""Files of NumPy's as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmgan.data import DataConfig, load
from mmgan.data.sets import array
from mmgan.errors import UserError
from tests.conftest import SMALL, run


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """uint8 [7, 3, 4, 4]."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return np.random.default_rng(0).integers(0, 256, (7, 3, 4, 4), np.uint8)


def written(file: Path, images: np.ndarray, labels: Any = None) -> str:
    if file.suffix == ".npy":
        np.save(file, images)
    elif labels is None:
        np.savez_compressed(file, images)
    else:
        np.savez(file, images, labels)
    return str(file)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_every_layout_gives_the_same_images(
    name: str, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array, "PIECE", 100)  # two images
    for layout in (images, images.transpose(0, 2, 3, 1)):
        loaded = load(DataConfig("array", written(tmp_path / name, np.ascontiguousarray(layout))))
        assert loaded.images.dtype == torch.uint8
        np.testing.assert_array_equal(loaded.images, images)
        assert loaded.labels.tolist() == [-1] * 7
    grey = load(DataConfig("array", written(tmp_path / name, images[:, 0])))
    np.testing.assert_array_equal(grey.images, images[:, :1])


def test_labels_are_the_second_array(images: np.ndarray, tmp_path: Path) -> None:
    labels = np.arange(7, dtype=np.int32)
    assert load(DataConfig("array", written(tmp_path / "x.npz", images, labels))).labels.tolist() == labels.tolist()
    for wrong in (labels[:6], labels / 2):
        with pytest.raises(UserError, match="its labels must be whole numbers, one for each of 7 images"):
            load(DataConfig("array", written(tmp_path / "x.npz", images, wrong)))


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x / 255, r"it is float64 \[7, 3, 4, 4\], but must be uint8, from 0 to 255"),
        (lambda x: x[:, :2], r"it is uint8 \[7, 2, 4, 4\], but must be"),
        (lambda x: x[:, :, :3, :3], "but must be"),
        (lambda x: x[:0], r"it is uint8 \[0, 3, 4, 4\], but must be"),
        (lambda x: x[0, 0], r"it is uint8 \[4, 4\], but must be"),
    ],
)
def test_another_array_is_refused(name: str, change: Any, message: str, images: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(DataConfig("array", written(tmp_path / name, np.ascontiguousarray(change(images)))))


def test_another_file_is_refused(images: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, a=images, b=images)
    with pytest.raises(UserError, match="its arrays are a, b, but the images must be arr_0"):
        load(DataConfig("array", str(file)))
    written(file, images)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="contains no readable images"):
        load(DataConfig("array", str(file)))
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UserError, match="contains no readable images"):
        load(DataConfig("array", str(tmp_path / "x.npy")))
    with pytest.raises(UserError, match=r"not an \.npy or \.npz file"):
        load(DataConfig("array", str(tmp_path)))


def test_a_gan_trains_on_a_file(images: np.ndarray, tmp_path: Path) -> None:
    many = np.tile(images, (2, 1, 2, 2))
    data = ["--data.name", "array", "--data.root", written(tmp_path / "x.npz", many.transpose(0, 2, 3, 1))]
    done = run("train_gan", *data, *SMALL, "--steps", "1", "--tracker", "null", "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "samples" / "real.png").exists()
