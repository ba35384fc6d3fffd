"""Runs that are made longer, start from another run's weights, or find their data or extractor in another place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor

import classifiers.load  # a classifier can be the extractor
import mmgan
from classifiers.config import ClassifierConfig
from mmgan.data import load
from mmgan.engine import cli
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from tests.conftest import SMALL, result, same

pytestmark = pytest.mark.slow

GAN = ["--data.name", "digits", *SMALL, "--n_dis", "1", "--log_every", "4", "--tracker", "null", "--ema", "0.9"]
GAN += ["--lr_schedule", "constant", "--checkpoint_every", "3", "--lr", "1e-3"]
CLS = ["--data.name", "digits", "--data.labels_per_class", "4", "--data.validation", "20", "--data.pad", "1"]
CLS += ["--network.width", "0.0625", "--batch_size", "16", "--epochs", "3", "--milestones", "[2]", "--log_every", "4"]
CLS += ["--checkpoint_every", "1", "--tracker", "null"]
NO_STEP = ["--lr", "1e-30"]
"""A rate at which no weight moves."""


def gan(folder: Path, *options: str) -> dict[str, dict[str, Tensor]]:
    """Train a small GAN; what its last checkpoint holds."""
    AcceleratorState._reset_state(reset_partial_state=True)
    mmgan.train(cli.parse(GANConfig, "", ["--output", str(folder), *GAN, *options]).config, folder)
    return result(folder)[0]


def cls(folder: Path, *options: str) -> dict[str, dict[str, Tensor]]:
    """Train a small classifier; what its last checkpoint holds."""
    AcceleratorState._reset_state(reset_partial_state=True)
    classifiers.train(cli.parse(ClassifierConfig, "", ["--output", str(folder), *CLS, *options]).config, folder)
    return result(folder)[0]


@pytest.fixture(scope="module")
def trained_gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gan(folder := tmp_path_factory.mktemp("gan") / "run", "--steps", "6")
    return folder


@pytest.fixture(scope="module")
def trained_cls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cls(folder := tmp_path_factory.mktemp("cls") / "run")
    return folder


def losses(folder: Path) -> dict[int, dict[str, float]]:
    return {row["step"]: row for row in result(folder)[1] if "loss" in row or "loss/real" in row}


def without_buffers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights that gradients move."""
    return {key: t for key, t in weights.items() if key.endswith(("weight", "bias", "original"))}


# Longer


def test_a_gan_made_longer_ends_as_one_that_was_so_long_from_the_start(trained_gan: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_gan, tmp_path / "longer")
    longer, whole = gan(tmp_path / "longer", "--steps", "10"), gan(tmp_path / "whole", "--steps", "10")
    assert same(longer, whole)
    rows = losses(tmp_path / "longer")
    assert list(rows) == [4, 6, 8, 10], "step 6 ended the shorter run"
    assert same({step: rows[step] for step in (4, 8, 10)}, losses(tmp_path / "whole"))
    assert json.dumps(cli.config_of(GANConfig, tmp_path / "longer" / "config.yaml").steps) == "10"
    with pytest.raises(UserError, match=r"holds a run with steps 10, not 6; choose another --output$"):
        gan(tmp_path / "longer", "--steps", "6")


def test_a_classifier_made_longer_ends_as_one_that_was_so_long_from_the_start(
    trained_cls: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained_cls, tmp_path / "longer")
    longer, whole = cls(tmp_path / "longer", "--epochs", "5"), cls(tmp_path / "whole", "--epochs", "5")
    assert same(longer, whole)
    with pytest.raises(UserError, match=r"holds a run with epochs 5, not 3; choose another --output$"):
        cls(tmp_path / "longer")


