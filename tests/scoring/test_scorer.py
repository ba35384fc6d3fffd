"""Scores against torch-fidelity's own call and against NumPy and SciPy; the cache; what may be compared."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import scipy.linalg
import scipy.special
import torch
import torch_fidelity
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from scipy.spatial.distance import cdist
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

import classifiers
import mmgan
from classifiers.load import Classifier
from classifiers.studies import Setting
from classifiers.studies._saved import finished
from mmgan import modules
from mmgan.data import DataChange, DataConfig, load
from mmgan.engine import cli
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.final import final_scores
from mmgan.scoring import PROTOCOLS, Extractor, Inception, Protocol, Scorer, records
from mmgan.scoring.protocol import Metric, comparable
from mmgan.scoring.scorer import extract
from mmgan.scoring.source import of_data, reference_of
from tests.conftest import ENVIRONMENT, ROOT, SMALL, result, run, same
from tests.scoring.registered import register

pytestmark = pytest.mark.slow

DIGITS = DataConfig("digits")
ALL = ("is", "fid", "kid", "prc")


class Small(nn.Module):
    """Twelve features and five logits of an 8x8 image, from random weights."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("first", torch.randn(64, 12, generator=generator) / 8)
        self.register_buffer("second", torch.randn(12, 5, generator=generator))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = (images.flatten(1).float() / 255 @ self.first).relu()
        return features, features @ self.second


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mmgan" / "scores"


def small(seed: int = 0, name: str = "small") -> Extractor:
    return Extractor(name, Small(seed), "none")


class Convolutions(nn.Module):
    """Says whether convolutions may use TF32 while it is called."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 2), float(torch.backends.cudnn.allow_tf32))


def test_features_are_computed_without_tf32_which_is_then_as_before() -> None:
    assert torch.backends.cudnn.allow_tf32
    features, _ = Extractor("convolutions", Convolutions(), "none")(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert not features.any()
    assert torch.backends.cudnn.allow_tf32


def scorer(
    extractor: Extractor | None = None, data: DataConfig = DIGITS, batch_size: int = 256, **options: Any
) -> Scorer:
    AcceleratorState._reset_state(reset_partial_state=True)
    protocol = Protocol(**({"num_samples": 700, "metrics": ALL} | options))
    accelerator = Accelerator(cpu=True)
    return Scorer(extractor or small(), reference_of(data, protocol, accelerator), protocol, accelerator, batch_size)


def noisy(level: float, n: int = 1500) -> Tensor:
    """Training digits with so much noise, in levels of 255."""
    images = load(DIGITS).images[:n].float()
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + level * noise).clamp(0, 255).to(torch.uint8)


def written(images: Tensor, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for i, pixels in enumerate(images[:, 0]):
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")


class Rows(Dataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """The estimate without bias of features [N, d] and [M, d], in float64."""

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    own = [(kernel(z, z).sum() - np.trace(kernel(z, z))) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return float(sum(own) - 2 * kernel(x, y).mean())


def covered(points: np.ndarray, by: np.ndarray) -> float:
    """The share of `points` that lie no farther from one of `by` than its third neighbour."""
    radius = np.sort(cdist(by, by), 1)[:, 3]
    return float((cdist(points, by) <= radius).any(1).mean())


def inception_score(logits: np.ndarray) -> np.ndarray:
    """Of ten parts."""
    log_p = scipy.special.log_softmax(logits, axis=1)
    parts = np.array_split(log_p[np.random.RandomState(2020).permutation(len(logits))], 10)
    log_q = [scipy.special.logsumexp(q, axis=0) - np.log(len(q)) for q in parts]
    return np.exp([(np.exp(q) * (q - total)).sum(1).mean() for q, total in zip(parts, log_q, strict=True)])


def close(a: dict[str, float], b: dict[str, float], rel: float) -> None:
    """Equal to `rel` of each score; a deviation, to `rel` of what it is the deviation of."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value == pytest.approx(b[name], abs=rel * abs(a[name.removesuffix("_std")]) + 1e-9), name


def test_scores_are_torch_fidelity_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmgan.scoring.scorer.KID_SUBSET_SIZE", 200)
    made = noisy(60, 700)
    got = scorer().score(lambda a, b: made[a:b])
    register(small(name="small-registered"))
    theirs = torch_fidelity.calculate_metrics(
        input1=Rows(made),
        input2=Rows(load(DIGITS).images),
        feature_extractor="small-registered",
        kid_subset_size=200,
        save_cpu_ram=True,
        cuda=False,
        verbose=False,
        **{"isc": True, "fid": True, "kid": True, "prc": True},
    )
    names = {"is": "inception_score_mean", "is_std": "inception_score_std", "fid": "frechet_inception_distance"}
    names |= {"kid": "kernel_inception_distance_mean", "kid_std": "kernel_inception_distance_std"}
    names |= {"precision": "precision", "recall": "recall"}
    close(got, {name: theirs[key] for name, key in names.items()}, 1e-4)


