"""Evaluation of classifiers, each number against an independent computation."""

from __future__ import annotations

import importlib.metadata
import json
import runpy
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy import ndimage, stats
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor, nn

from classifiers.evaluation.deform import TABLE_5, Deformation, deform, matrices
from classifiers.evaluation.measures import ece, error, interpolated_nll, knn_error, nll, predict
from classifiers.load import load_classifier
from mmgan.data import load
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.experiments.results import read, values_of
from mmgan.mixup import Staged
from tests.conftest import ROOT, run, train

pytestmark = pytest.mark.slow

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
    same = Deformation("zoom", 100)
    torch.testing.assert_close(deform(pictures, matrices(same, 6, 0)), pictures, atol=1e-5, rtol=0)


def test_a_zoom_shows_a_box_of_its_percentage(pictures: Tensor) -> None:
    half = deform(pictures, matrices(Deformation("zoom", 50), 6, 0))
    box = nn.functional.interpolate(pictures[:, :, 4:12, 4:12], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(half[:, :, 1:-1, 1:-1], box[:, :, 1:-1, 1:-1], atol=1e-5, rtol=0)
    out = deform(torch.ones(1, 1, 16, 16), matrices(Deformation("zoom", 200), 1, 0))
    assert out[0, 0, 4:12, 4:12].eq(1).all()
    assert out.sum() == 64, "black around it"


# The command

SMALL_CLASSIFIER = ["--network", "WideResNet", "--network.depth", "10", "--network.width", "0.5", "--epochs", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, evaluated."""
    folder = tmp_path_factory.mktemp("trained") / "none" / "seed-0"
    line = ["--config", "configs/cls/digits.yaml", "--output", str(folder), "--tracker", "null"]
    done = run("train_cls", *line, *SMALL_CLASSIFIER, "--mixup", "null")
    assert done.returncode == 0, done.stderr
    done = run("evaluate_cls", str(folder))
    assert done.returncode == 0, done.stderr
    assert "zoom in to 20% of the side" in done.stdout
    assert "zoom out to 180% of the side" in done.stdout
    return folder


ERRORS = {"none": {0: 0.10, 1: 0.13, 2: 0.12}, "manifold": {0: 0.08, 1: 0.12, 2: 0.07}}


@pytest.fixture
def arms(trained: Path, tmp_path: Path) -> Path:
    """Two arms of three runs, whose files are that run's but for seeds, mixup and errors."""
    for arm, errors in ERRORS.items():
        for seed, value in errors.items():
            folder = tmp_path / "arms" / arm / f"seed-{seed}"
            folder.mkdir(parents=True)
            (folder / "metrics.jsonl").write_text((trained / "metrics.jsonl").read_text())
            (folder / "evaluation.json").write_text(json.dumps(evaluation(trained) | {"error": value}))
            config = yaml.safe_load((trained / "config.yaml").read_text()) | {"seed": seed}
            config["data"]["subset_seed"] = seed
            config["mixup"] = {"alpha": 2.0} if arm == "manifold" else None
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "arms"


def evaluation(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


def change(folder: Path, **values: Any) -> None:
    (folder / "evaluation.json").write_text(json.dumps(evaluation(folder) | values))


def test_the_evaluation_of_a_run_says_what_of(trained: Path) -> None:
    found = evaluation(trained)
    assert (found["num_images"], found["num_train"], found["checkpoint"], found["pairs"]) == (297, 1200, "best", 297)
    assert found["finished"]
    assert found["libraries"]["torch"] == importlib.metadata.version("torch")
    assert list(found["deformed_accuracy"]) == [row.name for row in TABLE_5]
    assert sorted(found["interpolated_nll"]) == ["0", "1", "2", "3"]
    for name in ("reliability", "interpolation"):
        assert (trained / "plots" / f"{name}.png").stat().st_size > 10_000


def test_the_numbers_of_a_run_are_those_of_its_best_checkpoint_and_its_training_images(trained: Path) -> None:
    network, config, _ = load_classifier(trained, "best", CPU)
    test, train = load(replace(config.data, split="test")), load(config.data)
    rows = json.loads((trained / "split.json").read_text())["train"]
    found = evaluation(trained)
    assert found["error"] == error(predict(network, test.images, CPU), test.labels)
    own = predict(network, train.images[rows], CPU)
    assert found["train_error"] == error(own, train.labels[rows])
    assert found["train_nll"] == pytest.approx(nll(own, train.labels[rows]), rel=1e-5)
    near = KNeighborsClassifier(5).fit(features(network, train.images[rows]), train.labels[rows].numpy())
    assert found["knn_5"] == pytest.approx(1 - near.score(features(network, test.images), test.labels.numpy()))
    turned = deform(test.images.float() / 255, matrices(TABLE_5[3], 297, seed=0))
    with torch.no_grad():
        right = network(turned).argmax(1) == test.labels
    assert found["deformed_accuracy"][TABLE_5[3].name] == pytest.approx(right.double().mean().item())


def features(network: Staged, images: Tensor) -> Any:
    with torch.no_grad():
        return network(images.float() / 255, stop=network.depth - 1).numpy()


def test_an_evaluation_does_not_depend_on_the_batch_size_nor_changes_the_run(trained: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert run("evaluate_cls", str(trained), "--batch_size", "50", "--output", str(tmp_path)).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before
    one, other = evaluation(trained), evaluation(tmp_path)
    assert one.keys() == other.keys()
    for key in ("error", "knn_1", "knn_20", "deformed_accuracy"):
        assert one[key] == other[key]
    assert one["nll"] == pytest.approx(other["nll"], rel=1e-5)
    for layer, curve in one["interpolated_nll"].items():
        assert curve == pytest.approx(other["interpolated_nll"][layer], rel=1e-4)


def test_on_its_training_images_a_run_has_no_knn_for_they_would_be_their_own_neighbours(
    trained: Path, tmp_path: Path
) -> None:
    options = ["--split", "train", "--checkpoint", "last", "--deformations", "false"]
    done = run("evaluate_cls", str(trained), "--output", str(tmp_path), *options)
    assert done.returncode == 0, done.stderr
    found = evaluation(tmp_path)
    assert (found["split"], found["checkpoint"], found["num_images"]) == ("train", "last", 1500)
    assert not {"knn_1", "knn_5", "knn_20", "train_error", "deformed_accuracy"} & found.keys()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "nowhere is not a run"),
        (["GAN"], "is not a run of mmgan train-cls"),
        (["RUN", "--checkpoint", "7"], "has no checkpoint of step 7"),
        (["RUN", "--batch_size", "0"], "batch_size must be positive"),
        (["RUN", "--output", "/proc/x"], "cannot write to /proc/x ("),
        (["DAMAGED"], "split.json is missing or damaged"),
        (["OTHER"], "was trained on other images"),
    ],
)
def test_a_mistake_gets_one_line(
    options: list[str], words: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if options == ["GAN"]:
        train(tmp_path / "GAN", "--steps", "1")
    if options in (["DAMAGED"], ["OTHER"]):
        shutil.copytree(trained, tmp_path / options[0])
        rows = "{" if options == ["DAMAGED"] else json.dumps({"train": list(range(1200))})
        (tmp_path / options[0] / "split.json").write_text(rows)
    here = {"RUN": trained, **{name: tmp_path / name for name in ("GAN", "DAMAGED", "OTHER")}}
    done = command_here(capsys, "evaluate_cls", *(str(here.get(option, option)) for option in options))
    assert done[0] == 2
    assert words in done[1]
    assert len(done[1].splitlines()) == 1


def command_here(capsys: pytest.CaptureFixture[str], script: str, *options: str) -> tuple[int, str]:
    """The exit code of a script that refuses its options, and what it says, without a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"scripts/{script}.py", *options])
        patch.setattr(sys, "path", [*sys.path])
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "scripts" / f"{script}.py"), run_name="__main__")
    return int(str(end.value)), capsys.readouterr().err


def test_a_report_compares_arms(arms: Path, tmp_path: Path) -> None:
    done = run("report", str(arms), "--output", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    errors = {arm: [100 * value for value in of_arm.values()] for arm, of_arm in ERRORS.items()}
    test = stats.ttest_rel(errors["manifold"], errors["none"])
    low, high = test.confidence_interval()
    mean = np.mean(errors["manifold"]) - np.mean(errors["none"])
    text = (tmp_path / "page.md").read_text()
    assert f"| `manifold` | {mean:+.2f} [{low:+.2f}, {high:+.2f}], p {test.pvalue:.3f} |" in text
    assert f"| `none` | 3 | {np.mean(errors['none']):.2f} +- {np.std(errors['none'], ddof=1):.2f} |" in text
    assert "| Table 1: CIFAR-10, PreActResNet18, 1200 epochs | error, % | 5.12 | 2.89 |" in text
    assert "- `mixup.alpha` 2.0, if present" in text
    assert "Evaluation: best checkpoint, 297 test images of digits; interpolations of 297 pairs." in text
    kept = json.loads((tmp_path / "page" / "record.json").read_text())
    found = evaluation(arms / "none" / "seed-0")
    measures = next(one["measures"] for one in kept["runs"] if one["arm"] == "none")
    assert measures["interpolated/h1"] == pytest.approx(np.mean(found["interpolated_nll"]["1"]))
    assert measures["deformed"] == pytest.approx(1 - np.mean(list(found["deformed_accuracy"].values())))
    assert measures["deformed/rotation U(-20, 20)"] == found["deformed_accuracy"]["rotation U(-20, 20)"]
    for title in ("NLL of interpolated targets over lam (Fig. 2)", "Validation NLL over epochs (Fig. 8)"):
        assert f"## {title}" in text
    for number in (1, 2):
        assert (tmp_path / "page" / f"curves-{number}.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"split": "train"}, "split test, not train|split train, not test"),
        ({"checkpoint": "last"}, "checkpoint best, not last|checkpoint last, not best"),
        ({"num_images": 7}, "num_images 7, not 297|num_images 297, not 7"),
        ({"images": "0"}, "images 0, not|images .*, not 0"),
        ({"data": "mnist"}, "data mnist, not digits|data digits, not mnist"),
    ],
)
def test_evaluations_that_cannot_be_compared_are_refused(arms: Path, values: dict[str, Any], words: str) -> None:
    assert {arm: len(values_of(read([arms]), arm, "error")) for arm in ERRORS} == {"none": 3, "manifold": 3}
    change(arms / "none" / "seed-1", **values)
    with pytest.raises(UserError, match=f"was measured by a different protocol from .*evaluation.*: ({words})"):
        read([arms])


def test_arms_may_have_different_numbers_of_training_images(arms: Path) -> None:
    for seed in range(3):
        change(arms / "none" / f"seed-{seed}", num_train=600)
        file = arms / "none" / f"seed-{seed}" / "config.yaml"
        config = yaml.safe_load(file.read_text())
        config["data"]["labels_per_class"] = 60
        file.write_text(yaml.safe_dump(config))
    assert {arm: values_of(read([arms]), arm, "error") for arm in ERRORS} == ERRORS


def test_an_evaluation_before_the_end_of_training_does_not_count(arms: Path) -> None:
    change(arms / "none" / "seed-1", finished=False)
    found = read([arms])
    assert list(values_of(found, "none", "error")) == [0, 2]
    assert [one.unscored for one in found if one.unscored] == ["evaluated before its training had finished"]


def test_a_repetition_with_another_option_is_refused(arms: Path) -> None:
    file = arms / "none" / "seed-1" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(config | {"lr": 0.2}))
    with pytest.raises(UserError, match=r"is not a repetition of .*: lr 0\.\d, not 0\.\d"):
        read([arms])
    file.write_text(yaml.safe_dump(config | {"seed": 0}))
    with pytest.raises(UserError, match="are the same run with the same seed"):
        read([arms])
