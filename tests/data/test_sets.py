"""Image sets, read from files in the formats their makers publish, and their way to a network."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, STL10, SVHN

from mmgan import modules
from mmgan.data import DataConfig, Feed, data_sets, load, to_network, to_uint8
from mmgan.data.sets import fashion_mnist
from mmgan.errors import UserError
from tests.conftest import ROOT

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # images uint8 [N, C, H, W] and labels of each split
SIZES = {"train": 7, "test": 3, "extra": 4, "unlabeled": 5}


def some(channels: int, side: int, *splits: str, seed: int = 0) -> Splits:
    rng = np.random.default_rng(seed)
    return {
        split: (rng.integers(0, 256, (SIZES[split], channels, side, side), np.uint8), rng.permutation(SIZES[split]))
        for split in splits
    }


def write_idx(folder: Path, splits: Splits, suffix: str = "", pack: Callable[[bytes], bytes] = bytes) -> None:
    """Big-endian header (0, 0, type 8, dimensions, shape), then bytes, row by row."""
    folder.mkdir(parents=True)
    for split, (images, labels) in splits.items():
        name = {"train": "train", "test": "t10k"}[split]
        for kind, array in ("images", images[:, 0]), ("labels", labels.astype(np.uint8)):
            header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            file = folder / f"{name}-{kind}-idx{array.ndim}-ubyte{suffix}"
            file.write_bytes(pack(header + array.tobytes()))


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def accept(patch: pytest.MonkeyPatch, kind: Any, folder: Path) -> None:
    """Make the sums torchvision checks those of the files in `folder`."""
    for files in ("train_list", "test_list"):
        patch.setattr(kind, files, [[name, md5(folder / name)] for name, _ in getattr(kind, files)])
    if hasattr(kind, "meta"):
        patch.setattr(kind, "meta", {**kind.meta, "md5": md5(folder / kind.meta["filename"])})


def mnist(root: Path, _: pytest.MonkeyPatch) -> Splits:
    write_idx(root / "MNIST" / "raw", splits := some(1, 28, "train", "test"))
    return splits


def fashion(root: Path, _: pytest.MonkeyPatch) -> Splits:
    write_idx(root / "FashionMNIST" / "raw", splits := some(1, 28, "train", "test"))
    return splits


def write_cifar(
    root: Path, patch: pytest.MonkeyPatch, kind: Any, batches: list[str], test: str, labels: str, names: str
) -> Splits:
    """Pickled dictionaries; a row of data is an image's red, green and blue values, each row by row."""
    folder = root / kind.base_folder
    folder.mkdir()
    splits = some(3, 32, "train", "test")
    parts = np.array_split(np.arange(SIZES["train"]), len(batches))
    rows = [*((batch, "train", part) for batch, part in zip(batches, parts, strict=True))]
    for name, split, part in [*rows, (test, "test", np.arange(SIZES["test"]))]:
        images, numbers = splits[split]
        content = {"data": images[part].reshape(len(part), -1), labels: numbers[part].tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({names: [*"abcdefghij"]}, protocol=2))
    accept(patch, kind, folder)
    return splits


def cifar10(root: Path, patch: pytest.MonkeyPatch) -> Splits:
    batches = [f"data_batch_{i}" for i in range(1, 6)]
    return write_cifar(root, patch, CIFAR10, batches, "test_batch", "labels", "label_names")


def cifar100(root: Path, patch: pytest.MonkeyPatch) -> Splits:
    return write_cifar(root, patch, CIFAR100, ["train"], "test", "fine_labels", "fine_label_names")


def svhn(root: Path, patch: pytest.MonkeyPatch) -> Splits:
    """Arrays [height, width, channel, image]; the digit 0 has the label 10."""
    splits = some(3, 32, "train", "test", "extra")
    for split, (images, labels) in splits.items():
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(root / f"{split}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": y})
    files = {s: [url, name, md5(root / name)] for s, (url, name, _) in SVHN.split_list.items()}
    patch.setattr(SVHN, "split_list", files)
    return splits