def test_scores_are_what_numpy_and_scipy_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmgan.scoring.scorer.KID_SUBSET_SIZE", 200)
    made, real = noisy(60, 700), load(DIGITS).images
    x, logits = (t.double().numpy() for t in small()(made))
    y = small()(real)[0].double().numpy()

    def fid(a: np.ndarray, b: np.ndarray) -> float:
        c, d = np.cov(a.T), np.cov(b.T)
        root = scipy.linalg.sqrtm(c @ d).real
        return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * root))

    rng, kids = np.random.RandomState(2020), []
    for _ in range(100):
        kids.append(kid(x[rng.choice(700, 200, replace=False)], y[rng.choice(1500, 200, replace=False)]))
    parts = inception_score(logits)
    want = {"is": np.mean(parts), "is_std": np.std(parts), "fid": fid(x, y)}
    want |= {"kid": np.mean(kids), "kid_std": np.std(kids), "precision": covered(x, y), "recall": covered(y, x)}
    close(scorer().score(lambda a, b: made[a:b]), want, 1e-5)
    close(
        scorer(metrics=("is", "fid")).score(lambda a, b: made[a:b]), {k: want[k] for k in ("is", "is_std", "fid")}, 1e-5
    )


def test_kid_has_a_spread_only_where_its_subsets_are_drawn_of_both_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that is no larger than a subset is the subset each time: such a spread would be about 0, or of one set."""
    made, real = noisy(60, 200), load(DIGITS).images
    x, y = (small()(images)[0].double().numpy() for images in (made, real))
    monkeypatch.setattr("mmgan.scoring.scorer.KID_SUBSET_SIZE", 200)
    options = {"metrics": ("kid",), "num_samples": 200}
    both = scorer(**options, num_reference=200)
    rows = np.sort(torch.randperm(1500, generator=stream(0, "reference", 0))[:200].numpy())
    close(both.score(lambda a, b: made[a:b]), {"kid": kid(x, y[rows])}, 1e-6)
    one = scorer(**options).score(lambda a, b: made[a:b])
    assert one.keys() == {"kid"}
    assert one["kid"] == pytest.approx(kid(x, y), rel=0.1)
    stamp = both.stamp(0, "raw")
    record = RECORD | {"dimension": 12, "stamp": stamp, "scores": one}
    assert "KID's spread needs more than the 200 images of a subset" in records.summary(record)
    monkeypatch.setattr("mmgan.scoring.scorer.KID_SUBSET_SIZE", 199)
    assert scorer(**options).score(lambda a, b: made[a:b]).keys() == {"kid", "kid_std"}


class Far(Small):
    """Features of a mean of 30 and a deviation of about 1e-3."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = super().forward(images)
        return 30 + 4e-3 * features, logits


def test_features_far_from_zero_and_close_to_each_other_are_told_apart() -> None:
    """Single precision, in which products of such features are rounded to 1e-4 and distances to 0, found recall 1."""
    real, labels = load(DIGITS)
    made, far = noisy(60)[labels == 1][:100], Extractor("far", Far(), "none")
    x, y = (far(images)[0].double().numpy() for images in (made, real))
    assert x.mean() == pytest.approx(30, abs=0.01)
    assert y.std(0).mean() == pytest.approx(1e-3, rel=0.5)
    rows = np.sort(torch.randperm(1500, generator=stream(0, "reference", 0))[:300].numpy())
    got = scorer(far, num_samples=100, num_reference=300, metrics=("kid", "prc")).score(lambda a, b: made[a:b])
    assert got["kid"] == pytest.approx(kid(x, y[rows]), abs=0.05)
    assert abs(got["kid"]) < 1
    assert got["precision"] == pytest.approx(covered(x, y[rows]), abs=1e-6)
    assert got["recall"] == pytest.approx(covered(y[rows], x), abs=1e-6)
    assert got["recall"] < 0.6


