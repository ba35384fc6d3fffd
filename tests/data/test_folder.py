"""Folders of images as a data set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import ExifTags, Image

from mmgan.data import DataConfig, load
from mmgan.errors import UserError
from tests.conftest import ENVIRONMENT, ROOT


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
    save(root / "tall2.png", tall)
    sizes = r"images under .*/images have 3 sizes: 6x18 \(2\), 18x6 \(1\), 15x12 \(1\); set data\.resolution"
    with pytest.raises(UserError, match=sizes):
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
    (kept,) = cache.glob("*.images")
    before = kept.stat()
    pixels(root)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_bit,
        lambda file: file.write_bytes(file.read_bytes()[:100]),
        lambda file: file.write_bytes(file.read_bytes()[:10]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(np.zeros((3, 1, 8, 8), np.float32).tobytes()),
    ],
)
def test_damaged_cache_is_made_again_with_a_line(
    damage: Callable[[Path], object], root: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = [save(root / "a.png", noise(8, 8)), save(root / "b.png", noise(8, 8))]
    np.testing.assert_array_equal(pixels(root), saved)
    (kept,) = cache.glob("*.images")
    whole = kept.read_bytes()
    damage(kept)
    capsys.readouterr()
    np.testing.assert_array_equal(pixels(root), saved)
    assert kept.read_bytes() == whole
    assert f"{kept} is damaged" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_array_is_mapped_and_not_written_through(root: Path, cache: Path) -> None:
    save(root / "a.png", noise(8, 8))
    images = pixels(root)
    (kept,) = cache.glob("*.images")
    assert str(kept) in Path("/proc/self/maps").read_text()
    content = kept.read_bytes()
    images += 1
    assert kept.read_bytes() == content


@pytest.mark.parametrize("change", ["pixels", "file", "name"])
def test_a_change_is_decoded_anew_in_place_of_what_was_kept(change: str, root: Path, cache: Path) -> None:
    """Also of the pixels alone, in a file of the same size and time."""
    first = save(root / "a.bmp", noise(8, 8))
    np.testing.assert_array_equal(pixels(root), [first])
    before = (root / "a.bmp").stat()
    expected = [first]
    if change == "pixels":
        expected = [save(root / "a.bmp", noise(8, 8))]
        os.utime(root / "a.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
        after = (root / "a.bmp").stat()
        assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    elif change == "file":
        expected.append(save(root / "b.png", noise(8, 8)))
    else:
        (root / "a.bmp").rename(root / "c.bmp")
    np.testing.assert_array_equal(pixels(root), expected)
    assert len([*cache.glob("*.images")]) == 1


def test_resolutions_are_kept_beside_one_another(root: Path, cache: Path) -> None:
    save(root / "a.png", noise(8, 8))
    assert [pixels(root, size).shape for size in (None, 4, 4)] == [(1, 1, 8, 8), (1, 1, 4, 4), (1, 1, 4, 4)]
    assert len([*cache.glob("*.images")]) == 2


def test_broken_images_are_named_all_at_once_and_left_out_where_asked(
    root: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [save(root / f"{c}/{i}.png", noise(32, 32, 3)) for c, i in (("a", 0), ("b", 1))]
    for suffix in ("jpg", "png", "gif"):
        save(file := root / "a" / f"cut.{suffix}", noise(32, 32, 3))
        file.write_bytes(file.read_bytes()[: file.stat().st_size * 9 // 10])  # its header is whole
    (root / "x.png").write_text("not an image")
    Image.fromarray(noise(8, 8).astype(np.uint16) * 257).save(root / "deep.png")
    words = r"5 of 7 images under .*/images cannot be used: a/cut\.gif \(.*\), a/cut\.jpg \(.*truncated.*\), "
    words += r"a/cut\.png \(.*\), deep\.png \(more than 8 bits .*\), x\.png \(not an image that Pillow can read\); "
    words += r".*--data\.skip_broken true"
    with pytest.raises(UserError, match=words) as error:
        pixels(root)
    assert "\n" not in str(error.value)
    assert not [*cache.glob("*.images*t")]
    for _ in range(2):  # decoded, and from the cache
        loaded = load(DataConfig("folder", str(root), skip_broken=True))
        np.testing.assert_array_equal(loaded.images.numpy(), good)
        assert loaded.labels.tolist() == [0, 1]
    listed = "left out as broken: a/cut.gif, a/cut.jpg, a/cut.png, deep.png, x.png"
    assert listed in capsys.readouterr().out
    with pytest.raises(UserError, match=words):
        pixels(root)


def test_a_long_list_of_broken_images_is_cut_short(root: Path) -> None:
    for i in range(12):
        (root / f"{i:02}.png").write_text("not an image")
    with pytest.raises(UserError, match=r"12 of 12 images under .* 00\.png .* 09\.png [^,]*, 2 more; "):
        pixels(root)
    with pytest.raises(UserError, match="12 of 12 images"):
        load(DataConfig("folder", str(root), skip_broken=True))


def test_no_images_or_no_folder_is_said(root: Path) -> None:
    with pytest.raises(UserError, match=f"no images under {root}"):
        pixels(root)
    with pytest.raises(UserError, match=rf"no folder or zip {root / 'none'}; set data\.root"):
        pixels(root / "none")
    (root / "a.heic").touch()
    (root / "b.png").symlink_to("nowhere")
    over = r"no images under .* \(skipped: 1 \.heic, 1 broken link or not a regular file\)"
    with pytest.raises(UserError, match=over):
        pixels(root)


def test_unwritable_cache_says_what_to_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(file := root / "a.png", noise(8, 8))
    monkeypatch.setenv("XDG_CACHE_HOME", str(file / "below"))
    with pytest.raises(UserError, match=f"cannot cache .* in {file / 'below'}.* set XDG_CACHE_HOME to another folder"):
        pixels(root)


FULL = """
mkdir -p disk && mount -t tmpfs -o size=200k tmpfs disk && exec "$0" -c '
import os
from mmgan.data import DataConfig, load
from mmgan.errors import UserError
try:
    load(DataConfig("folder", "images"))
