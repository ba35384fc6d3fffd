"""The paper's studies: each runs, draws, and decides by its numbers; the script's refusals."""

from __future__ import annotations

import importlib
import inspect
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import pairwise_distances

from classifiers import studies
from classifiers.studies import Setting, Verdict, share_within
from mmgan import modules
from mmgan.mixup import Staged
from tests.conftest import ROOT, run

pytestmark = pytest.mark.slow

KEPT = ROOT / "docs/results/studies"
NEEDS_IMAGES = pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
FAST = [pytest.param("bottleneck", marks=NEEDS_IMAGES), "gan2d", "lambda", "spirals", "theorem"]


def study(name: str) -> ModuleType:
    return importlib.import_module(f"classifiers.studies.{name}")


def verdicts(name: str, numbers: dict[str, Any]) -> list[Verdict]:
    found: list[Verdict] = study(name).verdicts(numbers)
    return found


def words(found: list[Verdict]) -> list[str]:
    return [one.found for one in found]


@pytest.mark.parametrize("name", FAST)
def test_a_fast_study_runs_and_gives_no_verdicts(name: str, tmp_path: Path) -> None:
    done = run("run_study", name, "--seeds", "2", "--output", str(tmp_path), "--fast")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["settings"] == {"seeds": 2, "fast": True, "runs": None}
    assert record["environment"]["libraries"].keys() >= {"torch", "numpy"}
    assert record["verdicts"] == []
    found = verdicts(name, record["numbers"])
    assert found
    for one in found:
        assert one.claim[:20] not in done.stdout
    assert "no verdicts" in done.stdout
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_is_neither_run_twice_nor_overwritten_by_another(tmp_path: Path) -> None:
    options = ("lambda", "--output", str(tmp_path), "--fast", "--seeds")
    assert run("run_study", *options, "2").returncode == 0
    file, picture = tmp_path / "lambda.json", tmp_path / "lambda.png"
    record = file.read_text()
    picture.unlink()
    again = run("run_study", *options, "2")
    assert (again.returncode, "only its picture" in again.stdout) == (0, True), again.stderr
    assert picture.exists()
    assert file.read_text() == record
    other = run("run_study", *options, "3")
    assert (other.returncode, "seeds 2, not 3" in other.stderr) == (2, True), other.stderr
    assert file.read_text() == record


def test_the_verdicts_of_a_whole_study_are_printed(tmp_path: Path) -> None:
    kept = json.loads((KEPT / "lambda.json").read_text()) | {"title": "Another", "notes": ["Seen by hand."]}
    (tmp_path / "lambda.json").write_text(json.dumps(kept))
    done = run("run_study", "lambda", "--output", str(tmp_path), "--seeds", str(kept["settings"]["seeds"]))
    assert done.returncode == 0, done.stderr
    for one in verdicts("lambda", kept["numbers"]):
        assert " ".join(one.claim.split()[:5]) in done.stdout
        assert one.found in done.stdout
    record = json.loads((tmp_path / "lambda.json").read_text())
    assert record["title"] == (study("lambda").__doc__ or "").partition(".\n")[0], "as the docstring now says"
    assert record["notes"] == ["Seen by hand."]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["spiral"], "unknown study 'spiral'; choose one of bottleneck"),
        (["lambda", "--seeds", "0"], "seeds must be 1 to 1000"),
        (["lambda", "--runs", "runs"], "reads no saved classifiers"),
        (["lambda", "--fast", "--output", "README.md/x"], "cannot write to README.md/x"),
    ],
)
def test_mistakes_are_refused(options: list[str], message: str) -> None:
    done = run("run_study", *options)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_that_is_no_study_s_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lambda.json").write_text("[1]")
    done = run("run_study", "lambda", "--fast", "--output", str(tmp_path))
    assert (done.returncode, "damaged or not a study's" in done.stderr) == (2, True)
    assert (tmp_path / "lambda.json").read_text() == "[1]"