def stl10(root: Path, patch: pytest.MonkeyPatch) -> Splits:
    """Bytes of each channel column by column; labels count from 1."""
    folder = root / "stl10_binary"
    folder.mkdir()
    splits = some(3, 96, "train", "test", "unlabeled")
    for split, (images, labels) in splits.items():
        (folder / f"{split}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        if split != "unlabeled":
            (folder / f"{split}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    accept(patch, STL10, folder)
    splits["unlabeled"] = splits["unlabeled"][0], np.full(SIZES["unlabeled"], -1)
    train, unlabeled = splits["train"], splits["unlabeled"]
    splits["train+unlabeled"] = np.concatenate([train[0], unlabeled[0]]), np.concatenate([train[1], unlabeled[1]])
    return splits


WRITERS = {"mnist": mnist, "fashion_mnist": fashion, "cifar10": cifar10, "cifar100": cifar100}
WRITERS |= {"svhn": svhn, "stl10": stl10}


@pytest.fixture(autouse=True)
def no_system_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Fashion-MNIST's place outside of root, which does not exist unless a test makes it."""
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "system")
    return tmp_path / "system"


@pytest.mark.parametrize("name", WRITERS)
def test_images_and_labels_are_those_on_disk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, (images, labels) in WRITERS[name](tmp_path, monkeypatch).items():
        loaded = load(DataConfig(name, str(tmp_path), split))
        assert (loaded.images.dtype, loaded.labels.dtype) == (torch.uint8, torch.int64)
        np.testing.assert_array_equal(loaded.images.numpy(), images)
        np.testing.assert_array_equal(loaded.labels.numpy(), labels)


@pytest.mark.parametrize("split", ["train", "test"])
def test_fashion_mnist_is_read_from_the_system_unless_root_has_it(
    split: str, tmp_path: Path, no_system_package: Path
) -> None:
    config = DataConfig("fashion_mnist", str(tmp_path), split)
    write_idx(no_system_package, system := some(1, 28, "train", "test", seed=1), ".gz", gzip.compress)
    loaded = load(config)
    np.testing.assert_array_equal(loaded.images.numpy(), system[split][0])
    np.testing.assert_array_equal(loaded.labels.numpy(), system[split][1])
    write_idx(tmp_path / "FashionMNIST" / "raw", own := some(1, 28, "train", "test"))
    np.testing.assert_array_equal(load(config).images.numpy(), own[split][0])


def test_digits_are_scikit_learns_in_two_disjoint_splits() -> None:
    train, test = (load(DataConfig("digits", split=split)) for split in ("train", "test"))
    assert (train.images.shape, test.images.shape) == ((1500, 1, 8, 8), (297, 1, 8, 8))
    digits = load_digits()
    levels = [round(level * 255 / 16) for level in range(17)]
    ours = [(im.numpy().tobytes(), int(y)) for part in (train, test) for im, y in zip(*part, strict=True)]
    theirs = [
        (bytes(levels[int(v)] for v in image.flat), int(y))
        for image, y in zip(digits.images, digits.target, strict=True)
    ]
    assert sorted(ours) == sorted(theirs)


def test_digits_are_split_the_same_way_each_time() -> None:
    assert load(DataConfig("digits")).images.equal(load(DataConfig("digits")).images)


@pytest.mark.parametrize("resolution", [4, 13])
def test_resolution_resizes_as_pillow_does(resolution: int) -> None:
    pictures = [Image.fromarray(image[0].numpy()) for image in load(DataConfig("digits", split="test")).images]
    expected = [np.asarray(p.resize((resolution, resolution), Image.Resampling.BILINEAR)) for p in pictures]
    loaded = load(DataConfig("digits", split="test", resolution=resolution)).images
    assert loaded.dtype == torch.uint8
    np.testing.assert_allclose(loaded[:, 0].numpy().astype(int), np.stack(expected).astype(int), atol=1)


@pytest.mark.parametrize("name", WRITERS)
def test_missing_data_set_says_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"{name} is missing or damaged in {tmp_path}.*--data\.download true or another --data\.root"
    ):
        load(DataConfig(name, str(tmp_path)))


@pytest.mark.parametrize("size", [0, 2, 10, 1000])
def test_damaged_mnist_says_what_to_do(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist(tmp_path, monkeypatch)
    file = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match="damaged"):
        load(DataConfig("mnist", str(tmp_path)))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_pickles_of_older_versions_beside_the_raw_files_are_not_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = WRITERS[name](tmp_path, monkeypatch)
    (processed := next(tmp_path.iterdir()) / "processed").mkdir()
    for file in ("training.pt", "test.pt"):
        torch.save((torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)), processed / file)
    for split, (images, labels) in splits.items():
        loaded = load(DataConfig(name, str(tmp_path), split))
        np.testing.assert_array_equal(loaded.images.numpy(), images)
        np.testing.assert_array_equal(loaded.labels.numpy(), labels)


def test_damaged_cifar10_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10(tmp_path, monkeypatch)
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="damaged"):
        load(DataConfig("cifar10", str(tmp_path)))


