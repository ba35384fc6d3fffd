"""Evaluation of classifiers, each number against an independent computation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from classifiers.compare import Claim, claims, difference, read, verdict
from classifiers.deform import TABLE_5, Deformation, deform, matrices
from classifiers.evaluate import ece, error, interpolated_nll, knn_error, nll, predict
from mmgan.errors import UserError
from mmgan.mixup import Staged
from tests.conftest import run

CPU = torch.device("cpu")


# Numbers of logits and features


@pytest.fixture(scope="module")
def logits() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(4000, 6, generator=generator), torch.randint(6, (4000,), generator=generator)


def test_error_nll_and_ece_are_what_numpy_computes(logits: tuple[Tensor, Tensor]) -> None:
    z, y = (t.double().numpy() for t in logits)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    right = p.argmax(1) == y
    assert error(*logits) == pytest.approx(1 - right.mean())
    assert nll(*logits) == pytest.approx(-np.log(p[np.arange(4000), y.astype(int)]).mean(), rel=1e-9)
    part = np.digitize(p.max(1), np.arange(1, 15) / 15, right=True)
    gaps = [abs(right[part == i].sum() - p.max(1)[part == i].sum()) for i in range(15)]
    assert ece(*logits) == pytest.approx(sum(gaps) / 4000, rel=1e-9)


def test_ece_tells_calibrated_from_overconfident() -> None:
    generator = torch.Generator().manual_seed(0)
    z = 1.5 * torch.randn(40_000, 4, generator=generator)
    labels = torch.multinomial(z.softmax(1), 1, generator=generator).squeeze(1)
    assert ece(z, labels) < 0.01
    assert ece(3 * z, labels) > 0.1


@pytest.mark.parametrize("k", [1, 5, 20])
def test_the_vote_of_neighbours(k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn(200, 3, generator=generator), torch.randn(50, 3, generator=generator)
    labels, truth = (train[:, 0] > 0).long() + (train[:, 1] > 0).long(), (test[:, 0] > 0).long()
    near = NearestNeighbors(n_neighbors=k).fit(train).kneighbors(test, return_distance=False)
    votes = np.array([np.bincount(labels.numpy()[rows], minlength=3).argmax() for rows in near])
    assert knn_error(train, labels, test, truth, k) == pytest.approx((votes != truth.numpy()).mean())


def test_interpolated_nll_is_that_of_states_mixed_by_hand() -> None:
    torch.manual_seed(0)
    network = Staged(nn.Flatten(), nn.Sequential(nn.Linear(16, 8), nn.ReLU()), nn.Linear(8, 3)).eval()
    images, labels = torch.randint(256, (20, 1, 4, 4), dtype=torch.uint8), torch.arange(20) % 3
    from mmgan.engine.randomness import stream  # noqa: PLC0415

    partner = torch.randperm(20, generator=stream(3, "pairs", 0))
    with torch.no_grad():
        for layer in range(3):
            got = interpolated_nll(network, images, labels, 3, layer, CPU, 3, (0.0, 0.3, 1.0), batch_size=7)
            for lam, value in zip((0.0, 0.3, 1.0), got, strict=True):
                h = network(images.float() / 255, stop=layer)
                p = network(lam * h + (1 - lam) * h[partner], start=layer).double().log_softmax(1)
                rows = torch.arange(20)
                want = -(lam * p[rows, labels] + (1 - lam) * p[rows, labels[partner]]).mean()
                assert value == pytest.approx(float(want), rel=1e-6)
    own = interpolated_nll(network, images, labels, 3, 0, CPU, 3, (1.0,))[0]
    assert own == pytest.approx(nll(predict(network, images, CPU), labels), rel=1e-6)


# Deformations


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    return torch.stack([0.5 + 0.5 * torch.sin(0.3 * x + 0.1 * i) * torch.cos(0.2 * y * (i + 1)) for i in range(6)])[
        :, None
    ]


@pytest.mark.parametrize("row", TABLE_5, ids=lambda row: row.name)
def test_a_deformation_is_scipy_s_affine_map(row: Deformation, pictures: Tensor) -> None:
    maps = matrices(row, 6, seed=1)
    got = deform(pictures, maps)[:, 0].numpy()
    for image, matrix, result in zip(pictures[:, 0].double().numpy(), maps.double().numpy(), got, strict=True):
        offset = np.array([7.5, 7.5]) - matrix @ [7.5, 7.5]
        # scipy blends in its fill only between pixels' centres and grid_sample does so half a pixel further: pad first
        padded = np.pad(image, 40)
        want = ndimage.affine_transform(padded, matrix, offset + 40, (16, 16), order=1)
        np.testing.assert_allclose(result, want, atol=2e-5)


def test_angles_are_uniform_and_each_image_s_own() -> None:
    maps = matrices(TABLE_5[1], 4000, seed=0)
    angles = torch.rad2deg(torch.atan2(maps[:, 1, 0], maps[:, 0, 0]))
    assert stats.kstest(angles.numpy(), stats.uniform(-40, 80).cdf).pvalue > 1e-3
    torch.testing.assert_close(torch.linalg.det(maps), torch.ones(4000))
    shear = matrices(TABLE_5[4], 4000, seed=0)
    assert (
        stats.kstest(-torch.rad2deg(torch.asin(shear[:, 0, 1])).numpy(), stats.uniform(-28.6, 57.2).cdf).pvalue > 1e-3
    )
    assert matrices(TABLE_5[1], 4000, seed=0).equal(maps)


def test_turns_by_90_degrees_and_no_zoom_are_exact(pictures: Tensor) -> None:
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).expand(6, 2, 2)
    torch.testing.assert_close(deform(pictures, quarter), torch.rot90(pictures, -1, (2, 3)), atol=1e-5, rtol=0)
    same = Deformation("zoom", 100, 0, 0, 0, 0)
    torch.testing.assert_close(deform(pictures, matrices(same, 6, 0)), pictures, atol=1e-5, rtol=0)


def test_a_zoom_shows_a_box_of_its_percentage(pictures: Tensor) -> None:
    half = deform(pictures, matrices(Deformation("zoom", 50, 0, 0, 0, 0), 6, 0))
    box = nn.functional.interpolate(pictures[:, :, 4:12, 4:12], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(half[:, :, 1:-1, 1:-1], box[:, :, 1:-1, 1:-1], atol=1e-5, rtol=0)
    out = deform(torch.ones(1, 1, 16, 16), matrices(Deformation("zoom", 200, 0, 0, 0, 0), 1, 0))
    assert out[0, 0, 4:12, 4:12].eq(1).all()
    assert out.sum() == 64, "black around it"


# The command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of two arms each."""
    folder = tmp_path_factory.mktemp("arms")
    small = ["--network.name", "wideresnet", "--network.depth", "10", "--network.width", "0.5", "--epochs", "2"]
    for arm, mixup in (("none", ["--mixup", "null"]), ("manifold", [])):
        for seed in ("0", "1"):
            output = folder / arm / f"seed-{seed}"
            done = run(
                "train_cls",
                "--config",
                "configs/cls/digits.yaml",
                "--output",
                str(output),
                "--seed",
                seed,
                *small,
                *mixup,
            )
            assert done.returncode == 0, done.stderr
            done = run("evaluate_cls", str(output))
            assert done.returncode == 0, done.stderr
            assert "zoom out 180%" in done.stdout
    return folder