@pytest.mark.parametrize("name", modules.names(studies))
def test_every_study_has_the_same_form(name: str) -> None:
    module = study(name)
    assert isinstance(module.SEEDS, int)
    assert isinstance(module.READS_RUNS, bool)
    parameters = {one: list(inspect.signature(getattr(module, one)).parameters) for one in ("units", "run")}
    assert parameters == {"units": ["setting"], "run": ["setting"]}
    lines = (module.__doc__ or "").splitlines()
    assert lines[0].endswith(".")
    assert lines[1] == ""


@pytest.mark.parametrize("name", modules.names(studies))
def test_what_is_kept_is_what_its_numbers_say(name: str) -> None:
    record = json.loads((KEPT / f"{name}.json").read_text())
    assert [Verdict(**one) for one in record["verdicts"]] == verdicts(name, record["numbers"])
    assert record["settings"]["fast"] is False
    assert (study(name).__doc__ or "").startswith(f"{record['title']}.\n\n")
    assert record["about"].split() == (study(name).__doc__ or "").partition("\n\n")[2].split()
    assert all(isinstance(note, str) for note in record.get("notes", []))
    assert (KEPT / f"{name}.json").stat().st_size <= 400_000
    assert (KEPT / f"{name}.png").stat().st_size <= 300_000


@pytest.mark.parametrize("name", FAST)
def test_progress_is_reported_as_often_as_said(name: str) -> None:
    reports: list[str] = []
    setting = Setting(range(1), True, reports.append)
    study(name).run(setting)
    assert len(reports) == study(name).units(setting)


def test_lambda_is_exact_and_the_sampler_agrees() -> None:
    def density(lam: float) -> float:  # Beta(2, 2), integrated by hand: 3 lam^2 - 2 lam^3
        return 3 * lam**2 - 2 * lam**3

    numbers = study("lambda").run(Setting(range(4)))
    assert numbers["exact"]["2.0"] == pytest.approx(2 * density(0.05), rel=1e-9)
    assert numbers["exact"]["1.0"] == pytest.approx(0.1)
    assert numbers["distance of 5 %"]["2.0"] == pytest.approx(stats.beta(2, 2).interval(0.95)[0])
    for alpha, shares in numbers["drawn"].items():
        p = numbers["exact"][alpha]
        error = math.sqrt(p * (1 - p) / numbers["draws"])
        assert all(abs(share - p) < 5 * error for share in shares.values()), alpha


def test_lambda_decides() -> None:
    lam = study("lambda")
    numbers = lam.run(Setting(range(3), True))
    for shares, word in (
        ([0.014, 0.015, 0.0145], "the opposite shows"),
        ([0.049, 0.051, 0.05], "shows"),
        ([0.09, 0.1, 0.095], "the opposite shows"),
        ([0.0, 0.1, 0.05], "undecided"),
    ):
        drawn = numbers["drawn"] | {"2.0": dict(enumerate(shares))}
        assert words(lam.verdicts(numbers | {"drawn": drawn})) == [word]


def spiral_numbers(**arms: dict[str, float]) -> dict[str, Any]:
    """Measures of three seeds: those of `plain` but where an arm says otherwise."""
    plain = {"accuracy": 1.0, "NLL": 0.001, "gap": 0.03, "within": 0.3}
    names = {arm: arm.replace(" ", "_") for arm in study("spirals").ARMS}
    rows = {arm: plain | arms.get(name, {}) for arm, name in names.items()}
    jitter = {"0": 1.0, "1": 1.01, "2": 0.99}
    return {
        "measures": {
            arm: {
                seed: {k: v if k == "accuracy" else v * factor**i for k, v in row.items()}
                for seed, factor in jitter.items()
            }
            for i, (arm, row) in enumerate(rows.items())
        }
    }