except UserError as error:
    print(error)
print(os.listdir("disk/mmgan"))
'
"""


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="mounts a small file system")
def test_a_disk_that_fills_while_images_are_decoded_is_an_error_of_one_line(root: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a small file system")
    for i in range(20):
        save(root / f"{i}.png", np.full((128, 128, 3), i, np.uint8))
    environment = ENVIRONMENT | {"XDG_CACHE_HOME": "disk", "PYTHONPATH": str(ROOT)}
    line = ["unshare", "-rm", "sh", "-c", FULL, sys.executable]
    done = subprocess.run(line, cwd=root.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    error, left = done.stdout.splitlines()
    assert "No space left on device" in error
    assert "free some disk space there" in error
    assert ".part" not in left


def test_what_a_killed_process_left_half_written_is_removed_by_the_next(root: Path, cache: Path) -> None:
    save(root / "a.png", noise(8, 8))
    cache.mkdir(parents=True)
    (cache / "other-0123.images.part").write_bytes(b"half")
    with FileLock(cache / "busy-0123.images.lock"):
        (cache / "busy-0123.images.part").write_bytes(b"being written")
        pixels(root)
    assert [file.name for file in cache.glob("*.part")] == ["busy-0123.images.part"]


def test_images_are_those_that_a_viewer_shows(root: Path) -> None:
    """Turned as EXIF says; what is transparent shows white, whatever colour lies under it."""
    picture = noise(4, 6, 3)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = orientation
        Image.fromarray(picture).save(root / f"{orientation}.png", exif=exif)
    seen = [picture, picture[:, ::-1], picture[::-1, ::-1], picture[::-1]]  # 1 to 4 of the standard
    flipped = picture.transpose(1, 0, 2)
    seen += [flipped, flipped[:, ::-1], flipped[::-1, ::-1], flipped[::-1]]
    middle = [s[1:5] if s.shape == (6, 4, 3) else s[:, 1:5] for s in seen]
    np.testing.assert_array_equal(pixels(root, 4), np.stack(middle).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_shows_white(mode: str, root: Path) -> None:
    values = noise(4, 4, len(mode)) if mode != "P" else np.arange(16, dtype=np.uint8).reshape(4, 4)
    if mode == "P":
        image = Image.frombytes("P", (4, 4), values.tobytes())
        image.putpalette((palette := noise(256, 3)).tobytes())
        image.save(root / "a.png", transparency=3)
        expected = palette[values]
        expected[values == 3] = 255
    else:
        values[..., -1] = np.where(values[..., -1] > 127, 255, 0)
        values[0, 0, -1] = 128
        Image.frombytes(mode, (4, 4), values.tobytes()).save(root / "a.png")
        alpha = values[..., -1:] / 255
        expected = values[..., :-1] * alpha + 255 * (1 - alpha)
    found = pixels(root)
    assert found.shape == (1, 1 if mode == "LA" else 3, 4, 4)
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), rtol=0, atol=1)


def test_what_was_found_and_passed_over_is_said_in_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Links are followed, but not in circles; hidden files are passed over; no folder's number depends on formats."""
    elsewhere = root.parent / "elsewhere"
    saved = [save(elsewhere / "x.png", noise(4, 4)), save(root / "dog" / "deep" / "x.png", noise(4, 6))]
    saved += [save(root / "loose.png", noise(8, 4))]
    (root / "cat").symlink_to(elsewhere)
    (elsewhere / "round").symlink_to(root)
    save(root / ".ipynb_checkpoints" / "x.png", noise(4, 4))
    save(root / "dog" / "._x.png", noise(4, 4))
    (root / "cow").mkdir()
    (root / "cow" / "x.heic").touch()
    (root / "notes.txt").touch()
    for _ in range(2):
        loaded = load(DataConfig("folder", str(root), resolution=4))
        assert loaded.labels.tolist() == [0, 2, -1]
        expected = [saved[0], saved[1][:, :, 1:5], saved[2][:, 2:6]]
        np.testing.assert_array_equal(loaded.images.numpy(), expected)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == (
        f"{root}: 3 images in 3 classes (0 cat: 1, 1 cow: none, 2 dog: 1), 1 without a label; "
        "sizes 4x4 (1), 6x4 (1), 4x8 (1); 2 are not square and lose up to 50% of their longer side; "
        "skipped: 1 .heic, 1 .ipynb_checkpoints/, 1 .txt, 1 hidden, 1 link to a folder that contains it"
    )


