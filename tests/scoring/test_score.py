"""Any images, and any generator, scored by the command and from Python."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import torch_fidelity
from accelerate.state import AcceleratorState
from PIL import Image
from prdc import compute_prdc
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import CLIPVisual
from torchvision import models

import mmgan
from mmgan.data import DataConfig, load
from mmgan.gan.score import Images
from mmgan.scoring import Extractor, Fidelity, Torchvision
from mmgan.scoring.density import density_coverage
from mmgan.scoring.duplicates import fingerprints
from mmgan.scoring.ledger import tables
from mmgan.scoring.records import summary
from tests.conftest import ENVIRONMENT, ROOT, digits, run
from tests.scoring.registered import register
from tests.scoring.test_scorer import small, written

pytestmark = pytest.mark.slow

TEST = load(DataConfig("digits", split="test")).images
TRAIN = load(DataConfig("digits")).images


def rows_of_the_test_split(start: int, stop: int) -> Tensor:
    """A generator, as far as the commands can see."""
    return TEST[start:stop]


def noise(start: int, stop: int) -> Tensor:
    """Colour images of 64x64 pixels, without end."""
    generators = [torch.Generator().manual_seed(i) for i in range(start, stop)]
    return torch.stack([torch.randint(256, (3, 64, 64), generator=g, dtype=torch.uint8) for g in generators])


class Foreign(nn.Module):
    """Somebody else's generator of 8x8 grey images."""

    def __init__(self) -> None:
        super().__init__()
        self.z_dim = 8
        self.linear = nn.Linear(8, 64)

    def forward(self, z: Tensor) -> Tensor:
        return torch.tanh(self.linear(z)).reshape(-1, 1, 8, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(ENVIRONMENT, "XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "run"
    options = ["--network", "WideResNet", "--network.depth", "10", "--network.width", "0.25", "--epochs", "1"]
    done = run("train_cls", "--config", "configs/cls/extractor/digits.yaml", *options, "--output", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def scripted(module: nn.Module, file: Path) -> str:
    """The module in a file of TorchScript, which PyTorch still writes, but would rather not."""
    with warnings.catch_warnings(action="ignore"):
        torch.jit.script(module).save(str(file))
    return str(file)


@pytest.fixture
def foreign(tmp_path: Path) -> str:
    """The foreign generator in a file of TorchScript."""
    torch.manual_seed(0)
    return scripted(Foreign(), tmp_path / "g.pt")


def scored(fake: Images, real: Images | None = None, **options: Any) -> dict[str, Any]:
    AcceleratorState._reset_state(reset_partial_state=True)  # a process of its own would start without one
    record: dict[str, Any] = mmgan.score(fake, real, **{"extractor": small(), **options})
    return record


def commanded(by: Path, *options: str, processes: int = 1) -> dict[str, Any]:
    """The record that the command keeps."""
    output = by.parent / "record.json"
    output.unlink(missing_ok=True)
    extractor = ["--extractor", "Classifier", "--extractor.run", str(by), "--output", str(output)]
    done = run("score", *options, *extractor, processes=processes)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(output.read_text())
    assert done.stdout.count(" features") == 1, "one process prints"
    return record


# What is scored


def test_every_pair_of_kinds_of_source_of_the_same_images_gives_one_number(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", TEST.numpy())
    np.savez_compressed(tmp_path / "x.npz", TEST.permute(0, 2, 3, 1).numpy())
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i, pixels in enumerate(TEST[:, 0].numpy()):
            Image.fromarray(pixels).save(tmp_path / "folder" / f"{i:03}.png")
            archive.write(tmp_path / "folder" / f"{i:03}.png", f"{i:03}.png")
    function = f"{__name__}:rows_of_the_test_split"
    files = [str(tmp_path / name) for name in ("x.npy", "x.npz", "x.zip", "folder")]
    kinds: list[Images] = ["digits:test", *files, function, TEST, rows_of_the_test_split, TEST.numpy()]
    options = {"metrics": "is,fid,kid,prc,dc", "num_samples": len(TEST), "floor": False}
    forth = [scored(one, "digits", **options) for one in kinds]
    for record in forth:
        assert record["scores"] == forth[0]["scores"]
        assert record["stamp"] == forth[0]["stamp"]
        assert record["fake"]["images"] == forth[0]["fake"]["images"]
    back = [scored("digits", one, **options) for one in kinds]
    for record in back:
        assert record["scores"] == back[0]["scores"]
    assert {record["stamp"]["reference_hash"] for record in back[:5]} == {forth[0]["fake"]["hash"]}
    for one in kinds:
        assert scored(one, kinds[3], num_samples=len(TEST), metrics="fid")["scores"]["fid"] == pytest.approx(
            0, abs=1e-9
        )


def test_scores_of_two_folders_are_torch_fidelity_s_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = (TRAIN[:700] + torch.randint(60, (700, 1, 8, 8))).clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
    for name, images in (("made", made), ("real", TRAIN.expand(-1, 3, -1, -1))):
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):
            Image.fromarray(pixels).save(tmp_path / name / f"{i:04}.png")
    channels = small(name="colour")
    channels.module = nn.Sequential(nn.Unflatten(1, (3, 1)), Middle(), channels.module)
    register(channels)
    got = scored(str(tmp_path / "made"), str(tmp_path / "real"), extractor=channels, metrics="is,fid,prc", channels=3)
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "made"),
        input2=str(tmp_path / "real"),
        feature_extractor="colour",
        save_cpu_ram=True,
        cuda=False,
        verbose=False,
        **{"isc": True, "fid": True, "prc": True},
    )
    names = {"is": "inception_score_mean", "fid": "frechet_inception_distance"}
    names |= {"precision": "precision", "recall": "recall"}
    for ours, name in names.items():
        assert got["scores"][ours] == pytest.approx(theirs[name], rel=1e-4)


class Middle(nn.Module):
    """The second of three grey images."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 1]


def test_a_run_s_score_is_that_of_its_samples_and_other_metrics_are_added_to_it(
    classifier: Path, tmp_path: Path
) -> None:
    options = [*digits(tmp_path / "run"), "--steps", "4", "--checkpoint_every", "2", "--keep_checkpoints", "5"]
    assert run("train_gan", *options).returncode == 0
    by = ["--extractor", "Classifier", "--extractor.run", str(classifier), "--num_samples", "400"]
    done = run("score", f"{tmp_path / 'run'}:2", "--seeds", "[3]", *by)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert (found["checkpoint"], found["step"], found["stamp"]["generator"]) == (2, 2, "ema")
    np.save(tmp_path / "samples.npy", mmgan.load(tmp_path / "run", 2).sample(400, seed=3).numpy())
    samples = commanded(classifier, str(tmp_path / "samples.npy"), "--real", "digits")
    assert found["scores"] == pytest.approx(samples["scores"], rel=1e-9)
    assert found["floor"] == pytest.approx(samples["floor"], rel=1e-9)

    # By the same protocol: another metric joins the record. By another seed: a record of its own.
    for more in (["--seeds", "[3]", "--metrics", "kid"], ["--seeds", "[4]"]):
        assert run("score", f"{tmp_path / 'run'}:2", *by, *more).returncode == 0
    kept = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert [(one["protocol"], sorted(one["scores"])) for one in kept] == [
        ("400 against 1500", ["fid", "is", "is_std", "kid"]),
        ("400 against 1500", ["fid", "is", "is_std"]),
    ]
    assert kept[0]["scores"] | found["scores"] == kept[0]["scores"]
    listed = run("score", "--list", str(tmp_path), str(tmp_path / "run")).stdout
    assert listed.count(f"{tmp_path / 'run'}, 2, ema, seed ") == 2
    (tmp_path / "run" / "scores.json").write_text("[{")
    done = run("score", f"{tmp_path / 'run'}:2", *by)
    assert done.returncode == 2
    assert "scores.json is damaged" in done.stderr
    (tmp_path / "run" / "scores.json").unlink()
    pooled = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    resized = scored(str(tmp_path / "run"), extractor=pooled, metrics="fid", num_samples=100, resize=16)
    assert resized["stamp"]["changed"] == ["8x8 to 16x16, bilinear, antialiased as Pillow does"] * 2
    assert resized["stamp"]["resolution"] == 16
    last = commanded(classifier, str(tmp_path / "run"), "--real", f"{tmp_path / 'run'}:2", "--num_samples", "400")
    assert last["stamp"]["num_reference"] == 400
    assert last["scores"]["fid"] > 0


def test_a_foreign_generator_is_scored_with_the_noise_of_its_seeds(classifier: Path, foreign: str) -> None:
    options = [foreign, "--real", "digits", "--num_samples", "400"]
    record = commanded(classifier, *options, "--seeds", "[3, 4, 5]")
    single = [commanded(classifier, *options, "--seeds", f"[{i}]") for i in (3, 4, 5)]
    fids = [one["scores"]["fid"] for one in single]
    assert record["scores"]["fid"] == pytest.approx(np.mean(fids))
    assert record["scores"]["fid_std"] == pytest.approx(np.std(fids, ddof=1))
    assert record["floor"]["fid"] < fids[0] / 10
    assert record["num_floor"] == 400


def test_any_number_of_processes_and_any_batch_size_give_the_same_score(
    classifier: Path, foreign: str, tmp_path: Path
) -> None:
    options = [foreign, "--real", "digits", "--metrics", "is,fid,kid,prc,dc", "--num_samples", "331"]
    options += ["--held_out", "digits:test"]
    records = [
        commanded(classifier, *options, "--nearest", str(tmp_path / "nearest.png"), "--batch_size", size, processes=n)
        for size, n in (("256", 1), ("7", 2))
    ]
    for part in ("scores", "floor"):
        assert records[0][part] == pytest.approx(records[1][part], rel=1e-4)
    for part in ("stamp", "fake", "duplicates"):
        assert records[0][part] == records[1][part]


def test_a_stream_of_images_takes_no_more_memory_the_longer_it_is() -> None:
    code = (
        "import mmgan, torch, tests.scoring.test_score as t\n"
        "net = torch.nn.Sequential(torch.nn.AvgPool2d(32), torch.nn.Flatten())\n"
        "real = t.noise(0, 50)\n"
        "mmgan.score(t.noise, real, extractor=net, metrics='fid', num_samples={n}, batch_size=64)\n"
        "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for n in (200, 20_000):  # the latter would take 246 MB
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code.format(n=n)],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 60


# Sizes, channels, files


def test_unlike_sizes_and_channels_are_refused_or_changed_in_a_way_that_is_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    large = torch.randint(256, (40, 3, 17, 17), dtype=torch.uint8, generator=generator)
    with pytest.raises(mmgan.UserError, match=r"17x17 with 8x8 pixels cannot be compared; set resize"):
        scored(large, TRAIN)
    with pytest.raises(mmgan.UserError, match=r"3 and 1 channels cannot be compared; set channels"):
        scored(large, TRAIN, resize=8)
    record = scored(large, TRAIN, resize=8, channels=1)
    how, untouched = record["stamp"]["changed"]
    assert how == ("17x17 to 8x8, bilinear, antialiased as Pillow does; colour to its luma (ITU-R BT.601)")
    assert untouched == ""
    by_pillow = [
        np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR).convert("L"))
        for image in large.permute(0, 2, 3, 1).numpy()
    ]
    by_pillow_scored = scored(torch.from_numpy(np.stack(by_pillow))[:, None], TRAIN)
    assert record["scores"]["fid"] == pytest.approx(by_pillow_scored["scores"]["fid"], rel=0.02)
    assert "changed" not in by_pillow_scored["stamp"]


def test_a_resized_reference_is_not_taken_for_the_original() -> None:
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    plain = scored(TRAIN[:400], TRAIN[400:], extractor=pool, metrics="fid")
    resized = scored(TRAIN[:400], TRAIN[400:], extractor=pool, metrics="fid", resize=5)
    assert plain["stamp"]["reference_hash"] != resized["stamp"]["reference_hash"]
    assert plain["scores"]["fid"] != pytest.approx(resized["scores"]["fid"], rel=1e-6)


def test_files_of_several_sizes_are_cropped_where_they_are_resized(tmp_path: Path) -> None:
    written(TEST[:30], tmp_path / "images")
    Image.fromarray(np.arange(99, dtype=np.uint8).reshape(9, 11)).save(tmp_path / "images" / "wide.png")
    with pytest.raises(mmgan.UserError, match=r"have 2 sizes: .*; set resize$"):
        scored(str(tmp_path / "images"), TRAIN)
    record = scored(str(tmp_path / "images"), TRAIN, resize=8)
    assert record["stamp"]["changed"][0] == "shorter side to 8 by Pillow's Lanczos filter, the middle kept"
    assert "images scored were changed: shorter side to 8" in summary(record)
    larger = TRAIN.repeat_interleave(2, -1).repeat_interleave(2, -2)
    with pytest.warns(
        UserWarning, match="resized with a Lanczos filter and the real ones with a bilinear one, which FID"
    ):
        scored(str(tmp_path / "images"), larger, resize=8)


def test_what_moves_the_number_besides_the_images_is_warned_of(tmp_path: Path) -> None:
    colours = torch.randint(256, (60, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name, suffix in (("jpeg", "jpg"), ("png", "png")):
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(colours.permute(0, 2, 3, 1).numpy()):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.{suffix}")
    net = nn.Sequential(nn.AvgPool2d(4), nn.Flatten())
    options: dict[str, Any] = {"extractor": net, "metrics": "fid", "floor": False}
    with pytest.warns(UserWarning, match=r"^60 of 60 files of the images scored are JPEG and none of the real ones: "):
        scored(str(tmp_path / "jpeg"), str(tmp_path / "png"), **options)
    with pytest.warns(UserWarning, match=r"^60 of 60 files of the real images are JPEG and none of the others: "):
        scored(str(tmp_path / "png"), str(tmp_path / "jpeg"), **options)
    scored(str(tmp_path / "jpeg"), str(tmp_path / "jpeg"), **options)  # warnings are errors
    grey = colours[:, :1].expand(-1, 3, -1, -1)
    with pytest.warns(UserWarning, match=r"^the images scored are grey and the real ones are coloured: FID counts"):
        scored(grey, colours, **options)
    with pytest.warns(UserWarning, match=r"^the real images are grey and those scored are coloured: FID counts"):
        scored(colours, grey, **options)
    clear = Image.fromarray(colours[0].permute(1, 2, 0).numpy())
    clear.putalpha(128)
    clear.save(tmp_path / "png" / "0.png")
    with pytest.warns(UserWarning, match=r"^1 of 60 files of the images scored are transparent and are shown on white"):
        scored(str(tmp_path / "png"), colours, **options)


def test_too_few_images_and_images_that_repeat_are_told() -> None:
    images = torch.cat([TEST[:9], TEST[:2], TRAIN[:1]])
    record = scored(images, TRAIN, metrics="fid")
    assert record["duplicates"] == {"fake": 2, "real": 1500 - len(TRAIN.unique(dim=0)), "both": 1}
    text = summary(record)
    assert "12 images do not span 12 features: their covariance is singular, and FID is biased upwards" in text
    assert (
        "2 of the images scored repeat an earlier one\n1 of the images scored are pixel-for-pixel among the real ones"
        in text
    )
    assert "span" not in summary(scored(TEST, TRAIN, metrics="fid"))


def test_fingerprints_are_those_of_equal_images_alone() -> None:
    images = torch.cat([TRAIN, TEST])
    changed = images.clone()
    changed[:, 0, 3, 3] ^= 1
    both = fingerprints(torch.cat([images, changed]))
    assert len(both.unique()) == len(torch.cat([images, changed]).unique(dim=0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"fake": "nowhere"},
            r"^nowhere is not a run, a folder, zip, .npy or .npz of images, a data set, a TorchScript file ",
        ),
        ({"real": None}, "^real must name the images to compare with"),
        (
            {"seeds": [0, 1]},
            "^only a run or a TorchScript generator has seeds; a set of images or a function has none$",
        ),
        (
            {"seeds": [0, 1], "fake": rows_of_the_test_split, "num_samples": 90},
            "^only a run or a TorchScript generator has seeds; ",
        ),
        ({"seeds": []}, "^seeds must be one or more whole numbers, all different$"),
        ({"seeds": 3}, "^seeds must be a list, not 3$"),
        ({"metrics": ["fid"]}, r"^metrics must be names separated by commas, not \['fid'\]$"),
        ({"seeds": [0.5]}, "^seeds must be one or more whole numbers, all different$"),
        ({"num_samples": 0}, "^num_samples must be positive, not 0$"),
        ({"resize": -3}, "^resize must be positive, not -3$"),
        ({"channels": 2}, "^channels must be 1 or 3, not 2$"),
        ({"fake": TEST[:1]}, "^1 images are too few to score; at least 10 are needed$"),
        ({"fake": TEST[:0]}, r"^images must be uint8 \[N, 1 or 3, H, W\], not torch.uint8 \[0, 1, 8, 8\]$"),
        ({"fake": 3}, "^images must be a name, a tensor or a function, not int$"),
        ({"fake": "nowhere:best"}, r"^nowhere:best is not a run, "),
        ({"fake": "math:pi"}, r"^math:pi fails at \(0, 2\) with TypeError: 'float' object is not callable$"),
        ({"metrics": "is", "held_out": TRAIN}, "^held_out compares FIDs; include fid in metrics$"),
        (
            {"metrics": "intra", "fake": TEST},
            "^intra: the two sets of images have no class of which both have two, or no",
        ),
        ({"nearest": Path("x.foo")}, "^nearest must end in .png, not x.foo$"),
        ({"output": Path("/proc/none/x.json")}, "^cannot write to /proc/none/x.json .*; choose another --output$"),
        ({"extractor": "Inception"}, "^extractor must be one of mmgan.extractors or a module, not 'Inception'$"),
        ({"extractor": nn.AvgPool2d(4)}, r"returns \[2, 1, 2, 2\] for 2 images; features must be \[B, d\]"),
        ({"num_samples": 298}, "^num_samples 298 is more than the 297 available images$"),
        ({"metrics": "fid,fdi"}, "^metrics must be some of is, fid, kid, prc, dc, intra, not fdi$"),
        ({"batch_size": 0}, "^batch_size must be positive, not 0$"),
        ({"fake": "tests.scoring.test_score:nothing"}, "^cannot import the function tests.scoring.test_score:nothing"),
        (
            {"fake": torch.zeros(3, 1, 8, 8)},
            r"^images must be uint8 \[N, 1 or 3, H, W\], not torch.float32 \[3, 1, 8, 8\]",
        ),
        ({"fake": lambda _a, _b: 3}, r"returns int for \(0, 2\); it must be uint8 \[2, 1 or 3, H, W\]$"),
        ({"extractor": nn.Sequential(nn.AvgPool2d(4), nn.Flatten())}, "has no classes, which IS needs"),
    ],
)
def test_what_cannot_be_scored_gets_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(mmgan.UserError, match=words):
        scored(**{"fake": "digits:test", "real": "digits", **options})


@pytest.mark.parametrize(
    "later",
    [
        lambda n: TEST[: n + 50],
        lambda _n: TEST[:1],
        lambda n: TEST[:n] / 255,
        lambda n: TEST[:n].reshape(n, 1, 4, 16),
        lambda n: TEST[:n].numpy(),
        lambda _n: 1 / 0,
    ],
)
def test_a_generator_that_fails_later_is_no_score(later: Callable[[int], Any]) -> None:
    def images(start: int, stop: int) -> Tensor:
        return TEST[:stop] if not start else later(stop - start)

    with pytest.raises(mmgan.UserError, match=r"images (returns|fails at) .*\(100, 200\)"):
        scored(images, TRAIN, num_samples=290, batch_size=100)


def test_fewer_images_of_a_set_are_drawn_at_random() -> None:
    """Folders are read class by class."""
    order = load(DataConfig("digits")).labels.argsort()
    some = scored(TRAIN[order], TEST, num_samples=500, metrics="fid")["scores"]["fid"]
    assert some < 2 * scored(TRAIN, TEST, metrics="fid")["scores"]["fid"]
    assert some < scored(TRAIN[order[:500]], TEST, metrics="fid")["scores"]["fid"] / 3


def test_statistics_of_a_network_that_has_changed_are_computed_again() -> None:
    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, 20:30] * self.factor

    one, two = (scored(TEST, TRAIN, extractor=Scaled(k), metrics="fid") for k in (1.0, 2.0))
    assert two["scores"]["fid"] == pytest.approx(4 * one["scores"]["fid"])
    assert two["stamp"]["extractor_hash"] != one["stamp"]["extractor_hash"]

    class Columns(nn.Module):
        """Its code is not in its hash, as an extractor's of one's own need not be."""

        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)[:, ::stride].float()

    for stride in (8, 16, 16):  # the module reads it
        found = scored(TEST, TRAIN, extractor=Extractor("columns", Columns(), "none"), metrics="fid")
        want = (images.flatten(1)[:, ::stride].double().numpy() for images in (TEST, TRAIN))
        assert found["scores"]["fid"] == pytest.approx(frechet(*want), rel=1e-6)


def test_a_module_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    scored(TEST, TRAIN, extractor=net, metrics="fid")
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_torchscript_that_is_no_generator_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"PK none")
    with pytest.raises(mmgan.UserError, match=r"a.pt is not TorchScript"):
        scored(str(tmp_path / "a.pt"), "digits")
    scripted(nn.Linear(8, 64), tmp_path / "b.pt")
    with pytest.raises(mmgan.UserError, match=r"b.pt does not define the number of its latents; set z_dim"):
        scored(str(tmp_path / "b.pt"), "digits")
    wild = nn.Sequential(nn.Linear(8, 64), nn.Unflatten(1, (1, 8, 8)))
    nn.init.constant_(wild[0].bias, 3.0)
    scripted(wild, tmp_path / "c.pt")
    with pytest.raises(mmgan.UserError, match=r"c.pt makes images from .* to .*; they must be in \[-1, 1\], or uint8"):
        scored(str(tmp_path / "c.pt"), "digits", z_dim=8)


# Metrics


def test_density_and_coverage_are_their_authors_own() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2300, 6)), rng.normal(0.3, 0.8, (1700, 6))
    want = compute_prdc(real, made, nearest_k=5)
    got = density_coverage(torch.from_numpy(made), torch.from_numpy(real), 5)
    assert got == pytest.approx({name: want[name] for name in ("density", "coverage")}, rel=1e-12)

    features = [small()(images)[0].double().numpy() for images in (TRAIN, TEST)]
    want = compute_prdc(*features, nearest_k=5)
    scores = scored(TEST, TRAIN, metrics="dc")["scores"]
    assert scores == pytest.approx({name: want[name] for name in ("density", "coverage")}, rel=1e-9)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    c, d = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(c @ d).astype(complex)).real.sum()  # the trace of the product's root
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c) + np.trace(d) - 2 * root)


def test_fid_of_each_class_is_that_of_its_images() -> None:
    sets = [load(DataConfig("digits", split=split)) for split in ("test", "train")]
    features = [small()(one.images)[0].double().numpy() for one in sets]
    want = {
        f"fid/{label}": frechet(*(x[one.labels == label] for x, one in zip(features, sets, strict=True)))
        for label in range(10)
    }
    scores = scored("digits:test", "digits", metrics="intra")["scores"]
    assert scores == pytest.approx(want | {"intra_fid": np.mean(list(want.values()))}, rel=1e-6)


def test_classes_of_folders_are_known_by_their_names(tmp_path: Path) -> None:
    labelled = [load(DataConfig("digits", split=split)) for split in ("test", "train")]
    for name, (images, labels), classes in (
        ("nine", labelled[0], range(1, 10)),
        ("ten", labelled[1], range(10)),
    ):
        for label in classes:
            (tmp_path / name).mkdir(exist_ok=True)
            written(images[labels == label], tmp_path / name / str(label))
    nine, ten = str(tmp_path / "nine"), str(tmp_path / "ten")
    record = scored(nine, ten, metrics="intra", floor=False)
    want = scored("digits:test", "digits", metrics="intra", floor=False)["scores"]
    assert {name for name in record["scores"] if "/" in name} == {f"fid/{i}" for i in range(1, 10)}
    for name, value in record["scores"].items():
        if "/" in name:
            assert value == pytest.approx(want[name], rel=1e-9)
    assert "intra_fid covers 9 of the 10 real classes" in summary(record)
    (tmp_path / "nine" / "1").rename(tmp_path / "nine" / "one")
    with pytest.raises(mmgan.UserError, match="intra: the class folders of both sets must have the same names"):
        scored(nine, ten, metrics="intra")


def test_images_learnt_by_heart_lower_fid_to_the_training_set_alone(tmp_path: Path) -> None:
    training, held_out = TRAIN[:500], TRAIN[500:1000]
    options: dict[str, Any] = {"metrics": "fid", "held_out": held_out}
    copies = scored(training, training, nearest=tmp_path / "n.png", **options)
    fresh = scored(TRAIN[1000:], training, **options)
    features = [small()(images)[0].double().numpy() for images in (training, held_out, TRAIN[1000:])]
    assert fresh["scores"]["fid_train"] == pytest.approx(frechet(features[2], features[0]), rel=1e-6)
    assert fresh["scores"]["fid_held_out"] == pytest.approx(frechet(features[2], features[1]), rel=1e-6)
    assert copies["scores"]["fid_gap"] == pytest.approx(-frechet(features[0], features[1]), rel=1e-6)
    assert abs(fresh["scores"]["fid_gap"]) < -copies["scores"]["fid_gap"] / 2
    apart = frechet(features[0], features[1])
    assert f"difference {-apart:+.4g}; copies of these real images would have {-apart:.4g}, and new ones" in summary(
        copies
    )

    picture = np.asarray(Image.open(tmp_path / "n.png"))  # tiles of 32 pixels and a border of 2
    assert picture.shape[:2] == (10 * 34 + 2, 7 * 34 + 2)
    for row in range(10):
        sample, nearest = (picture[2 + 34 * row :, 2 + 34 * column :][:32, :32] for column in (0, 2))
        assert (sample == nearest).all()
    others = [small()(image[None])[0][0] for image in training]
    distances = torch.stack([(small()(TRAIN[:1])[0][0] - other).norm() for other in others])
    for column, index in enumerate(distances.argsort()[:5].tolist()):
        tile = picture[2:34, 2 + 34 * (2 + column) :][::4, :32:4, 0]
        assert (tile == TRAIN[index, 0].numpy()).all()


# Extractors


def test_a_classifier_of_torchvision_gives_what_its_last_layer_is_given(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = models.resnet18(num_classes=7).eval()
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    by = Torchvision(str(tmp_path / "resnet.pth"), "resnet18").build()
    images = torch.randint(256, (3, 1, 20, 20), dtype=torch.uint8)
    features, logits = by(images)
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    x = nn.functional.interpolate(images.expand(-1, 3, -1, -1) / 255, (224, 224), mode="bilinear", antialias=True)
    x = (x - torch.tensor(preset.mean)[:, None, None]) / torch.tensor(preset.std)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(logits, network(x))
        network.fc = nn.Identity()  # type: ignore[assignment]
        torch.testing.assert_close(features, network(x))
    assert (
        by.preprocessing
        == "bilinear to 224x224, antialiased; grey to RGB; less [0.485, 0.456, 0.406] over [0.229, 0.224, 0.225]"
    )
    for name, words in (
        ("resnet19", "is not an image classifier in torchvision"),
        ("vgg11", "does not contain the weights"),
    ):
        with pytest.raises(mmgan.UserError, match=words):
            Torchvision(str(tmp_path / "resnet.pth"), name).build()


def test_torchvision_s_networks_are_made_as_for_its_own_weights(tmp_path: Path) -> None:
    torch.save(models.googlenet(init_weights=False, num_classes=3).state_dict(), tmp_path / "w.pth")
    by = Torchvision(str(tmp_path / "w.pth"), "googlenet").build()
    assert by.module.network.transform_input
    torch.save(models.squeezenet1_1(num_classes=3).state_dict(), tmp_path / "w.pth")
    with pytest.raises(mmgan.UserError, match=r"^squeezenet1_1 has no linear layer, whose input"):
        Torchvision(str(tmp_path / "w.pth"), "squeezenet1_1").build()


def test_clip_is_torch_fidelity_s_own(tmp_path: Path) -> None:
    """A small one, in a file of the form that its authors publish."""
    torch.manual_seed(0)
    clip = CLIPVisual(8, 32, 2, 64, 16).eval()
    for parameter in clip.parameters():
        nn.init.normal_(parameter, std=0.2)
    clip.text_projection = nn.Parameter(torch.zeros(1, 8))
    whole = nn.Module()
    with warnings.catch_warnings(action="ignore"):
        whole.visual = torch.jit.trace(clip.visual, torch.rand(1, 3, 32, 32))
    whole.text_projection = clip.text_projection
    scripted(whole, tmp_path / "clip.pt")
    by = Fidelity("clip-vit-b-32", str(tmp_path / "clip.pt")).build()
    images = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    features, logits = by(images)
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    with torch.no_grad():
        want = clip.visual((images / 255 - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(features, want, rtol=1e-3, atol=1e-3)
    assert logits is None
    assert by.preprocessing == "bilinear to 32x32 as in TensorFlow 1, not antialiased; grey to RGB; clip"
    with pytest.raises(mmgan.UserError, match=r"which IS needs"):
        scored(images.repeat(5, 1, 1, 1), images.repeat(5, 1, 1, 1), extractor=by)


def test_networks_that_torch_fidelity_has_not_or_cannot_read_get_one_line(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    for name, words in (
        ("clip", "extractor.name 'clip' is not one of inception-v3-compat, "),
        ("vgg16", r"w.pth does not contain the weights of vgg16 \(.*\); set extractor.weights to a file of them$"),
        ("dinov2-vit-s-14", "does not support extractor.weights: torch.hub loads it from TORCH_HOME"),
    ):
        with pytest.raises(mmgan.UserError, match=words):
            Fidelity(name, str(tmp_path / "w.pth")).build()


# The ledger


def test_records_of_unlike_protocols_are_never_in_one_table(
    tmp_path: Path, foreign: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"metrics": "fid", "floor": False}
    torch.manual_seed(1)
    brighter = Foreign()
    nn.init.constant_(brighter.linear.bias, 0.3)
    scripted(brighter, tmp_path / "h.pt")
    found = {
        name: scored(name, "digits", num_samples=300, seeds=[1, 2, 3], output=tmp_path / f"{i}.json", **options)
        for i, name in enumerate((foreign, str(tmp_path / "h.pt")))
    }
    scored(TEST[:50], "digits", output=tmp_path / "few.json", **options)
    published: dict[str, Any] = {"fake": {"name": "Theirs"}, "source": "A. Author 2020, Table 1"}
    published["stamp"] = {"num_samples": 50_000, "num_reference": 50_000, "data": "cifar10", "extractor": "Inception"}
    (tmp_path / "theirs.json").write_text(json.dumps(published | {"scores": {"fid": 2.5}}))
    (tmp_path / "other.json").write_text('{"fake": 3}')
    (tmp_path / "broken.json").write_text(json.dumps(published | {"scores": {"fid": "3.1"}}))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "scores.json").write_text("{")
    capsys.readouterr()

    done = run("score", "--list", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is damaged and left out (") == 2
    groups = {text.partition("\n")[0]: text for text in done.stdout.strip().split("\n\n")}
    assert len(groups) == 3
    compared = groups["300 images against 1500 train images of digits, small features"]
    better, worse = sorted(found, key=lambda name: found[name]["scores"]["fid"])
    assert compared.index(better) < compared.index(worse)
    a, b = (found[name]["scores"] for name in (better, worse))
    p = scipy.stats.ttest_ind_from_stats(a["fid"], a["fid_std"], 3, b["fid"], b["fid_std"], 3, equal_var=False).pvalue
    assert p < 0.05
    said = (
        f"{b['fid'] - a['fid']:.3g} below {worse} in FID: more than the noise of sampling (Welch's t-test, p = {p:.2g})"
    )
    assert f"{better} is {said}" in compared
    theirs = groups["50000 images against 50000 images of cifar10, Inception features"]
    assert "Theirs (published: A. Author 2020, Table 1)  2.5" in theirs

    for name in ("broken.json", "run/scores.json"):
        (tmp_path / name).unlink()
    tables([tmp_path], "csv")
    rows = {row[0]: row for row in csv.reader(io.StringIO(capsys.readouterr().out)) if row}
    assert float(rows[better][1]) == a["fid"]
    tables([tmp_path], "markdown")
    assert f"| {better} | {a['fid']:.4g} +- {a['fid_std']:.2g} |" in capsys.readouterr().out
    (tmp_path / "nothing").mkdir()
    with pytest.raises(mmgan.UserError, match="there are no scores in"):
        tables([tmp_path / "nothing"])
