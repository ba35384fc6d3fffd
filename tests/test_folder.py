"""Folders of images as a data set."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmgan.data import DataConfig, load
from mmgan.errors import UserError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmgan"


@pytest.fixture
def root(tmp_path: Path, cache: Path) -> Path:  # noqa: ARG001
    np.random.seed(0)  # of noise, in each test
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


def noise(*shape: int) -> np.ndarray:
    return np.random.randint(0, 256, shape, np.uint8)


def save(file: Path, pixels: np.ndarray) -> np.ndarray:
    """Write [H, W] or [H, W, 3] as an image, and return it as [C, H, W]."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def pixels(root: Path, resolution: int | None = None) -> np.ndarray:
    images = load(DataConfig("folder", str(root), resolution=resolution)).images.numpy()
    assert images.dtype == np.uint8
    return images


def test_grey_images_have_one_channel(root: Path) -> None:
    saved = [save(root / "a.png", noise(8, 8)), save(root / "b.bmp", noise(8, 8))]
    saved.append(255 * save(root / "c.png", noise(8, 8) > 99).astype(np.uint8))
    np.testing.assert_array_equal(pixels(root), saved)


def test_one_colour_image_makes_all_colour(root: Path) -> None:
    grey, colour = save(root / "a.png", noise(8, 8)), save(root / "b.png", noise(8, 8, 3))
    np.testing.assert_array_equal(pixels(root), [np.repeat(grey, 3, axis=0), colour])


def test_resolution_keeps_the_middle_of_the_longer_side(root: Path) -> None:
    wide, tall, big = noise(6, 18, 3), noise(18, 6, 3), np.full((12, 15, 3), (10, 20, 30), np.uint8)
    for name, image in ("wide", wide), ("tall", tall), ("zbig", big):
        save(root / f"{name}.png", image)
    expected = np.stack([tall[6:12], wide[:, 6:12], big[:6, :6]]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(pixels(root, 6), expected)
    with pytest.raises(UserError, match=r"images of 3 sizes under .*; set data\.resolution"):
        pixels(root)


def test_labels_count_the_folders_right_under_root(root: Path) -> None:
    names = ["a/deep/x.png", "a/x.PNG", "b/x.bmp", "top.tif"]
    saved = [save(root / name, noise(4, 4)) for name in names]
    (root / "a" / "notes.txt").write_text("not an image")
    (root / "b" / "paper.pdf").write_text("%PDF-1.4, which Pillow writes but does not read")
    loaded = load(DataConfig("folder", str(root)))
    np.testing.assert_array_equal(loaded.images.numpy(), saved)
    assert loaded.labels.tolist() == [0, 0, 1, -1]


def test_second_load_reuses_the_first_ones_array(root: Path, cache: Path) -> None:
    save(root / "a.png", noise(8, 8))
    pixels(root)
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"\x07")  # to tell it from the image
    written = kept.stat().st_mtime_ns
    assert pixels(root)[0, 0, -1, -1] == 7
    assert kept.stat().st_mtime_ns == written


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_array_is_mapped_and_not_written_through(root: Path, cache: Path) -> None:
    save(root / "a.png", noise(8, 8))
    images = pixels(root)
    (kept,) = cache.iterdir()
    assert str(kept) in Path("/proc/self/maps").read_text()
    content = kept.read_bytes()
    images += 1
    assert kept.read_bytes() == content


@pytest.mark.parametrize("change", ["pixels", "file", "resolution"])
def test_change_decodes_anew(change: str, root: Path, cache: Path) -> None:
    first = save(root / "a.png", noise(8, 8))
    np.testing.assert_array_equal(pixels(root), [first])
    expected = [first]
    if change == "pixels":
        expected = [save(root / "a.png", noise(8, 8))]
        os.utime(root / "a.png", (0, 0))
    elif change == "file":
        expected.append(save(root / "b.png", noise(8, 8)))
    again = pixels(root, 4 if change == "resolution" else None)
    if change == "resolution":
        assert again.shape == (1, 1, 4, 4)
    else:
        np.testing.assert_array_equal(again, expected)
    assert len([*cache.iterdir()]) == 2


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif"])
def test_truncated_image_is_named(suffix: str, root: Path, cache: Path) -> None:
    save(root / "a.png", noise(32, 32, 3))
    save(file := root / f"cut.{suffix}", noise(32, 32, 3))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 9 // 10])  # its header is whole
    with pytest.raises(UserError, match=f"{file} is a broken image .*; mend or remove it"):
        pixels(root)
    assert not [*cache.iterdir()]


def test_text_called_png_is_named(root: Path) -> None:
    (file := root / "x.png").write_text("not an image")
    with pytest.raises(UserError, match=f"{file} is not an image Pillow can read; mend or remove it"):
        pixels(root)


def test_16_bit_image_is_refused(root: Path) -> None:
    Image.fromarray(noise(8, 8).astype(np.uint16) * 257).save(file := root / "deep.png")
    with pytest.raises(UserError, match=f"{file} has more than 8 bits .*; convert it to 8 bits"):
        pixels(root)


def test_no_images_or_no_folder_is_said(root: Path) -> None:
    with pytest.raises(UserError, match=f"no images under {root}"):
        pixels(root)
    with pytest.raises(UserError, match=rf"no folder {root / 'none'}; set data\.root"):
        pixels(root / "none")


def test_unwritable_cache_says_what_to_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file := root / "a.png", noise(8, 8))
    monkeypatch.setenv("XDG_CACHE_HOME", str(file / "below"))
    with pytest.raises(UserError, match=f"cannot write {file / 'below'}.*; set XDG_CACHE_HOME to another folder"):
        pixels(root)