def packed(root: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    file = root.parent / "images.zip"
    with zipfile.ZipFile(file, "w", compression) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(root))
    return file


def test_a_zip_holds_what_its_folder_does(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b/deep/x.png", "a-b/x.PNG", "a/y.bmp", "a.png", "a/.hidden.png", "__MACOSX/a/._y.png"):
        save(root / name, noise(6, 4, 3))
    (root / "b" / "notes.txt").write_text("no image")
    folder = load(DataConfig("folder", str(root), resolution=4))
    packaged = load(DataConfig("folder", str(packed(root)), resolution=4))
    assert folder.images.shape == (4, 3, 4, 4)
    np.testing.assert_array_equal(folder.images, packaged.images)
    assert folder.labels.tolist() == packaged.labels.tolist() == [0, 1, -1, 2]
    lines = [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == lines[1]
    assert "skipped: 1 .txt, 1 __MACOSX/, 1 hidden" in lines[0]


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("labels", "expected"), [('[["00000/b.png", 7], ["00000/a.png", 3]]', [3, 7, -1]), ("null", 3 * [-1])]
)
def test_the_labels_of_a_dataset_json_are_taken(kind: str, labels: str, expected: list[int], root: Path) -> None:
    """As StyleGAN's dataset tool writes it, whose folders are no classes."""
    for name in ("00000/a.png", "00000/b.png", "00001/c.png"):
        save(root / name, noise(4, 4))
    (root / "dataset.json").write_text(f'{{"labels": {labels}}}')
    assert load(DataConfig("folder", str(packed(root) if kind == "zip" else root))).labels.tolist() == expected


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"labels": [["a.png", 0.5]]}', '{"labels": [["a.png"]]}'])
def test_a_dataset_json_of_another_form_is_named(text: str, root: Path) -> None:
    save(root / "a.png", noise(4, 4))
    (root / "dataset.json").write_text(text)
    with pytest.raises(UserError, match=r"dataset\.json is not of the form"):
        pixels(root)


def test_what_is_wrong_with_a_zip_is_said(root: Path) -> None:
    for i in range(3):
        save(root / f"{i}.bmp", noise(8, 8))
    file = packed(root, zipfile.ZIP_STORED)
    content = bytearray(file.read_bytes())
    content[content.index(b"1.bmp") + 60] ^= 1  # one pixel, so that the zip's checksum is wrong
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"1 of 3 images under .*images\.zip/ cannot be used: 1\.bmp \(Bad CRC-32"):
        pixels(file)
    file.write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"images\.zip is neither a zip nor a folder"):
        pixels(file)
    save(root / "a.png", noise(8, 8))
    with pytest.raises(UserError, match="no folder or zip"):
        pixels(root / "nowhere.zip")