class Sure(Small):
    """Logits that differ by thousands, and a class that no image is of: its probability is 0 in float64."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = super().forward(images)
        return features, torch.cat([5000 * (logits - logits.mean(0)), torch.full([len(images), 1], -1e5)], 1)


def test_the_inception_score_of_a_sure_extractor_is_a_number() -> None:
    made, sure = noisy(60, 700), Extractor("sure", Sure(), "none")
    logits = sure(made)[1].double().numpy()
    assert (np.ptp(logits, axis=1) > 745).mean() > 0.9
    got = scorer(sure, metrics=("is",), batch_size=700).score(lambda a, b: made[a:b])
    want = inception_score(logits)
    assert got["is"] == pytest.approx(want.mean(), rel=1e-9)
    assert got["is_std"] == pytest.approx(want.std(), rel=1e-9)
    assert 1 < got["is"] < 5


@pytest.mark.parametrize("batch_size", [1, 64, 1000])
def test_the_batch_size_does_not_matter(batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmgan.scoring.scorer.KID_SUBSET_SIZE", 200)
    made = noisy(60, 700)
    a, b = (scorer(batch_size=size).score(lambda a, b: made[a:b]) for size in (batch_size, 256))
    close({name: a[name] for name in ("is", "fid")}, {name: b[name] for name in ("is", "fid")}, 1e-6)
    close(a, b, 1e-4)


def test_is_may_take_another_number_of_samples() -> None:
    made = noisy(60)
    both, few, many = (
        scorer(metrics=("is", "fid"), **numbers).score(lambda a, b: made[a:b])
        for numbers in ({"num_samples": 300, "is_samples": 900}, {"num_samples": 300}, {"num_samples": 900})
    )
    assert both["fid"] == pytest.approx(few["fid"], rel=1e-9)
    assert both["is"] == pytest.approx(many["is"], rel=1e-9)


def test_fid_of_real_images_is_near_zero_and_grows_with_noise(tmp_path: Path) -> None:
    by = scorer(metrics=("fid",))
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(0))
    images = [noisy(level)[order] for level in (0, 20, 40, 80)]
    scores = [by.score(lambda a, b, x=x: x[a:b])["fid"] for x in images]  # type: ignore[misc]
    assert scores == sorted(scores)
    assert 0 <= 5 * scores[0] < scores[2] < scores[3] / 2

    written(images[0][:750], tmp_path)
    halves = scorer(data=DataConfig("folder", root=str(tmp_path)), metrics=("fid",), num_samples=750)
    assert 0 < 2 * halves.score(lambda a, b: images[0][750:][a:b])["fid"] < scores[2]
    floor = by.floor(of_data(replace(DIGITS, split="test"), by.accelerator))
    test = small()(load(replace(DIGITS, split="test")).images)[0].double().numpy()
    train = small()(load(DIGITS).images)[0].double().numpy()
    root = scipy.linalg.sqrtm(np.cov(test.T) @ np.cov(train.T)).real
    want = ((test.mean(0) - train.mean(0)) ** 2).sum() + np.trace(np.cov(test.T) + np.cov(train.T) - 2 * root)
    assert floor["fid"] == pytest.approx(want, rel=1e-4)


def test_features_of_fid_are_not_kept() -> None:
    made = extract(small(), lambda a, b: noisy(0)[a:b], 700, ("fid",), Accelerator(cpu=True), 256)
    assert made.features is None
    assert made.logits is None


# The cache of real statistics


def test_statistics_of_real_images_come_from_the_cache(cache: Path) -> None:
    made = noisy(60, 700)
    first = scorer(metrics=("fid",)).score(lambda a, b: made[a:b])
    (file,) = cache.iterdir()
    kept = safetensors.torch.load(file.read_bytes())
    file.write_bytes(safetensors.torch.save({**kept, "mean": kept["mean"] + 1}))
    assert scorer(metrics=("fid",)).score(lambda a, b: made[a:b])["fid"] > first["fid"] + 1, "it was read"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.warns(UserWarning, match="damaged"):
        again = scorer(metrics=("fid",))
    assert again.score(lambda a, b: made[a:b]) == first, "a damaged file is made again"
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize("what", ["images", "one pixel", "number", "weights", "layers", "preprocessing"])
def test_whatever_statistics_depend_on_misses_the_cache(
    what: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "changing.py").write_text(
        "from mmgan.data.sets import digits\nEDIT = 0\n\n"
        "def load(config):\n    images, labels = digits.load(config)\n"
        "    images[700, 0, 3, 3] += EDIT\n    return images, labels\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import changing  # type: ignore[import-not-found] # noqa: PLC0415

    modules.trust(["changing"])

    data, extractor, options = DataConfig("changing"), small(), {"metrics": ("fid",)}
    scorer(extractor, data, **options)
    if what == "images":
        data = replace(data, resolution=16)
        extractor.module.first = extractor.module.first.repeat(4, 1)
        scorer(Extractor("small", extractor.module, "none"), data, **options)
    elif what == "one pixel":
        monkeypatch.setattr(changing, "EDIT", 1)
        scorer(extractor, data, **options)
    elif what == "number":
        scorer(extractor, data, num_reference=1499, **options)
    elif what == "weights":
        scorer(small(seed=1), data, **options)
    elif what == "layers":
        scorer(Extractor("small", nn.Sequential(Small()), "none"), data, **options)
    else:
        scorer(Extractor("small", Small(), "bilinear to 8x8"), data, **options)
    assert len(list(cache.iterdir())) == 2
    scorer(small(), DataConfig("digits"), **options)
    assert len(list(cache.iterdir())) == 2, "the same images by another name are the same images"


# Protocols


def test_unlike_scores_are_not_compared() -> None:
    a = scorer(num_samples=700).stamp(0, "ema")
    comparable(a, scorer(num_samples=700).stamp(0, "ema"))
    with pytest.raises(UserError, match="num_samples 700, not 600"):
        comparable(a, scorer(num_samples=600).stamp(0, "ema"))
    with pytest.raises(UserError, match=r"generator ema, not raw; seed 0, not 1$"):
        comparable(a, scorer(num_samples=700).stamp(1, "raw"))
    with pytest.raises(UserError, match="extractor_hash"):
        comparable(a, scorer(small(1), num_samples=700).stamp(0, "ema"))
    assert a["versions"]["torch-fidelity"] == torch_fidelity.__version__


def test_protocols_have_the_numbers_of_their_names() -> None:
    numbers = {name: (p.num_samples, p.reference, p.num_reference, p.for_is) for name, p in PROTOCOLS.items()}
    assert numbers == {
        "train-50k": (50_000, "train", None, 50_000),
        "test-10k": (10_000, "test", None, 10_000),
        "miyato": (5_000, "test", 10_000, 50_000),
        "paper": (50_000, "test", None, 50_000),
    }


@pytest.mark.parametrize(
    ("options", "words"), [({"num_samples": 9}, "at least 10"), ({"metrics": ("fib",)}, "is, fid")]
)
def test_protocols_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Protocol(**({"num_samples": 10} | options))


@pytest.mark.parametrize(("metric", "found"), [("fid", 1), ("kid", 1), ("prc", 3)])
def test_too_few_real_images_are_refused(metric: Metric, found: int) -> None:
    """One image has no covariance, and three have no third neighbour."""
    with pytest.raises(UserError, match=f"{metric} needs at least {found + 1} real images, not {found} .train images"):
        scorer(metrics=(metric,), num_reference=found)
    made = noisy(60, 20)
    scores = scorer(metrics=(metric,), num_samples=20, num_reference=found + 1).score(lambda a, b: made[a:b])
    assert np.isfinite(list(scores.values())).all()


RECORD: dict[str, Any] = {"checkpoint": "last", "step": 3, "protocol": "test-10k", "stamp": {"seed": 0}}
RECORD["fake"] = {"name": "run:last", "hash": "a"}


def test_a_score_that_is_not_finite_is_left_out_of_json(tmp_path: Path) -> None:
    """As a version before kept it; what JSON has no word for is not written."""
    file, old = tmp_path / "scores.json", RECORD | {"scores": {"is": float("nan"), "fid": 2.0}}
    file.write_text(json.dumps([old]))
    assert records.read(tmp_path)[0]["scores"] == {"fid": 2.0}
    records.keep(tmp_path, RECORD | {"checkpoint": "best", "scores": {"fid": 1.0}})
    assert "NaN" not in file.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.keep(tmp_path, RECORD | {"scores": {"fid": float("inf")}})
    assert [record["scores"]["fid"] for record in records.read(tmp_path)] == [2.0, 1.0]


def test_a_record_keeps_the_other_scores_of_the_same_weights(tmp_path: Path) -> None:
    """Also those that an earlier version wrote, which did not say of which weights, but not its floor."""
    earlier = {key: value for key, value in RECORD.items() if key != "fake"}
    earlier |= {"scores": {"is": 2.0, "fid": 3.0}, "floor": {"fid": 1.0}, "num_floor": 297, "dimension": 12}
    (tmp_path / "scores.json").write_text(json.dumps([earlier]))
    new = RECORD | {"scores": {"fid": 3.5, "kid": 0.1}, "floor": {"kid": 0.0}, "num_floor": 700, "dimension": None}
    records.keep(tmp_path, new)
    (one,) = records.read(tmp_path)
    assert one["scores"] == {"is": 2.0, "fid": 3.5, "kid": 0.1}
    assert (one["floor"], one["num_floor"], one["dimension"]) == ({"kid": 0.0}, 700, 12)
    assert (
        records.name_of(one | {"stamp": {"generator": "ema", "seed": 1}}) == f"{tmp_path}, last (step 3), ema, seed 1"
    )
    for other in ({"fake": {"name": "run:last", "hash": "b"}}, {"step": 4}):
        records.keep(tmp_path, new | {"scores": {"is": 1.0}} | other)
        assert [record["scores"] for record in records.read(tmp_path)] == [{"is": 1.0}]


@pytest.mark.parametrize(
    "content",
    [
        b"[{",
        b"\xff\xfe",
        b"{}x",
        b'{"a": 1}',
        b"7",
        b"null",
        b"[1]",
        b'["a"]',
        b"[{}]",
        b"[" * 100_000,
        json.dumps([RECORD | {"scores": [1]}]).encode(),
        json.dumps([RECORD | {"scores": {"fid": "low"}}]).encode(),
        json.dumps([RECORD | {"scores": {"fid": 10**400}}]).encode(),
        json.dumps([RECORD | {"scores": {}, "stamp": None}]).encode(),
        json.dumps([RECORD | {"scores": {}, "fake": [1]}]).encode(),
        json.dumps([RECORD | {"scores": {}, "real": 3}]).encode(),
        None,
    ],
    ids=lambda content: "folder" if content is None else content[:40].decode(errors="replace"),
)
def test_damaged_scores_get_one_line(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"scores.json is damaged .*; remove it and score the run again"):
        records.read(tmp_path)


def test_features_that_are_not_finite_are_no_score() -> None:
    by = scorer(num_samples=20)
    by.extractor.module.first.fill_(torch.nan)
    with pytest.raises(UserError, match="not finite"):
        by.score(lambda a, b: noisy(0)[a:b])


# Inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of Inception weights, of its real architecture, drawn at random."""
    file = tmp_path_factory.mktemp("weights") / "inception.pth"

    class Unloaded(FeatureExtractorInceptionV3):  # type: ignore[misc] # its constructor insists on a file
        def load_state_dict(self, *_: object, **__: object) -> None:
            pass

    torch.save({}, file)
    torch.manual_seed(0)
    network = Unloaded("inception-v3-compat", ["2048"], feature_extractor_weights_path=file)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    torch.save(network.state_dict(), file)
    return file


