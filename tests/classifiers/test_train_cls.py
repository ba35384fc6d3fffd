"""A classifier run as a user starts, breaks and resumes it: real processes, real files."""

from __future__ import annotations

import doctest
import json
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import classifiers
from classifiers.config import ClassifierConfig, ClassifierData
from classifiers.load import Classifier, load_classifier
from classifiers.networks.wideresnet import WideResNet
from mmgan.data import DataConfig, load
from mmgan.engine import checkpoint
from mmgan.errors import UserError
from tests.classifiers.runs import begun, first_updates
from tests.conftest import ENVIRONMENT, ROOT, begin, result, run, same, stop, wait_for_step

pytestmark = pytest.mark.slow

SMALL = ["--network", "WideResNet", "--network.depth", "10", "--network.width", "0.5", "--batch_size", "32"]
SMALL += ["--data.labels_per_class", "40", "--tracker", "null"]
BUSY = ["--network.dropout", "0.1", "--data.cutout", "3", "--data.flip", "true", "--mixup.detach", "true"]
BUSY += ["--mixup.lam_per", "pair", "--log_every", "7", "--checkpoint_every", "1", "--nesterov", "true"]
"""Options that give a run all the state and all the draws it can have."""
CUTMIX = ["--mixup", "ClassifierCutMix", "--mixup.layers", "[0,1]"]
TWO_EPOCHS = ["--epochs", "2", "--checkpoint_every", "1", "--keep_checkpoints", "9"]


def options(output: Path, *more: str) -> list[str]:
    """Options of a small classifier on the digits, which learns from 400 images."""
    return ["--config", "configs/cls/digits.yaml", "--output", str(output), *SMALL, *more]