def evaluation(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


def test_an_evaluation_does_not_depend_on_the_batch_size(trained: Path) -> None:
    folder = trained / "none" / "seed-0"
    before = evaluation(folder)
    assert (before["num_images"], before["num_train"], before["checkpoint"]) == (297, 1200, "best")
    assert len(before["deformed_accuracy"]) == 17
    assert sorted(before["interpolated_nll"]) == ["0", "1", "2", "3"]
    assert run("evaluate_cls", str(folder), "--batch_size", "50").returncode == 0
    after = evaluation(folder)
    for key in ("error", "knn_1", "knn_20", "deformed_accuracy"):
        assert before[key] == after[key]
    assert before["nll"] == pytest.approx(after["nll"], rel=1e-5)
    for name in ("reliability", "interpolation"):
        assert (folder / "plots" / f"{name}.png").stat().st_size > 10_000


def test_a_report_compares_arms(trained: Path, tmp_path: Path) -> None:
    done = run("report_cls", str(trained), str(tmp_path))
    assert done.returncode == 0, done.stderr
    numbers = json.loads((tmp_path / "report.json").read_text())
    errors = {
        arm: [evaluation(trained / arm / f"seed-{seed}")["error"] for seed in (0, 1)] for arm in ("none", "manifold")
    }
    found = numbers["minus none"]["manifold"]["error"]
    low, high = stats.ttest_rel(errors["manifold"], errors["none"]).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    text = (tmp_path / "report.md").read_text()
    assert f"{100 * np.mean(errors['none']):.2f} +- {100 * np.std(errors['none'], ddof=1):.2f}" in text
    assert "| manifold below none | error, mean of 17 deformations, % |" in text
    for name in ("interpolation", "epochs"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_evaluations_by_other_protocols_are_refused(trained: Path, tmp_path: Path) -> None:
    assert len(read(trained)["none"]) == 2
    file = trained / "none" / "seed-1" / "evaluation.json"
    text = file.read_text()
    file.write_text(text.replace('"split": "test"', '"split": "train"'))
    try:
        with pytest.raises(UserError, match="was evaluated with split train, others with test"):
            read(trained)
    finally:
        file.write_text(text)
    with pytest.raises(UserError, match="holds no evaluated run"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "nowhere is no run"),
        (["RUN", "--checkpoint", "7"], "keeps no checkpoint of step 7"),
        (["RUN", "--batch_size", "0"], "batch_size must be positive"),
    ],
)
def test_a_mistake_gets_one_line(options: list[str], words: str, trained: Path) -> None:
    done = run("evaluate_cls", *[str(trained / "none" / "seed-0") if o == "RUN" else o for o in options])
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


# Statistics


def test_differences_are_paired_by_seed() -> None:
    a, b = {0: 1.0, 1: 3.0, 2: 2.0, 7: 9.0}, {2: 1.0, 1: 2.5, 0: 0.9, 5: 4.0}
    found = difference(a, b)
    low, high = stats.ttest_rel([1.0, 3.0, 2.0], [0.9, 2.5, 1.0]).confidence_interval()
    assert found == pytest.approx((1.6 / 3, low, high, 3))
    assert difference({0: 1.0}, {0: 3.0})[1:] == (-np.inf, np.inf, 1)


@pytest.mark.parametrize(
    ("arm", "words"),
    [
        ({0: 1.0, 1: 1.1, 2: 0.9}, "shows"),
        ({0: 3.0, 1: 3.2, 2: 3.1}, "the opposite shows"),
        ({0: 1.0, 1: 2.9, 2: 2.0}, "undecided"),
        ({0: 1.0}, "undecided"),
    ],
)
def test_a_verdict_follows_from_the_numbers(arm: dict[int, float], words: str) -> None:
    other = {0: 2.0, 1: 2.2, 2: 1.9}
    assert verdict(difference(arm, other)) == words
    arms: Any = {"a": {s: {"error": v} for s, v in arm.items()}, "b": {s: {"error": v} for s, v in other.items()}}
    ((_, _, said),) = claims(arms, (Claim("a", "b", "error", ""), Claim("a", "missing", "error", "")))
    assert said == words