def test_download_into_no_folder_names_it(tmp_path: Path) -> None:
    (root := tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot download mnist into {root}"):
        load(DataConfig("mnist", str(root), download=True))


def test_data_sets_are_the_files() -> None:
    names = data_sets()
    files = [path.stem for path in (ROOT / "mmgan" / "data" / "sets").glob("*.py")]
    assert sorted(names) == sorted(name for name in files if not name.startswith("_"))
    with pytest.raises(UserError, match=f"data.name 'imagenet' is not one of {', '.join(names)}; name your own module"):
        load(DataConfig("imagenet"))


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        *((name, "train, test") for name in ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100")),
        ("svhn", "train, test, extra"),
        ("stl10", "train, test, unlabeled, train+unlabeled"),
        ("folder", "train"),
    ],
)
def test_unknown_split_names_those_there_are(name: str, splits: str, tmp_path: Path) -> None:
    message = re.escape(f"{name} has no data.split 'valid', only {splits}")
    with pytest.raises(UserError, match=message + "$"):
        load(DataConfig(name, str(tmp_path), "valid"))


def test_a_module_is_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ownpackage").mkdir()
    (tmp_path / "ownpackage" / "wide.py").write_text(
        "import torch\n"
        "def load(config):\n"
        "    return torch.full((2, 3, 4, 6), 9, dtype=torch.uint8), torch.tensor([len(config.split), -1])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"name your own module on the command line \(--data\.name ownpackage\.wide\)"):
        load(DataConfig("ownpackage.wide", resolution=4))
    modules.trust(["ownpackage.wide", "ownpackage.tall"])
    images, labels = load(DataConfig("ownpackage.wide", split="valid", resolution=4))
    assert images.tolist() == torch.full((2, 3, 4, 4), 9).tolist()
    assert labels.tolist() == [5, -1]
    with pytest.raises(UserError, match=r"images of ownpackage\.wide are 6x4; set data\.resolution"):
        load(DataConfig("ownpackage.wide"))
    with pytest.raises(UserError, match=r"data.name 'ownpackage\.tall' is neither one of"):
        load(DataConfig("ownpackage.tall"))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_to_network_agrees_with_numpy(flipped: bool, noisy: bool) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (6, 3, 4, 5), np.uint8)
    flips, noise = np.array([True, False, True, True, False, False]), rng.random(values.shape, np.float32)
    x = values.astype(np.float64)
    if flipped:
        x = np.stack([image[:, :, ::-1] if flip else image for image, flip in zip(x, flips, strict=True)])
    expected = (x + noise) / 128 - 1 if noisy else x / 127.5 - 1
    flip_or_none, noise_or_none = torch.tensor(flips) if flipped else None, torch.tensor(noise) if noisy else None
    got = to_network(torch.tensor(values), flip_or_none, noise_or_none)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=1e-6)


def test_dequantised_levels_fill_the_range_without_overlap() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    low, high = (to_network(levels, noise=torch.full((256, 1, 1, 1), u)).flatten() for u in (0.0, 1 - 2**-16))
    assert low[0] == -1
    assert high[-1] < 1
    assert (low < high).all()
    assert (high[:-1] < low[1:]).all()


def test_to_uint8_undoes_to_network() -> None:
    """Every level, as it is and with the smallest, the largest and other noise that U(0, 1) is drawn as in float32."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(256, 1, 1, 1)
    back = to_uint8(to_network(levels))
    assert back.dtype == torch.uint8
    assert back.equal(levels)
    ends = torch.arange(1024) / 2**24
    drawn = torch.rand(2048, generator=torch.Generator().manual_seed(0))
    noise = torch.cat([ends, 1 - 2**-24 - ends, drawn]).expand(256, 1, 1, -1)
    assert noise.max() == 1 - 2**-24
    assert to_uint8(to_network(levels.expand_as(noise), noise=noise)).equal(levels.expand_as(noise))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_to_uint8_floors_and_clamps(dtype: torch.dtype) -> None:
    x = torch.linspace(-1.5, 1.5, 997).to(dtype)
    expected = np.clip(np.floor((x.double().numpy() + 1) * 128), 0, 255)
    np.testing.assert_array_equal(to_uint8(x).numpy(), expected)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_feed_gives_the_rows_asked_for(device: str) -> None:
    images = some(3, 4, "train")["train"][0]
    rows = [5, 0, 5, 2]
    got = Feed(torch.tensor(images), torch.device(device))(torch.tensor(rows))
    np.testing.assert_array_equal(got.numpy(), images[rows])