def test_inception_is_torch_fidelity_s(weights: Path) -> None:
    images = torch.randint(256, (4, 1, 8, 8), dtype=torch.uint8)
    features, logits = Inception(str(weights)).build()(images)
    names = ["2048", "logits_unbiased"]
    theirs = FeatureExtractorInceptionV3("inception-v3-compat", names, feature_extractor_weights_path=weights)
    for got, want in zip((features, logits), theirs(images.repeat(1, 3, 1, 1)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))
    assert features.shape == (4, 2048)
    assert logits.shape == (4, 1008)


def test_weights_that_are_not_there_get_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    advice = r": download https://.*pth to .*checkpoints.*, or set extractor.weights to its path$"
    for place in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(UserError, match=rf"no Inception weights \(no file {place}\){advice}"):
            Inception(str(place)).build()
    with pytest.raises(
        UserError, match=r"^extractor.run: nowhere is not a run: .*; the extractor Inception needs no labels$"
    ):
        Classifier("nowhere").build()


def test_damaged_weights_get_one_line(tmp_path: Path) -> None:
    """Whatever a reader of pickles may make of them."""
    whole, file = io.BytesIO(), tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, whole)
    others = []
    for value in ([1], torch.zeros(2), {1: 2}, {"a": "b"}, {"Conv2d_1a_3x3.conv.weight": torch.zeros(2)}):
        torch.save(value, other := io.BytesIO())
        others.append(other.getvalue())
    damaged = [b"hello\n", b"", b"<html>404</html>", b"1\n2\n", b"PK", b"\n", bytes(1000), b"\x80\x02}q\x00."]
    damaged += [whole.getvalue()[:200], b"a" * 257 + b"ustar" + bytes(500), pickle.dumps([1]), pickle.dumps(print)]
    for content in [*damaged, whole.getvalue(), *others]:
        file.write_bytes(content)
        with pytest.raises(
            UserError, match=r"weights.pth does not contain torch-fidelity's Inception weights: download .*"
        ):
            Inception(str(file)).build()


