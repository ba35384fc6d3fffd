"""The studies of saved classifiers: interpolated targets, and decoded interpolations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classifiers.evaluation.measures import interpolated_nll
from classifiers.load import load_classifier
from classifiers.studies import Setting, decoder, interpolation
from mmgan.data import DataConfig, load
from mmgan.errors import UserError
from mmgan.mixup import Staged
from tests.conftest import run

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = ["--network", "WideResNet", "--network.depth", "10", "--network.width", "0.5", "--epochs", "2"]
HIGH, LOW = (0.9, 0.92, 0.91), (0.2, 0.25, 0.21)
"""A measure of three seeds that is clearly larger than another."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on the digits without and with Manifold Mixup; the one without stands for Input Mixup too."""
    folder = tmp_path_factory.mktemp("runs")
    for arm, options in (("none", ["--mixup", "null"]), ("manifold", [])):
        output = ["--output", str(folder / arm / "seed-0"), "--tracker", "null"]
        done = run("train_cls", "--config", "configs/cls/digits.yaml", *SMALL, *output, *options)
        assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "none", folder / "input")
    return folder


@pytest.mark.parametrize("study", [interpolation, decoder], ids=["interpolation", "decoder"])
def test_a_fast_study_reports_its_units_and_draws_its_picture(study: Any, runs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    setting = Setting([0], True, said.append, runs)
    text = json.dumps(study.run(setting), allow_nan=False)
    assert len(said) == study.units(setting)
    assert len(text) < 400_000
    numbers = json.loads(text)
    assert {v.found for v in study.verdicts(numbers)} == {"undecided"}, "one seed decides nothing"
    study.plot(numbers, tmp_path / "picture.png")
    assert 20_000 < (tmp_path / "picture.png").stat().st_size < 300_000


def test_the_command_takes_the_folder_of_the_runs(runs: Path, tmp_path: Path) -> None:
    options = ["--fast", "--seeds", "1", "--runs", str(runs), "--output", str(tmp_path)]
    done = run("run_study", "interpolation", *options)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "interpolation.json").read_text())
    assert record["settings"] == {"seeds": 1, "fast": True, "runs": str(runs)}
    assert record["verdicts"] == []


@pytest.mark.parametrize("study", [interpolation, decoder], ids=["interpolation", "decoder"])
def test_a_run_that_is_missing_or_unfinished_is_refused(study: Any, runs: Path, tmp_path: Path) -> None:
    def refused(words: str, folder: Path | None) -> None:
        with pytest.raises(UserError, match=words):
            study.run(Setting([0], True, runs=folder))

    refused("needs --runs", None)
    refused("not a run: it has no config.yaml", tmp_path)
    shutil.copytree(runs, tmp_path / "runs")
    last = max((tmp_path / "runs" / "none" / "seed-0" / "checkpoints").iterdir())
    last.rename(last.with_name("step-000001"))
    refused("seed-0 is not finished", tmp_path / "runs")


def test_the_curves_are_those_of_the_network_s_best_checkpoint(runs: Path) -> None:
    found = interpolation.run(Setting([0], True, runs=runs))
    network, _, _ = load_classifier(runs / "manifold" / "seed-0", "best", CPU)
    images, labels = load(DataConfig("digits", split="test"))
    for layer in range(3):
        want = interpolated_nll(network, images[:100], labels[:100], 10, layer, CPU)
        np.testing.assert_allclose(found["nll"]["manifold"]["0"][str(layer)], want, atol=1e-4)


def curves(**levels: tuple[tuple[float, ...], tuple[float, ...]]) -> dict[str, Any]:
    """Numbers of a study: of each arm the NLL by seed at the input, and in hidden layers, the same for every lam."""
    return {
        "nll": {
            arm: {
                str(s): {str(layer): [(hidden if layer else visible)[s]] * 11 for layer in range(3)} for s in range(3)
            }
            for arm, (visible, hidden) in levels.items()
        }
    }


def test_the_verdicts_on_interpolation_follow_the_numbers() -> None:
    slightly = (0.21, 0.26, 0.22)
    found = interpolation.verdicts(curves(none=(HIGH, HIGH), input=(LOW, HIGH), manifold=(slightly, LOW)))
    assert [v.found for v in found] == ["shows"] * 6
    found = interpolation.verdicts(curves(none=(LOW, LOW), input=(HIGH, LOW), manifold=(LOW, HIGH)))
    assert [v.found for v in found] == ["the opposite shows"] * 6
    found = interpolation.verdicts(curves(none=(LOW, LOW), input=(LOW, LOW), manifold=(LOW, LOW)))
    assert [v.found for v in found] == ["undecided"] * 6