def train(output: Path, *more: str, processes: int = 1) -> str:
    """Train it, successfully; what was printed."""
    done = run("train_cls", *options(output, *more), processes=processes)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_first_step_that_overflows_in_half_precision_changes_nothing() -> None:
    network = WideResNet(depth=10, width=0.25)
    updates = first_updates(ClassifierConfig(data=ClassifierData(name="digits"), network=network, batch_size=8), 1)
    before = [p.detach().clone() for p in updates.network.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(torch.ones(()))
    for parameter in updates.network.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    scaler.step(updates.sgd.optimizer)
    assert all(p.equal(old) for p, old in zip(updates.network.parameters(), before, strict=True))
    assert not any(state["momentum_buffer"].any() for state in updates.sgd.state.values())


def test_killed_at_random_moments_a_run_ends_as_if_it_never_was(tmp_path: Path) -> None:
    busy = [*BUSY, "--epochs", "5"]
    train(tmp_path / "whole", *busy)
    moments = random.Random(time.time_ns())
    for _ in range(2):
        with begin("train_cls", *options(tmp_path / "killed", *busy)) as process:
            wait_for_step(process)
            time.sleep(moments.uniform(0, 1))
            process.send_signal(signal.SIGKILL)
    train(tmp_path / "killed", *busy)
    assert same(result(tmp_path / "whole"), result(tmp_path / "killed"))
    best = [checkpoint.latest(tmp_path / name / "best") for name in ("whole", "killed")]
    assert best[0]
    assert same(best[0].weights | best[0].state, best[1].weights | best[1].state if best[1] else None)


def test_a_signal_saves_at_once_and_the_same_command_goes_on(tmp_path: Path) -> None:
    busy = [*BUSY, "--epochs", "3", "--checkpoint_every", "100"]
    with begin("train_cls", *options(tmp_path / "stopped", *busy)) as process:
        text = stop(process, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM, text
    assert "the same command resumes from there" in text
    train(tmp_path / "stopped", *busy)
    train(tmp_path / "whole", *busy)
    assert same(result(tmp_path / "whole"), result(tmp_path / "stopped"))
    assert "is finished" in train(tmp_path / "whole", *busy)


def test_the_best_checkpoint_is_that_of_the_lowest_validation_error(tmp_path: Path) -> None:
    train(tmp_path, "--epochs", "3")
    errors = {row["step"]: row["validation/error"] for row in result(tmp_path)[1] if "validation/error" in row}
    assert list(errors) == [13, 25, 38], "the ends of epochs of 12.5 steps"
    best = checkpoint.latest(tmp_path / "best")
    assert best
    assert best.step == min(errors, key=errors.__getitem__)
    assert best.state["validation/error"] == min(errors.values())

    network, config, _ = load_classifier(tmp_path, "best", torch.device("cpu"))
    held = json.loads((tmp_path / "split.json").read_text())["validation"]
    images, labels = load(config.data)
    with torch.no_grad():
        wrong = network(images[held].float() / 255).argmax(1) != labels[held]
        assert wrong.double().mean().item() == min(errors.values())
        extractor = Classifier(str(tmp_path)).build()
        features, logits = extractor(images[held])
        assert torch.equal(logits, network(images[held].float() / 255))
    assert features.shape == (300, 32)
    assert (extractor.name, extractor.shape) == ("classifier", (1, 8, 8))
    assert (tmp_path / "plots" / "training.png").stat().st_size > 10_000


def test_watching_a_run_changes_nothing_in_it(tmp_path: Path) -> None:
    train(tmp_path / "a", "--epochs", "2", "--network.dropout", "0.1")
    watch = ["--validate_every", "2", "--log_every", "1", "--checkpoint_every", "1", "--tracker", "tensorboard"]
    train(tmp_path / "b", "--epochs", "2", "--network.dropout", "0.1", *watch)
    (a, _), (b, rows) = result(tmp_path / "a"), result(tmp_path / "b")
    assert same(a["network"], b["network"])
    assert sum("validation/error" in row for row in rows) == 1


def test_a_classifier_learns_the_digits(tmp_path: Path) -> None:
    train(tmp_path, "--epochs", "8", "--data.labels_per_class", "100", "--mixup", "null")
    network, _, _ = load_classifier(tmp_path, "best", torch.device("cpu"))
    images, labels = load(DataConfig("digits", split="test"))
    with torch.no_grad():
        assert (network(images.float() / 255).argmax(1) != labels).double().mean() < 0.1


def test_two_processes_see_what_one_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network without batch norm, whose statistics are a process's own, they end with the same weights."""
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    plain = ["--network", "tests.plain_network.Plain", "--data.cutout", "2", "--data.flip", "true"]
    one, two, none = tmp_path / "one", tmp_path / "two", [*plain, "--epochs", "1", "--mixup", "null"]
    train(one, *none)
    train(two, *none, processes=2)
    alike(one, two)
    pair = ["--mixup.lam_per", "pair"]
    for name, options in (("mixup", [*pair, "--mixup.layers", "[0,1]"]), ("cutmix", CUTMIX)):
        mixed = [*plain, *options, *TWO_EPOCHS]
        two = tmp_path / f"two {name}"
        train(two, *mixed, processes=2)
        one = begun(two, tmp_path / f"one {name}")
        assert "resuming after step 13" in train(one, *mixed), "with the pairs of two processes"
        alike(one, two)


def test_a_run_that_mixes_is_not_taken_up_by_more_processes_than_share_out_its_pairs(tmp_path: Path) -> None:
    words = "the run was started with 1 process(es) and mixes pairs within 1 part(s) of a batch"
    ssl = ["--mixup", "null", "--ssl", "MixupConsistency", "--ssl.batch_size", "8"]
    for i, mixed in enumerate(([], ssl)):
        train(tmp_path / f"whole{i}", *mixed, *TWO_EPOCHS)
        begun(tmp_path / f"whole{i}", tmp_path / f"begun{i}")
        done = run("train_cls", *options(tmp_path / f"begun{i}", *mixed, *TWO_EPOCHS), processes=2)
        assert done.returncode
        assert words in done.stderr
        assert "start it with 1, or a divisor of 1" in done.stderr
    none = ["--mixup", "null", *TWO_EPOCHS]
    train(tmp_path / "none", *none)
    said = train(begun(tmp_path / "none", tmp_path / "begun"), *none, processes=2)
    assert "was trained by 1 process(es) up to step 13 and continues with 2" in said


def alike(one: Path, two: Path) -> None:
    """Two runs that differ in rounding alone."""
    (a, rows_a), (b, rows_b) = result(one), result(two)
    torch.testing.assert_close(a["network"], b["network"], rtol=1e-4, atol=1e-5)
    assert [row["step"] for row in rows_a] == [row["step"] for row in rows_b]
    assert a["step"] == b["step"]


def test_two_processes_train_with_blocked_gradients(tmp_path: Path) -> None:
    detached = ["--epochs", "1", "--mixup.detach", "true"]
    train(tmp_path / "alone", *detached, "--l1", "1e-4")
    train(tmp_path / "two", *detached, processes=2)
    done = run("train_cls", *options(tmp_path / "refused", *detached, "--l1", "1e-4"), processes=2)
    assert "l1 with mixup.detach works with one process alone" in done.stderr
    assert not (tmp_path / "refused" / "metrics.jsonl").exists()
    assert result(tmp_path / "two")[0]["step"] == 13


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["--batch_size", "2000"], "larger than the 400 training images"),
        (["--mixup.layers", "[5]"], "the network has layers 0 (its input) to 3"),
        (["--mixup", "ClassifierCutMix", "--mixup.layers", "[0,3]"], "mixup.layers [0, 3]: CutMix needs states"),
        (["--data.validation", "1500"], "leaves none of the 1500 images"),
        (["--lr_schedule", "step"], "milestones [400, 800] must lie within the 20 epochs"),
        (["--loss", "MSE"], "loss must be CrossEntropy, BCESoftmax, or your own class as module.Class, not MSE"),
        (
            ["--network", "nowhere"],
            "network must be Oliver, PreActResNet, WideResNet, or your own class as module.Class, not nowhere",
        ),
        (["--network", "tests.conftest.same"], "network"),
        (["--ssl.weight", "2"], "ssl"),
        (["--network.depth", "19"], "must be 6n + 4"),
        (["--data.name", "folder", "--data.root", "nowhere"], "nowhere; set data.root"),
        (["--mixup.alfa", "1"], "alfa"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path: Path, wrong: list[str], words: str) -> None:
    done = run("train_cls", *options(tmp_path / "run"), *wrong)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_configuration_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    train(tmp_path, "--epochs", "1")
    done = run("train_cls", *options(tmp_path), "--epochs", "1", "--mixup", "null")
    assert done.returncode == 2
    assert "holds a run with mixup" in done.stderr


MINE = """
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from classifiers.methods import SemiSupervised
from classifiers.networks import NetworkConfig
from classifiers.supervised import ClassifierLoss
from mmgan.mixup import ClassifierRule, Plan

Path("MARKER").touch()


@dataclass(frozen=True, kw_only=True)
class Line(NetworkConfig):
    features: int = 3

    def stages(self, channels, classes):
        return [nn.Flatten(), nn.Linear(64 * channels, self.features), nn.Linear(self.features, classes)]


@dataclass(frozen=True, kw_only=True)
class Half(ClassifierRule):
    share: float = 0.5

    def plan(self, left, right, generator):
        return Plan(0, left, right, torch.tensor(self.share))


@dataclass(frozen=True, kw_only=True)
class Sure(SemiSupervised):
    power: float = 2.0

    def terms(self, batch):
        return {"unsupervised": -batch.f(batch.x).softmax(1).pow(self.power).sum(1).mean()}


@dataclass(frozen=True)
class Squares(ClassifierLoss):
    def __call__(self, logits, targets):
        return nn.functional.mse_loss(logits, targets)
"""
"""A network, a rule, a semi-supervised method and a loss of the user's own."""
OWN = ["--network", "mine.Line", "--network.features", "4", "--mixup", "mine.Half", "--mixup.share", "0.7"]
OWN += ["--ssl", "mine.Sure", "--ssl.power", "3", "--loss", "mine.Squares"]


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once `mine` was imported."""
    (tmp_path / "mine.py").write_text(MINE.replace("MARKER", str(tmp_path / "marker")))
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    return tmp_path / "marker"


def test_classes_of_one_s_own_are_one_file_and_are_named_on_the_command_line(tmp_path: Path, marker: Path) -> None:
    own = ["--epochs", "1", "--mixup.layers", "[1]"]
    train(tmp_path / "run", *OWN, *own)
    weights, rows = result(tmp_path / "run")
    assert weights["network"]["stages.1.weight"].shape == (4, 64)
    assert all("unsupervised" in row for row in rows if "loss" in row)
    for changed in (
        ["--mixup.share", "0.6"],
        ["--ssl.power", "1"],
        ["--loss", "CrossEntropy"],
    ):
        train(tmp_path / "other", *OWN, *own, *changed, "--output", str(tmp_path / changed[0]))
        assert not same(result(tmp_path / changed[0])[0], weights)
    assert "is finished" in train(tmp_path / "run", *OWN, *own)

    marker.unlink()
    refused = run("evaluate_cls", str(tmp_path / "run"), "--deformations", "false")
    assert refused.returncode == 2
    assert "a file may not choose code" in refused.stderr
    assert not marker.exists()
    done = run("evaluate_cls", str(tmp_path / "run"), "--deformations", "false", "--trust", "true")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "section", [{"network": "mine.Line"}, {"ssl": "mine.Sure"}, {"mixup": "mine.Half"}, {"loss": "mine.Squares"}]
)
def test_a_configuration_file_imports_no_code(section: dict[str, str], tmp_path: Path, marker: Path) -> None:
    config = {name: {"class_path": path} for name, path in section.items()}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    done = run("train_cls", *options(tmp_path / "run"), "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 2
    assert next(iter(section.values())) in done.stderr
    assert "a file may not choose code" in done.stderr
    assert not marker.exists()


def test_runs_are_made_and_opened_from_python(tmp_path: Path) -> None:
    data = {"name": "digits", "labels_per_class": 4, "validation": 20, "pad": 1}
    network = {"class_path": "WideResNet", "init_args": {"depth": 10, "width": 0.25}}
    values = {
        "data": data,
        "network": network,
        "batch_size": 8,
        "epochs": 1,
        "lr_schedule": "constant",
        "tracker": None,
    }
    classifiers.train(values, tmp_path / "dictionary")
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(values))
    classifiers.train(tmp_path / "file.yaml", str(tmp_path / "file"))
    made, config, saved = classifiers.load_classifier(tmp_path / "file", "last")
    classifiers.train(config, tmp_path / "dataclass")
    assert config == replace(ClassifierConfig(epochs=1, lr_schedule="constant"), **vars(config))
    assert config.network == WideResNet(depth=10, width=0.25)
    assert (saved.step, made.training) == (5, False)
    for name in ("dictionary", "dataclass"):
        assert same(result(tmp_path / "file"), result(tmp_path / name))
    with pytest.raises(UserError, match=r"tests\.unnamed\.Network is not part of mmgan"):
        classifiers.train(values | {"network": {"class_path": "tests.unnamed.Network"}}, tmp_path / "own")
    assert set(classifiers.__all__) <= set(dir(classifiers))
    assert all(getattr(classifiers, name) is not None for name in classifiers.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        classifiers.nothing  # noqa: B018


class SilentExamples(doctest.OutputChecker):
    """Examples that show no output may print what a run says of itself."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


def test_the_examples_of_the_public_names_are_right(tmp_path: Path) -> None:
    runner = doctest.DocTestRunner(SilentExamples())
    for one in (ClassifierConfig, classifiers.train, load_classifier):
        for example in doctest.DocTestFinder(recurse=False).find(
            one, globs={"folder": tmp_path / "run", "torch": torch}
        ):
            assert example.examples
            runner.run(example)
    assert not runner.failures


CONFIGS = sorted(
    str(path.relative_to(ROOT)) for kind in ("cls", "ssl") for path in (ROOT / "configs" / kind).rglob("*.yaml")
)


@pytest.mark.parametrize("file", CONFIGS)
def test_every_configuration_runs(tmp_path: Path, file: str) -> None:
    """For a step or two, at its own settings but for the width, the images and the number of epochs."""
    base = ["--config", "configs/cls/cifar10.yaml"] if "arms" in file else []
    small = ["--network", "WideResNet", "--network.depth", "10", "--network.width", "0.1", "--epochs", "1"]
    small += ["--data.name", "digits", "--data.resolution", "8", "--data.validation", "0", "--lr_schedule", "constant"]
    small += ["--data.labels_per_class", "13", "--tracker", "null"]
    done = run("train_cls", *base, "--config", file, "--output", str(tmp_path / "run"), *small)
    assert done.returncode == 0, done.stderr
    head = (ROOT / file).read_text()
    assert all(word in head for word in ("scripts/train_cls.py", "# Cost: "))
    assert "# Expected" in head or "# Published" in head
    assert "XXX" not in head