# Through the commands


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "run"
    options = ["--config", "configs/cls/extractor/digits.yaml", "--output", str(folder), "--epochs", "1"]
    options += ["--network", "WideResNet", "--network.depth", "10", "--network.width", "1", "--tracker", "null"]
    done = run("train_cls", *options)
    assert done.returncode == 0, done.stderr
    return folder


TRAIN = ["--config", "configs/gan/digits.yaml", *SMALL, "--tracker", "null", "--steps", "9", "--checkpoint_every", "3"]


def scoring(classifier: Path) -> list[str]:
    options = ["--score.extractor", "Classifier", "--score.extractor.run", str(classifier), "--score.num_samples", "50"]
    return [*options, "--score.every", "3", "--score.final", "test-10k", "--score.final_metrics", "is,fid,prc"]


def test_a_run_keeps_its_best_checkpoint_and_scores_best_and_last(classifier: Path, tmp_path: Path) -> None:
    plain, scored = tmp_path / "plain", tmp_path / "scored"
    options = [*TRAIN, "--keep_checkpoints", "9", "--lr", "3e-3"]
    assert run("train_gan", *options, "--output", str(plain)).returncode == 0
    done = run("train_gan", *options, "--output", str(scored), *scoring(classifier))
    assert done.returncode == 0, done.stderr
    (a, _), (b, rows) = result(plain), result(scored)
    assert same(
        {k: a[k] for k in ("generator", "discriminator", "adam_g")},
        {k: b[k] for k in ("generator", "discriminator", "adam_g")},
    )

    fids = {row["step"]: row["score/fid"] for row in rows if "score/fid" in row}
    assert list(fids) == [3, 6, 9]
    best = min(fids, key=fids.__getitem__)
    assert [path.name for path in (scored / "best").iterdir()] == [f"step-{best:06d}"]
    assert (scored / "plots" / "scores.png").stat().st_size > 10_000
    last, other = json.loads((scored / "scores.json").read_text())
    assert (last["checkpoint"], last["step"], other["checkpoint"], other["step"]) == ("last", 9, "best", best)
    assert last["stamp"] == other["stamp"]
    assert last["stamp"]["num_samples"] == 10_000
    assert last["scores"].keys() == {"is", "is_std", "fid", "precision", "recall"}

    # The command scores a checkpoint as training did, and by number as by name.
    by = ["--extractor", "Classifier", "--extractor.run", str(classifier), "--num_samples", "50"]
    for name in ("best", str(best)):
        assert run("score", f"{scored}:{name}", *by).returncode == 0
    for record in records.read(scored)[2:]:
        assert record["step"] == best
        assert record["scores"]["fid"] == pytest.approx(fids[best], rel=1e-5)
        assert record["stamp"]["generator"] == "ema"

    # Scores by another seed are not the final ones.
    kept = (scored / "scores.json").read_text()
    (scored / "scores.json").write_text(json.dumps([last, last | {"stamp": last["stamp"] | {"seed": 1}}]))
    again = run("train_gan", *options, "--output", str(scored), *scoring(classifier))
    assert again.stdout.count(f"{scored}, last (step 9), ema") == 1
    assert f"{scored}, best (step {best}), ema" in again.stdout
    (scored / "scores.json").write_text(kept)

    # Scores of an earlier reading of the protocol, or of images of other levels, are not the final ones.
    config, extractor = cli.config_of(GANConfig, scored / "config.yaml"), Classifier(str(classifier)).build()
    stamps = [one["stamp"] | old for one, old in ((last, {"num_samples": 5000}), (other, {"quantisation": "nearest"}))]
    earlier = [one | {"stamp": stamp} for one, stamp in zip((last, other), stamps, strict=True)]
    (scored / "scores.json").write_text(json.dumps(earlier))
    AcceleratorState._reset_state(reset_partial_state=True)
    final_scores(config, scored, extractor, Accelerator(cpu=True))
    assert [one["stamp"] for one in records.read(scored)] == [*stamps, last["stamp"], last["stamp"]]

    # If the final scores are missing, the same command makes them again.
    (scored / "scores.json").unlink()
    again = run("train_gan", *options, "--output", str(scored), *scoring(classifier))
    assert f"{scored}, last (step 9), ema" in again.stdout
    assert json.loads((scored / "scores.json").read_text()) == [last, other]