@pytest.mark.parametrize(
    ("train", "options", "longer", "what"),
    [
        (gan, ["--lr_schedule", "linear", "--steps", "1"], ["--steps", "2"], "lr_schedule linear"),
        (cls, ["--lr_schedule", "cosine", "--epochs", "1"], ["--epochs", "2"], "lr_schedule cosine"),
        (
            cls,
            ["--lr_schedule", "constant", "--ssl", "PiModel", "--ssl.batch_size", "8", "--epochs", "1"],
            ["--epochs", "2"],
            "ssl",
        ),
    ],
)
def test_where_a_longer_run_is_another_one_the_refusal_says_why(
    train: type, options: Sequence[str], longer: Sequence[str], what: str, tmp_path: Path
) -> None:
    train(tmp_path, *options)
    words = rf"1, not 2; .* to start from its weights, --init_from {tmp_path} \({what} depends on"
    with pytest.raises(UserError, match=words):
        train(tmp_path, *options, *longer)


# From another run's weights


def test_a_gan_starts_from_another_one_s_weights_and_then_needs_it_no_more(trained_gan: Path, tmp_path: Path) -> None:
    source = result(trained_gan)[0]
    assert not same(source["ema"], source["generator"])
    started = gan(tmp_path / "started", "--steps", "1", *NO_STEP, "--seed", "3", "--init_from", str(trained_gan))
    for name in ("generator", "discriminator"):
        assert same(without_buffers(started[name]), without_buffers(source[name])), name
    moved = {
        key: 0.9 * t + 0.1 * source["generator"][key].double()
        for key, t in {key: t.double() for key, t in source["ema"].items()}.items()
    }
    for key, t in without_buffers(started["ema"]).items():
        torch.testing.assert_close(t.double(), moved[key], rtol=1e-6, atol=1e-7)

    other = tmp_path / "other"
    shutil.copytree(trained_gan, other)
    whole = gan(tmp_path / "whole", "--steps", "5", "--init_from", str(other))
    gan(tmp_path / "broken", "--steps", "2", "--init_from", str(other))
    shutil.rmtree(other)
    assert same(gan(tmp_path / "broken", "--steps", "5", "--init_from", str(other)), whole)
    with pytest.raises(UserError, match=r"holds a run with init_from .*, not None"):
        gan(tmp_path / "whole", "--steps", "5")


def test_a_classifier_starts_from_another_one_s_weights_and_then_needs_it_no_more(
    trained_cls: Path, tmp_path: Path
) -> None:
    still = [*NO_STEP, "--weight_decay", "0", "--epochs", "1", "--milestones", "[]", "--seed", "3"]
    started = cls(tmp_path / "started", *still, "--init_from", str(trained_cls))
    source = result(trained_cls)[0]["network"]
    assert same(without_buffers(started["network"]), without_buffers(source))
    teacher = ["--mixup", "null", "--ssl", "MeanTeacher", "--ssl.batch_size", "8"]
    started = cls(tmp_path / "teacher", *still, *teacher, "--init_from", str(trained_cls))
    for name in ("network", "student"):
        torch.testing.assert_close(without_buffers(started[name]), without_buffers(source))

    other = tmp_path / "other"
    shutil.copytree(trained_cls, other)
    whole = cls(tmp_path / "whole", "--init_from", str(other))
    cls(tmp_path / "broken", "--lr_schedule", "step", "--epochs", "3", "--init_from", str(other))
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "step-000008")
    shutil.rmtree(other)
    assert same(cls(tmp_path / "broken", "--init_from", str(other)), whole)


def test_weights_that_cannot_be_started_from_are_refused(trained_gan: Path, trained_cls: Path, tmp_path: Path) -> None:
    for folder, words in (
        (tmp_path / "none", "init_from: .*none is not a run"),
        (trained_cls, "holds a different generator from the one this configuration builds"),
    ):
        with pytest.raises(UserError, match=words):
            gan(tmp_path / "new", "--steps", "1", "--init_from", str(folder))
        assert not (tmp_path / "new").exists(), "refused before anything is written"
    with pytest.raises(UserError, match="holds a different discriminator"):
        gan(tmp_path / "new", "--steps", "1", "--discriminator.width", "4", "--init_from", str(trained_gan))
    with pytest.raises(UserError, match="holds a different network"):
        cls(tmp_path / "new", "--init_from", str(trained_gan))