def looks(**numbers: tuple[float, ...]) -> dict[str, Any]:
    """Numbers of a study of decoders, by seed: `distance` for lam 0.5, shares of a third class for lam 0.1 to 0.9."""
    by_seed = {}
    for s in range(3):
        third = {kind: [numbers["ends"][s], *[numbers[kind][s]] * 9, numbers["ends"][s]] for kind in decoder.KINDS}
        distance = [0.0] * 5 + [numbers["distance"][s]] + [0.0] * 5
        by_seed[str(s)] = {"error": numbers["error"][s], "distance": distance, "third": third}
    return {"lams": [i / 10 for i in range(11)], "by_seed": by_seed}


def test_the_verdicts_on_decoded_states_follow_the_numbers() -> None:
    none = (0.001, 0.002, 0.0)
    found = decoder.verdicts(looks(error=LOW, distance=HIGH, ends=none, hidden=none, pixels=HIGH, decoded_pixels=HIGH))
    assert [v.found for v in found] == ["shows"] * 4
    found = decoder.verdicts(looks(error=HIGH, distance=LOW, ends=none, hidden=HIGH, pixels=LOW, decoded_pixels=LOW))
    assert [v.found for v in found] == ["the opposite shows"] * 4
    found = decoder.verdicts(looks(error=LOW, distance=LOW, ends=none, hidden=LOW, pixels=LOW, decoded_pixels=LOW))
    assert [v.found for v in found] == ["undecided", "the opposite shows", "undecided", "undecided"]


def test_a_third_class_is_counted_as_numpy_does() -> None:
    torch.manual_seed(0)
    logits, left, right = torch.randn(500, 5), torch.randint(5, (500,)), torch.randint(5, (500,))
    different = left != right
    logits, left, right = logits[different], left[different], right[different]
    z = logits.double().numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    outside = [sum(p[i, c] for c in range(5) if c not in (left[i], right[i])) for i in range(len(p))]
    count = [p[i].argmax() not in (left[i], right[i]) for i in range(len(p))]
    share, mass = decoder.third(logits, left, right)
    assert share == pytest.approx(np.mean(count))
    assert mass == pytest.approx(np.mean(outside), abs=1e-5)


@pytest.fixture(scope="module")
def network(runs: Path) -> Staged:
    return load_classifier(runs / "manifold" / "seed-0", "best", CPU)[0]


def test_pairs_are_of_different_classes_and_told_right(network: Staged) -> None:
    images, labels = load(DataConfig("digits", split="test"))
    left, right = decoder.pairs(network, images, labels, 100)
    assert len(left) == len(right) == 100
    assert (labels[left] != labels[right]).all()
    with torch.no_grad():
        for rows in (left, right):
            assert torch.equal(network(images[rows].float() / 255).argmax(1), labels[rows])


def test_a_decoder_learns_images_and_interpolates_between_them(network: Staged) -> None:
    images, _ = load(DataConfig("digits"))
    said: list[int] = []
    made = decoder.train(network, images, 0, 150, said.append)
    assert said == list(range(10, 151, 10))
    x = images[:40].float() / 255
    with torch.no_grad():
        decoded = made(network(x, stop=2))
        assert decoded.shape == x.shape
        assert (decoded - x).square().mean() < 0.4 * (x.mean(0) - x).square().mean()
        ends = [decoder.interpolate(network, made, x, lam) for lam in (1.0, 0.0)]
        half = decoder.interpolate(network, made, x, 0.5)
        h = network(x, stop=2)
        torch.testing.assert_close(half["hidden"], made((h[:20] + h[20:]) / 2))
        torch.testing.assert_close(half["decoded_pixels"], made(network((x[:20] + x[20:]) / 2, stop=2)))
    for found, rows in zip(ends, (slice(0, 20), slice(20, 40)), strict=True):
        torch.testing.assert_close(found["pixels"], x[rows])
        for kind in ("hidden", "decoded_pixels", "blend"):
            torch.testing.assert_close(found[kind], decoded[rows], atol=1e-4, rtol=1e-4)