def test_two_processes_score_a_data_set_without_a_test_split(classifier: Path, tmp_path: Path) -> None:
    written(noisy(0)[:64], tmp_path / "images")
    data = ["--data.name", "folder", "--data.root", str(tmp_path / "images"), "--data.resolution", "8"]
    assert run("train_gan", *TRAIN, *data, "--output", str(tmp_path / "run")).returncode == 0
    by = ["--extractor", "Classifier", "--extractor.run", str(classifier), "--num_samples", "50"]
    done = run("score", str(tmp_path / "run"), *by, processes=2)
    assert done.returncode == 0, done.stderr
    assert "floor: 32 real images against 32 others" in done.stdout
    with pytest.raises(UserError, match=r"^reference test: folder has no data.split 'test', only train$"):
        scorer(data=DataConfig("folder", root=str(tmp_path / "images")), reference="test")

    # If the images have moved, an option of the script says where they are; the error message names it.
    (tmp_path / "images").rename(tmp_path / "moved")
    done = run("score", str(tmp_path / "run"), *by)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith("set root")
    there = ["--root", str(tmp_path / "moved"), "--metrics", "'FID', kid"]
    done = run("score", str(tmp_path / "run"), *by, *there)
    assert done.returncode == 0, done.stderr
    (record,) = records.read(tmp_path / "run")
    assert record["scores"].keys() == {"is", "is_std", "fid", "kid"}, "the images are the same, and so is the protocol"