def test_spirals_decide() -> None:
    decide = study("spirals").verdicts
    paper = spiral_numbers(
        manifold_mixup={"gap": 0.13, "within": 0.01}, input_mixup={"NLL": 0.3, "accuracy": 0.97, "gap": -0.01}
    )
    assert words(decide(paper)) == ["shows"] * 4
    turned = spiral_numbers(
        manifold_mixup={"gap": 0.01, "within": 0.9, "NLL": 0.5, "accuracy": 0.9}, input_mixup={"NLL": 0.1}
    )
    assert words(decide(turned)) == ["the opposite shows"] * 4
    imperfect = spiral_numbers(manifold_mixup={"accuracy": 0.999, "gap": 0.13}, input_mixup={"NLL": 0.3})
    assert words(decide(imperfect))[0] == "undecided", "better, but not perfect"
    one_like_it = spiral_numbers(manifold_mixup={"gap": 0.13}, dropout={"gap": 0.2})
    assert words(decide(one_like_it))[1:3] == ["shows", "the opposite shows"]


def test_spirals_are_two_arms_apart() -> None:
    x, labels = study("spirals").spirals(0)
    distance = pairwise_distances(x.double().numpy())
    apart = (labels[:, None] != labels).numpy()
    assert (x.norm(dim=1) < 1.2).all()
    assert np.median(np.where(apart, distance, 9).min(1)) > 0.15
    np.fill_diagonal(distance, 9)
    nearest = distance.argmin(1)
    assert (labels.numpy()[nearest] == labels.numpy()).mean() > 0.97


def bottleneck_numbers(within: tuple[float, float], margin: tuple[float, float]) -> dict[str, Any]:
    """Three seeds of (manifold, others) everywhere."""
    measures = {}
    for i, cell in enumerate(study("bottleneck").cells()):
        mine = 0 if cell[0] == "manifold" else 1
        values = {"within": within[mine], "margin": margin[mine]}
        measures[study("bottleneck").name_of(*cell)] = {
            str(seed): {name: value * (1 + 0.001 * seed * (i % 3)) for name, value in values.items()}
            for seed in range(3)
        }
    return {"data": "mnist", "measures": measures}


def test_bottleneck_decides() -> None:
    decide = study("bottleneck").verdicts
    assert words(decide(bottleneck_numbers((0.1, 0.3), (0.5, 0.2)))) == ["shows"] * 4
    assert words(decide(bottleneck_numbers((0.4, 0.3), (0.1, 0.2)))) == ["the opposite shows"] * 4
    assert words(decide(bottleneck_numbers((0.1, 0.3), (0.1, 0.2)))) == ["shows", "the opposite shows"] * 2
    mixed = bottleneck_numbers((0.1, 0.3), (0.5, 0.2))
    mixed["measures"]["input, plain, 10 classes"] = {str(seed): {"within": 0.1, "margin": 0.5} for seed in range(3)}
    assert words(decide(mixed)) == ["undecided", "undecided", "shows", "shows"]


def test_tightness_and_margin_by_hand() -> None:
    h = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [6.0, 0.0], [6.0, 1.0], [6.0, 2.0]])
    labels = torch.tensor([3, 3, 3, 5, 5, 5])
    margin = study("bottleneck").margin
    assert share_within(h, labels) == pytest.approx(4 / (4 + 54))
    assert margin(h, labels) == pytest.approx((math.sqrt(37) - 1) / math.sqrt(58 / 6))
    assert share_within(100 * h + 7, labels) == pytest.approx(4 / 58), "free of scale and place"
    assert share_within(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1])) == 1, "one point for all is no concentration"
    assert margin(torch.zeros(6, 2), labels) == 0
    assert margin(100 * h + 7, labels) == pytest.approx(margin(h, labels), rel=1e-5)