# Data and extractor


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight images each of two classes, and sixteen in none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for name in [f"{c}/{i}" for c in ("cat", "dog") for i in range(8)] + [f"loose{i}" for i in range(16)]:
        (file := tmp_path / "photos" / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(file)
    return tmp_path / "photos"


def test_a_relative_root_is_found_from_another_working_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gan(tmp_path / "run", "--data.name", "folder", "--data.root", "photos", "--steps", "1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = mmgan.load(tmp_path / "run").config
    assert config.data.root == str(photos)
    assert len(load(config.data).images) == 32


def test_images_that_were_added_are_trained_on_from_the_run_s_weights(photos: Path, tmp_path: Path) -> None:
    options = ["--data.name", "folder", "--data.root", str(photos)]
    gan(tmp_path / "run", *options, "--steps", "1")
    shutil.copy(photos / "loose0.png", photos / "more.png")
    words = f"was trained on images or labels that differ.* use another --output and --init_from {tmp_path / 'run'}"
    with pytest.raises(UserError, match=words):
        gan(tmp_path / "run", *options, "--steps", "2")
    gan(tmp_path / "more", *options, "--steps", "2", "--init_from", str(tmp_path / "run"))


def test_an_extractor_may_be_moved_but_not_become_another(
    trained_cls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    scored = ["--score.extractor", "Classifier", "--score.num_samples", "20", "--score.every", "1"]
    scored += ["--score.final", "null", "--score.extractor.run"]
    shutil.copytree(trained_cls, tmp_path / "before")
    gan(tmp_path / "run", "--steps", "1", *scored, str(tmp_path / "before"))
    (tmp_path / "before").rename(tmp_path / "after")
    gan(tmp_path / "run", "--steps", "2", *scored, str(tmp_path / "after"))
    cls(tmp_path / "other", "--seed", "1")
    for steps in ("2", "3"):
        with pytest.raises(UserError, match=r"scored with a different extractor from the current score\.extractor"):
            gan(tmp_path / "run", "--steps", steps, *scored, str(tmp_path / "other"))


def test_images_without_a_label_are_learnt_from_with_ssl_and_left_out_without(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--data.name", "folder", "--data.root", str(photos), "--data.validation", "4", "--batch_size", "6"]
    cls(tmp_path / "supervised", *options)
    assert "16 images without a label are left out; with a section ssl they are used" in capsys.readouterr().out
    cls(tmp_path / "ssl", *options, "--mixup", "null", "--ssl", "PseudoLabel", "--ssl.batch_size", "24")
    assert "left out" not in capsys.readouterr().out
    labels = load(cli.config_of(ClassifierConfig, tmp_path / "ssl" / "config.yaml").data).labels
    split = json.loads((tmp_path / "ssl" / "split.json").read_text())
    assert split == json.loads((tmp_path / "supervised" / "split.json").read_text())
    assert labels[split["train"]].bincount().tolist() == [4, 4]
    assert (labels[split["validation"]] >= 0).all()
    assert sorted(split["pool"] + split["validation"]) == list(range(32))
    shutil.rmtree(photos / "cat")
    shutil.rmtree(photos / "dog")
    with pytest.raises(UserError, match=r"none of .* has a label"):
        cls(tmp_path / "none", *options)


def test_a_grid_of_real_images_lies_beside_the_samples(photos: Path, tmp_path: Path) -> None:
    gan(tmp_path / "run", "--data.name", "folder", "--data.root", str(photos), "--steps", "1")
    real, made = (
        np.asarray(Image.open(tmp_path / "run" / "samples" / f"{name}.png")) for name in ("real", "step-000001")
    )
    assert real.shape[1:] == made.shape[1:] == (10 * 34 + 2, 3)
    assert real.shape[0] == 4 * 34 + 2, "32 images, ten a row"
    shown = {real[2 + 34 * (i // 10) :, 2 + 34 * (i % 10) :][:32:4, :32:4, 0].tobytes() for i in range(32)}
    assert shown == {np.asarray(Image.open(file)).tobytes() for file in photos.rglob("*.png")}