def test_more_processes_than_images_score_them_too(classifier: Path, tmp_path: Path) -> None:
    """The one without an image ended in a traceback, and the others waited for it."""
    written(noisy(0)[:2], tmp_path / "images")
    data = ["--data.name", "folder", "--data.root", str(tmp_path / "images"), "--data.resolution", "8"]
    small = ["--batch_size", "2", "--g_batch_size", "2", "--steps", "1"]
    assert run("train_gan", *TRAIN, *data, *small, "--output", str(tmp_path / "run")).returncode == 0
    by = ["--extractor", "Classifier", "--extractor.run", str(classifier), "--num_samples", "10"]
    scores = []
    for processes in (3, 1):
        (tmp_path / "run" / "scores.json").unlink(missing_ok=True)
        done = run("score", str(tmp_path / "run"), *by, processes=processes)
        assert done.returncode == 0, done.stderr
        scores.append(records.read(tmp_path / "run")[0]["scores"])
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_any_number_of_processes_and_any_batch_size_give_the_same_score(classifier: Path, tmp_path: Path) -> None:
    assert run("train_gan", *TRAIN, "--output", str(tmp_path / "run")).returncode == 0
    options = [str(tmp_path / "run"), "--extractor", "Classifier", "--extractor.run", str(classifier)]
    options += ["--metrics", "is,fid,kid,prc", "--num_samples", "331"]
    scores = []
    for processes, batch_size in ((1, 256), (2, 256), (2, 7)):
        done = run("score", *options, "--batch_size", str(batch_size), processes=processes)
        assert done.returncode == 0, done.stderr
        assert "floor: 331 real images against 1169 others" in done.stdout
        scores.append(json.loads((tmp_path / "run" / "scores.json").read_text())[0])
        (tmp_path / "run" / "scores.json").unlink()
    for other in scores[1:]:
        close(scores[0]["scores"], other["scores"], 1e-5)
        close(scores[0]["floor"], other["floor"], 1e-5)
        assert scores[0]["stamp"] == other["stamp"]


def test_scoring_in_two_processes_changes_nothing_in_training(classifier: Path, tmp_path: Path) -> None:
    options = [*TRAIN, "--batch_size", "8", "--g_batch_size", "8", "--ema", "null"]
    plain, scored = tmp_path / "plain", tmp_path / "scored"
    assert run("train_gan", *options, "--output", str(plain), processes=2).returncode == 0
    done = run("train_gan", *options, "--output", str(scored), *scoring(classifier), processes=2)
    assert done.returncode == 0, done.stderr
    assert same(result(plain)[0]["generator"], result(scored)[0]["generator"])
    by = ["--extractor", "Classifier", "--extractor.run", str(classifier), "--num_samples", "50"]
    assert run("score", str(scored), *by).returncode == 0
    rows = [row for row in result(scored)[1] if "score/fid" in row]
    alone = json.loads((scored / "scores.json").read_text())[-1]
    assert rows[-1]["score/fid"] == pytest.approx(alone["scores"]["fid"], rel=1e-5)


def test_inception_scores_a_run_end_to_end(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i, image in enumerate(load(DIGITS).images[:12]):
        from PIL import Image  # noqa: PLC0415

        Image.fromarray(image[0].numpy()).save(tmp_path / "images" / f"{i}.png")
    data = ["--data.name", "folder", "--data.root", str(tmp_path / "images"), "--steps", "1"]
    done = run("train_gan", *TRAIN, *data, "--output", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    options = ["--extractor.weights", str(weights), "--num_samples", "10", "--metrics", "is,fid,kid"]
    done = run("score", str(tmp_path / "run"), *options, "--batch_size", "5")
    assert done.returncode == 0, done.stderr
    assert "10 images against 12 train images of folder, inception-v3-compat" in done.stdout
    (record,) = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert record["scores"]["is"] >= 1
    assert record["scores"].keys() == {"is", "is_std", "fid", "kid"}
    assert "10 images do not span 2048 features" in done.stdout
    assert "299x299" in record["stamp"]["preprocessing"]
    assert record["stamp"]["kid"] == [100, 10]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--extractor", "Classifier"], "extractor"),
        (["--extractor.weights", "nowhere.pth"], "no Inception weights"),
        (["--extractor", "Classifier", "--extractor.run", "nowhere"], "nowhere is not a run"),
        (["--metrics", "fib"], "metrics must be some of is, fid, kid, prc"),
        (["--num_samples", "5"], "5 images are too few to score; at least 10 are needed"),
        (["--protocol", "train-5k"], "protocol must be one of train-50k, test-10k, miyato, paper, not train-5k"),
        (["--batch_size", "0"], "batch_size must be positive"),
        ([":best"], "has no best checkpoint"),
        ([":77"], "has no checkpoint of step 77"),
    ],
)
def test_a_mistake_gets_one_line(options: list[str], words: str, gan: Path) -> None:
    checkpoint = options[0] if options[0].startswith(":") else ""
    done = run("score", f"{gan}{checkpoint}", *options[bool(checkpoint) :])
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gan") / "run"
    assert run("train_gan", *TRAIN, "--output", str(folder), "--steps", "1").returncode == 0
    return folder