def test_the_bottleneck_has_the_layers_of_the_paper() -> None:
    shared = importlib.import_module("classifiers.studies._bottleneck")
    f = shared.network((2, 8, 8, 8, 8, 2), (2, 8, 8, 8, 2), 0)
    assert isinstance(f, Staged)
    linear = [layer for layer in f.modules() if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [8, 8, 8, 8, 2, 8, 8, 8, 2], (
        "nine layers, two numbers in the fifth"
    )
    assert isinstance([*f.stages[0].children()][-1], torch.nn.Linear), "the bottleneck is linear"
    again = shared.network((2, 8, 8, 8, 8, 2), (2, 8, 8, 8, 2), 0, True, 0.5)
    first = next(layer for layer in again.modules() if isinstance(layer, torch.nn.Linear))
    assert torch.equal(first.weight, linear[0].weight), "arms of a seed start alike"


@pytest.mark.parametrize(("dimension", "classes"), [(1, 4), (2, 4), (3, 4), (5, 4), (2, 3)])
def test_theorem_1_and_its_floor(dimension: int, classes: int) -> None:
    theorem = study("theorem")
    found = theorem.solve(dimension, classes, 0)
    each = max(3, dimension - classes + 3)
    y = np.eye(classes).repeat(each, 0)
    kept = np.linalg.svd(
        y - y.mean(0), full_matrices=False
    )  # the best states: the first `dimension` directions of the centred targets
    best = (kept.U[:, :dimension] * kept.S[:dimension]) @ kept.Vh[:dimension] + y.mean(0)
    lam = np.linspace(0.0005, 0.9995, 1000)
    losses = [
        np.square(lam[:, None] * (best - y)[i] + (1 - lam[:, None]) * (best - y)[j]).sum(1).mean()
        for i in range(len(y))
        for j in range(len(y))
        if i != j
    ]
    assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-4, abs=1e-9)
    assert found["floor"] == pytest.approx(np.mean(losses), rel=1e-5, abs=1e-12)
    assert found["rank"] == [max(0, dimension - classes + 1)] * classes


def test_crossings_by_hand() -> None:
    crossings = study("theorem").crossings
    square = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    assert crossings(square) == 1
    assert crossings([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [1.0, 1.0]]) == 0, "K4 with one inside"
    pentagon = [[math.cos(2 * math.pi * i / 5), math.sin(2 * math.pi * i / 5)] for i in range(5)]
    assert crossings(pentagon) == 5


def theorem_numbers(**changes: Any) -> dict[str, Any]:
    """Numbers as the theorem says; `loss` of (H, d) and ranks may be changed."""
    floor = study("theorem").floor
    linear = [
        {"H": h, "d": d, "seed": 0, "floor": floor(h, d, 3 * d), "rank": [max(0, h - d + 1)] * d}
        for d in (3, 5)
        for h in range(1, 7)
    ]
    for row in linear:
        row["loss"] = changes.get("loss", {}).get((row["H"], row["d"]), row["floor"])
        row["rank"] = changes.get("rank", row["rank"])
    free = [
        {"H": h, "d": d, "seed": 0, "floor": floor(h, d, d), "crossings": 1 if h == 2 else None}
        | {"loss": changes.get("free", 0.5) * floor(h, d, d)}
        for h in (1, 2, 3)
        for d in (5, 6)
    ]
    return {"linear": linear, "free": free}


def test_the_theorem_decides() -> None:
    decide = study("theorem").verdicts
    assert words(decide(theorem_numbers())) == ["shows", "shows", "the opposite shows", "shows"]
    assert words(decide(theorem_numbers(loss={(4, 5): 1e-3})))[0] == "the opposite shows", "not reached"
    assert words(decide(theorem_numbers(loss={(3, 5): 1e-14})))[0] == "the opposite shows", "not needed"
    assert words(decide(theorem_numbers(rank=[9])))[1] == "the opposite shows"
    enough = {(h, d): 0.1 for d in (3, 5) for h in (d - 1, d)}
    assert words(decide(theorem_numbers(loss=enough)))[2] == "shows"
    assert words(decide(theorem_numbers(free=0.01)))[3] == "the opposite shows"