def test_a_protocol_gives_its_numbers_and_its_name_unless_options_change_it(
    gan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROTOCOLS, "miyato", Protocol(20, "test", 100, is_samples=60))
    options: dict[str, Any] = {"extractor": small(), "floor": False, "output": tmp_path / "record.json"}
    record = mmgan.score(gan, protocol="miyato", **options)
    samples, test = mmgan.load(gan).sample(60), load(replace(DIGITS, split="test")).images
    real = test[torch.randperm(297, generator=stream(0, "reference", 0))[:100].sort().values]
    want = mmgan.score(samples[:20], real, metrics="fid", **options)["scores"]
    want |= mmgan.score(samples, real, metrics="is", **options)["scores"]
    close(record["scores"], want, 1e-6)
    numbers = ("reference", "num_samples", "is_samples", "num_reference")
    assert [record["stamp"][name] for name in numbers] == ["test", 20, 60, 100]
    assert record["protocol"] == "miyato"
    for other in ({"num_samples": 20}, {"seeds": [1]}, {"weights": "raw"}, {"resize": 8}, {"real": "digits:test"}):
        record = mmgan.score(gan, protocol="miyato", **options, **other)  # type: ignore[arg-type]
        assert record["protocol"] == f"20 against {297 if 'real' in other else 100}", other


def test_other_runs_are_printed_beside_it_or_refused(classifier: Path, gan: Path, tmp_path: Path) -> None:
    by = ["--extractor", "Classifier", "--extractor.run", str(classifier)]
    other = tmp_path / "other"
    assert run("train_gan", *TRAIN, "--output", str(other), "--steps", "1", "--seed", "1").returncode == 0
    assert "score it first" in run("score", str(gan), *by, "--num_samples", "50", "--against", str(other)).stderr
    assert run("score", str(other), *by, "--num_samples", "50").returncode == 0
    done = run("score", str(gan), *by, "--num_samples", "50", "--against", str(other))
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if ", last (step 1), ema" in line]
    assert rows == [f"{gan},", f"{other},"]
    done = run("score", str(gan), *by, "--num_samples", "60", "--against", str(other))
    assert done.returncode == 2
    assert "num_samples 50, not 60" in done.stderr
    for pair in ((str(gan), f"{other}:best"), ("digits:test", str(other))):
        done = run("score", pair[0], *by, "--real", "digits", "--against", pair[1])
        assert done.stderr == f"error: against compares two runs, and one of {pair[0]} and {pair[1]} is none\n"


def test_a_classifier_of_other_images_is_refused(classifier: Path, tmp_path: Path) -> None:
    options = ["--data.resolution", "16", "--steps", "1", "--output", str(tmp_path / "run")]
    assert run("train_gan", *TRAIN, *options).returncode == 0
    done = run("score", str(tmp_path / "run"), "--extractor", "Classifier", "--extractor.run", str(classifier))
    assert done.returncode == 2
    assert "needs images of 1x8x8" in done.stderr


def test_a_folder_without_labels_trains_no_classifier_and_the_line_says_what_else_there_is(tmp_path: Path) -> None:
    written(noisy(0)[:12], tmp_path / "flat")
    config = {"data": {"name": "folder", "root": str(tmp_path / "flat")}, "tracker": None}
    advice = "folder directly under data.root; to score a GAN of such images, .*Inception with .*weights FILE"
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(UserError, match=rf"^none of the 12 images of folder \(train\) has a label, .*{advice}"):
        classifiers.train(config, tmp_path / "run")


@pytest.mark.parametrize("script", ["evaluate_cls", "attack_cls"])
def test_whatever_reads_a_classifier_s_images_can_be_told_where_they_are(script: str, classifier: Path) -> None:
    done = run(script, str(classifier), "--split", "train", "--data.name", "folder", "--data.root", "nowhere")
    assert (done.returncode, done.stderr) == (2, f"error: no folder or zip {ROOT / 'nowhere'}; set data.root\n")


def test_studies_of_saved_classifiers_read_images_where_they_are_now(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "seed-0").symlink_to(classifier)
    setting = Setting([0], runs=tmp_path, data=DataChange(root="/elsewhere", resolution=8))
    _, config, _ = finished(setting, "none", 0)
    assert (config.data.name, config.data.root, config.data.resolution) == ("digits", "/elsewhere", 8)
