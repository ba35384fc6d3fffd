"""Attacks, adversarial training and robustness: against torchattacks, by their properties, and as users run them."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchattacks
import yaml
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats
from torch import Tensor, nn

from classifiers.attacks import adversarial
from classifiers.attacks.adversarial import AdversarialTraining
from classifiers.attacks.gradient import Attack, Norm, fgsm, iterates, pgd, project, start, steepest
from classifiers.attacks.plots import plot_attacked
from classifiers.attacks.robustness import Bench, accuracy, checks
from classifiers.load import load_classifier
from classifiers.networks import build
from classifiers.networks.wideresnet import WideResNet
from classifiers.supervised import BCESoftmax, CrossEntropy
from mmgan.data import DataConfig, fingerprint, load
from mmgan.engine import checkpoint
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.experiments.results import read
from mmgan.mixup import ClassifierCutMix, ClassifierMixup, ClassifierRule, Plans, Staged
from tests.classifiers.runs import begun
from tests.classifiers.test_evaluate import command_here
from tests.conftest import ENVIRONMENT, ROOT, begin, result, run, same, stop, with_state

pytestmark = pytest.mark.slow

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])
EPS = {"linf": 0.03, "l2": 0.5}
STEP = Attack(0.03, 0.03, 1)


def network(**options: Any) -> Staged:
    torch.manual_seed(0)
    made = build(WideResNet(**({"depth": 10, "width": 0.5} | options)), 10, MEAN, STD)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return made.eval()


@pytest.fixture(scope="module")
def f() -> Staged:
    return network()


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    """Pixels, many of them black or white, and labels."""
    generator = torch.Generator().manual_seed(0)
    x = (2 * torch.rand(8, 3, 8, 8, generator=generator) - 0.5).clamp(0, 1)
    return x, torch.randint(10, (8,), generator=generator)


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, 10).float()


# Attacks


def test_fgsm_is_that_of_torchattacks(f: Staged, batch: tuple[Tensor, Tensor]) -> None:
    x, labels = batch
    ours = fgsm(f, x, one_hot(labels), replace(STEP, step_size=0.01, iterations=7))
    assert torch.equal(ours, torchattacks.FGSM(f, eps=0.03)(x, labels))
    assert not torch.equal(ours, x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_is_that_of_torchattacks(f: Staged, batch: tuple[Tensor, Tensor], norm: Norm) -> None:
    x, labels = batch
    theirs = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    theirs = theirs(f, eps=EPS[norm], alpha=EPS[norm] / 4, steps=10, random_start=False)(x, labels)
    ours = pgd(f, x, one_hot(labels), Attack(EPS[norm], EPS[norm] / 4, 10, norm))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if norm == "linf" else 1e-5)


def test_a_normalised_attack_is_that_of_the_authors_on_normalised_images(
    f: Staged, batch: tuple[Tensor, Tensor]
) -> None:
    x, labels = batch
    mean, std = MEAN[:, None, None], STD[:, None, None]
    z = ((x - mean) / std).requires_grad_()
    rest = nn.Sequential(f.stages[0][1], *f.stages[1:])
    p = rest(z).softmax(1)
    F.binary_cross_entropy(p, one_hot(labels)).backward()
    assert z.grad is not None
    theirs = z.detach() + 0.03 * z.grad.sign()
    ours = fgsm(f, x, one_hot(labels), replace(STEP, scale=std, loss=BCESoftmax()))
    torch.testing.assert_close((ours - mean) / std, theirs, rtol=0, atol=2e-6)
    assert (ours < 0).any(), "nothing is clamped"


images = st.integers(0, 2**31).map(
    lambda seed: torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * 10 ** (seed % 7 - 3)
)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(delta=images, eps=st.floats(1e-3, 3))
def test_a_projection_is_the_nearest_point_within_the_budget(norm: Norm, delta: Tensor, eps: float) -> None:
    found = project(delta, eps, norm)
    order = {"linf": np.inf, "l2": 2}[norm]
    for one, onto in zip(delta.flatten(1).double().numpy(), found.flatten(1).double().numpy(), strict=True):
        assert np.linalg.norm(onto, order) <= eps * (1 + 1e-5)
        if np.linalg.norm(one, order) <= eps:
            np.testing.assert_allclose(onto, one, rtol=1e-5)
        for other in np.random.default_rng(0).normal(size=(20, 32)):
            inside = other * eps / np.linalg.norm(other, order)
            assert np.linalg.norm(one - onto) <= np.linalg.norm(one - inside) * (1 + 1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(g=images, size=st.sampled_from([1e-30, 1e-6, 1.0, 1e20]))
def test_a_direction_is_the_steepest_of_length_1_however_small_the_gradient(norm: Norm, g: Tensor, size: float) -> None:
    step = steepest(g * size, norm).flatten(1).double().numpy()
    order, dual = {"linf": (np.inf, 1), "l2": (2, 2)}[norm]
    np.testing.assert_allclose(np.linalg.norm(step, order, axis=1), 1, rtol=1e-5)
    flat = g.flatten(1).double().numpy()
    np.testing.assert_allclose((step * flat).sum(1), np.linalg.norm(flat, dual, axis=1), rtol=1e-4)
    assert not steepest(torch.zeros_like(g), norm).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_budget(norm: Norm) -> None:
    found = start(torch.randn(500, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 0.5, norm).flatten(1)
    if norm == "l2":
        torch.testing.assert_close(found.norm(dim=1), torch.full((500,), 0.5))
    else:
        assert stats.kstest(found.flatten().numpy(), stats.uniform(-0.5, 1).cdf).pvalue > 0.01


@pytest.mark.parametrize("norm", ["linf", "l2"])
@given(seed=st.integers(0, 100), eps=st.floats(1e-3, 2), step=st.floats(1e-3, 2), clamped=st.booleans())
def test_every_iterate_keeps_to_budget_and_range(norm: Norm, seed: int, eps: float, step: float, clamped: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, noise = (
        torch.rand(3, 2, 3, 3, generator=generator).round(decimals=1),
        torch.randn(3, 2, 3, 3, generator=generator),
    )
    torch.manual_seed(seed)
    f = nn.Sequential(nn.Flatten(), nn.Linear(18, 4))
    y = F.one_hot(torch.arange(3), 4).float()
    unit = torch.tensor([0.3, 0.7])[:, None, None]
    scale = None if clamped else unit
    found = list(iterates(f, x, y, Attack(eps, step, 3, norm, scale=scale), noise))
    assert len(found) == 3
    for moved in found:
        delta = (moved - x).double() / (1 if clamped else unit)
        length = delta.flatten(1).norm(dim=1, p={"linf": torch.inf, "l2": 2}[norm])
        assert (length <= eps + 2e-6).all()
        assert not clamped or (moved.min() >= 0 and moved.max() <= 1)


def test_without_a_bound_pgd_leaves_no_pixel_outside_0_and_1_and_fools_the_network(
    f: Staged, batch: tuple[Tensor, Tensor]
) -> None:
    x, _ = batch
    labels = f(x).argmax(1)
    found = pgd(f, x, one_hot(labels), Attack(math.inf, 0.01, 200))
    assert (found - x).abs().max() > 0.5
    assert found.min() >= 0
    assert found.max() <= 1
    assert (f(found).argmax(1) != labels).all()
    with pytest.raises(ValueError, match="needs a bound"):
        pgd(f, x, one_hot(labels), Attack(math.inf, 0.01, 1), torch.zeros_like(x))


def test_an_attack_changes_nothing_in_the_network(batch: tuple[Tensor, Tensor]) -> None:
    x, labels = batch
    f = network(dropout=0.5).train()
    f.stages[1].eval()  # modes that differ
    f(x).sum().backward()
    before, image, gradients = copy.deepcopy(f), x.clone(), [p.grad.clone() for p in f.parameters()]
    state, attack = torch.get_rng_state(), Attack(0.1, 0.05, 3)
    found = pgd(f, x, one_hot(labels), attack, torch.randn(x.shape, generator=torch.Generator()))
    assert torch.equal(torch.get_rng_state(), state), "dropout is off"
    assert not found.requires_grad
    assert torch.equal(x, image)
    assert same(f.state_dict(), before.state_dict())
    for one, gradient in zip(f.parameters(), gradients, strict=True):
        assert one.requires_grad
        assert torch.equal(one.grad, gradient)
    assert [m.training for m in f.modules()] == [m.training for m in before.modules()]
    f.eval()
    assert torch.equal(found, pgd(f, x, one_hot(labels), attack, torch.randn(x.shape, generator=torch.Generator())))


def test_an_image_is_attacked_alike_in_any_batch(f: Staged, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch[0], one_hot(batch[1])
    attack = Attack(0.5, 0.1, 3, "l2")
    whole = pgd(f, x, y, attack)
    parts = torch.cat([pgd(f, x[i : i + 1], y[i : i + 1], attack) for i in range(8)])
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5)


# Adversarial training


CONFIG = AdversarialTraining(eps=0.05, step_size=0.05, iterations=1, random_start=False)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("order", ["attack-mix", "mix-attack"])
@pytest.mark.parametrize("rule", [ClassifierMixup, ClassifierCutMix])
def test_orders_of_attack_and_mix(
    f: Staged, batch: tuple[Tensor, Tensor], layer: int, order: Any, rule: type[ClassifierRule]
) -> None:
    """The pixels follow from gradients taken by hand."""
    x, y = batch[0], one_hot(batch[1])
    plans = rule(layers=(layer,)).draw(8, torch.Generator().manual_seed(1))
    (mix,) = plans.plans
    config = AdversarialTraining(eps=0.05, step_size=0.05, iterations=1, random_start=False, order=order)
    shown, targets, left = adversarial.premixed(config, x, y, plans)
    found = adversarial.attack(config, f, shown, targets, left, CrossEntropy(), None)
    mixed_first = (order, layer) == ("mix-attack", 0)
    at = (mix.mix_states(x) if mixed_first else x).clone().requires_grad_()
    if order == "attack-mix":
        loss = F.cross_entropy(f(at), y)
    elif layer == 0:
        loss = F.cross_entropy(f(at), mix.mix_targets(y, x))
    else:
        h = f(at, stop=layer)
        loss = F.cross_entropy(f(mix.mix_states(h), start=layer), mix.mix_targets(y, h))
    (g,) = torch.autograd.grad(loss, at)
    torch.testing.assert_close(found, (at + 0.05 * g.sign()).clamp(0, 1).detach(), rtol=0, atol=1e-6)
    assert torch.equal(targets, mix.mix_targets(y, x) if mixed_first else y)
    assert left.plans == (() if mixed_first else (mix,))
    assert left.rows == 8


def test_without_mixup_both_orders_attack_the_images(f: Staged, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch[0], one_hot(batch[1])
    for order in ("attack-mix", "mix-attack"):
        config = replace(CONFIG, order=order)
        shown, targets, left = adversarial.premixed(config, x, y, Plans(rows=8))
        found = adversarial.attack(config, f, shown, targets, left, CrossEntropy(), None)
        assert torch.equal(found, fgsm(f, x, y, replace(STEP, eps=0.05)))
        assert torch.equal(targets, y)
        assert not left


SMALL = ["--config", "configs/cls/digits.yaml", "--network", "WideResNet", "--network.depth", "10"]
SMALL += ["--network.width", "0.5", "--batch_size", "32", "--data.labels_per_class", "40", "--tracker", "null"]
ATTACKED = ["--adversarial.eps", "0.1", "--adversarial.step_size", "0.05", "--adversarial.iterations", "2"]


def train(output: Path, *more: str, processes: int = 1) -> str:
    done = run("train_cls", *SMALL, *ATTACKED, "--output", str(output), *more, processes=processes)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_run_goes_on_as_if_it_never_was(tmp_path: Path, processes: int) -> None:
    busy = ["--epochs", "3", "--log_every", "5", "--checkpoint_every", "1", "--mixed_precision", "bf16"]
    busy += ["--adversarial.order", "mix-attack", "--network.dropout", "0.1"]
    options = [*SMALL, *ATTACKED, "--output", str(tmp_path / "stopped"), *busy]
    with begin("train_cls", *options, processes=processes) as process:
        text = stop(process, signal.SIGTERM)
    assert "the same command resumes from there" in text
    train(tmp_path / "stopped", *busy, processes=processes)
    train(tmp_path / "whole", *busy, processes=processes)
    assert same(result(tmp_path / "whole"), result(tmp_path / "stopped"))


def test_two_processes_train_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network without batch norm, whose statistics are a process's own.

    Where pairs are mixed, the one process takes up the run of two, whose pairs lie within halves of a batch.
    """
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    plain = ["--network", "tests.plain_network.Plain", "--epochs", "2", "--adversarial.norm", "l2"]
    plain += ["--checkpoint_every", "1"]
    for mixed in (["--mixup", "null"], ["--adversarial.order", "mix-attack"]):
        two, one = tmp_path / f"two{mixed[0]}", tmp_path / f"one{mixed[0]}"
        train(two, *plain, *mixed, processes=2)
        train(one if "null" in mixed else begun(two, one), *plain, *mixed)
        (a, _), (b, _) = result(one), result(two)
        torch.testing.assert_close(a["network"], b["network"], rtol=1e-4, atol=1e-5)


# Robustness


def bench(f: nn.Module, n: int = 40, batch_size: int = 16, **options: Any) -> Bench:
    """Digits, which the network gets right as often as its last layer says."""
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    with torch.no_grad():
        labels = f(pixels.float() / 255).argmax(1)
    labels[::5] = (labels[::5] + 1) % 10
    made = {"classes": 10, "seed": 0}
    return Bench(f, pixels, labels, batch_size=batch_size, accelerator=Accelerator(cpu=True), **(made | options))


def test_accuracy_under_attack_is_that_of_the_worst_restart(f: Staged) -> None:
    b = bench(f)
    x, y = b.images.float() / 255, one_hot(b.labels)
    attack = Attack(0.004, 0.001, 5, random_start=True, restarts=3)
    right, *marked = b.pgd(attack, marks=(2, 5))
    expected = b.clean()
    for restart in range(3):
        noise = torch.stack([torch.randn(3, 8, 8, generator=stream(0, f"start/{restart}", i)) for i in range(40)])
        with torch.no_grad():
            after = [f(moved).argmax(1) == b.labels for moved in iterates(f, x, y, attack, noise)]
        if restart == 0:
            assert torch.equal(marked[0], after[1] & b.clean())
            assert torch.equal(marked[1], after[4] & b.clean())
        expected &= after[4]
    assert torch.equal(right, expected)
    assert 0 < int(right.sum()) < int(b.clean().sum())
    assert torch.equal(b.clean(), torch.arange(40) % 5 > 0)


def test_a_transferred_attack_is_made_on_the_other_network(f: Staged) -> None:
    b, other = bench(f), network(width=0.25)
    x, y = b.images.float() / 255, one_hot(b.labels)
    with torch.no_grad():
        expected = (f(fgsm(other, x, y, STEP)).argmax(1) == b.labels) & b.clean()
    assert torch.equal(b.pgd(STEP, source=other)[0], expected)


def test_the_unbounded_attack_goes_anywhere_whatever_the_norm() -> None:
    """Here to a distance of 4, the length of 400 Euclidean steps."""

    class Far(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logit = 0.1 * (x.flatten(1).sum(1) - 0.2 * 192)
            return torch.stack([torch.zeros_like(logit), logit], dim=1)

    b = replace(bench(network()), network=Far(), classes=2)
    b = replace(b, images=torch.full((5, 3, 8, 8), 125, dtype=torch.uint8), labels=torch.ones(5, dtype=torch.int64))
    assert 0.29 * 192**0.5 > 4
    attack = Attack(2.0, 0.01, 200, "l2")
    assert b.pgd(attack)[0].all()
    assert not b.unbounded(attack).any()


class Backwards(nn.Module):
    """A network whose gradient leads to the label."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(2 * x.detach() - x)


def test_a_network_that_gains_from_fgsm_is_told(f: Staged) -> None:
    b = replace(bench(f), network=Backwards(f))
    with torch.no_grad():
        b.labels[::5] = f(b.images[::5].float() / 255).topk(2).indices[:, 1]
    clean, under = accuracy(b.clean()), accuracy(b.fgsm(replace(STEP, eps=0.1)))
    assert clean["accuracy"] == 0.8
    assert under["accuracy"] > 0.9
    leak = checks(SOUND | {"clean": clean, "fgsm": [{"eps": 0.1} | under]})[-1]
    assert leak.passed is False
    assert "label leaking" in leak.meaning


def test_the_batch_size_does_not_matter(f: Staged) -> None:
    attack = Attack(0.004, 0.001, 5, random_start=True, restarts=2)
    assert torch.equal(bench(f).pgd(attack), bench(f, batch_size=7).pgd(attack))


def test_autoattack_fools_the_network_and_draws_from_no_global_stream(f: Staged) -> None:
    b = bench(f, n=6)
    state = torch.get_rng_state()
    assert b.clean().any()
    assert not b.auto(replace(STEP, eps=0.3)).any()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("classes", [4, 5])
def test_autoattack_of_few_classes_aims_at_all_others(f: Staged, classes: int) -> None:
    few = nn.Sequential(f, Few(classes))
    b = bench(few, n=6, classes=classes)
    b.labels[:] = b.labels % classes
    with torch.no_grad():
        b.labels[:] = few(b.images.float() / 255).argmax(1)
    assert b.clean().all()
    assert not b.auto(replace(STEP, eps=0.3)).any()


class Few(nn.Module):
    """The first logits alone."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, : self.classes]


def test_intervals_are_wilson_s() -> None:
    found = accuracy(torch.arange(50) < 40)
    z, p, n = stats.norm.ppf(0.975), 0.8, 50
    middle, half = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found["low"] == pytest.approx((middle - half) / (1 + z**2 / n))
    assert found["high"] == pytest.approx((middle + half) / (1 + z**2 / n))


SOUND: dict[str, Any] = {
    "clean": {"accuracy": 0.9},
    "unbounded": {"accuracy": 0.0},
    "fgsm": [{"eps": 0.1, "accuracy": 0.5}, {"eps": 0.2, "accuracy": 0.4}],
    "pgd": [
        {"eps": 0.1, "accuracy": 0.3, "over_iterations": {"1": 0.6, "10": 0.32, "20": 0.31}},
        {"eps": 0.2, "accuracy": 0.1, "over_iterations": {"1": 0.4, "10": 0.12, "20": 0.1}},
    ],
    "transfer": [{"eps": 0.1, "accuracy": 0.8}, {"eps": 0.2, "accuracy": 0.7}],
}


@pytest.mark.parametrize(
    ("changes", "failed", "words"),
    [
        ({}, None, ""),
        ({"unbounded": {"accuracy": 0.05}}, 0, "5.00%"),
        ({"fgsm": [{"eps": 0.1, "accuracy": 0.5}, {"eps": 0.2, "accuracy": 0.05}]}, 1, "eps 0.2: +5.00 points"),
        (
            {"pgd": [{"eps": 0.1, "accuracy": 0.3, "over_iterations": {"1": 0.3, "10": 0.29, "20": 0.33}}]},
            2,
            "eps 0.1, 20 iterations for 10: +4.00 points",
        ),
        ({"transfer": [{"eps": 0.2, "accuracy": 0.08}]}, 3, "eps 0.2: +2.00 points"),
        ({"fgsm": [{"eps": 0.1, "accuracy": 0.95}, {"eps": 0.2, "accuracy": 0.4}]}, 4, "eps 0.1: +5.00 points"),
    ],
)
def test_a_sign_of_masked_gradients_is_told(changes: dict[str, Any], failed: int | None, words: str) -> None:
    found = checks(SOUND | changes)
    assert [i for i, check in enumerate(found) if not check.passed] == ([] if failed is None else [failed])
    if failed is not None:
        assert words in found[failed].found
    assert checks({key: value for key, value in SOUND.items() if key != "transfer"})[3].passed is None


# The commands


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two arms and two seeds, which differ in name and configuration alone, but for one."""
    folder = tmp_path_factory.mktemp("arms")
    train(folder / "adversarial" / "seed-0", "--epochs", "3", "--mixup", "null")
    done = run("train_cls", *SMALL, "--mixup", "null", "--epochs", "3", "--output", str(folder / "none" / "seed-0"))
    assert done.returncode == 0, done.stderr
    return folder


ATTACK = ["--eps", "[0.05,0.1]", "--iterations", "4", "--restarts", "2", "--num_images", "50", "--batch_size", "20"]


@pytest.fixture(scope="module")
def attacked(arms: Path) -> Path:
    transfer = ["--transfer", str(arms / "none" / "seed-0")]
    done = run("attack_cls", str(arms / "adversarial" / "seed-0"), *ATTACK, *transfer)
    assert done.returncode == 0, done.stderr
    assert "eps in units of pixels in [0, 1], clamped" in done.stdout
    assert "unbounded PGD leaves at most 1%" in done.stdout
    for space in ("pixel", "normalised"):
        loss = ["--loss", "BCESoftmax"] if space == "normalised" else []
        done = run("attack_cls", str(arms / "none" / "seed-0"), *ATTACK, "--space", space, *loss)
        assert done.returncode == 0, done.stderr
    assert "eps in units of the channels' deviations, not clamped" in done.stdout
    return arms


def of(folder: Path, name: str = "attack.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def test_the_numbers_of_a_run_are_those_of_its_network(attacked: Path) -> None:
    folder = attacked / "none" / "seed-0"
    found, normalised = of(folder), of(folder, "attack-normalised.json")
    f, _, _ = load_classifier(folder, "best", torch.device("cpu"))
    images, labels = load(DataConfig("digits", split="test"))
    rows = torch.randperm(len(images), generator=stream(0, "attacked images", 0))[:50].sort().values
    assert found["images"] == fingerprint(images[rows])
    x, y = images[rows].float() / 255, one_hot(labels[rows])
    scale = f.stages[0][0].std
    with torch.no_grad():
        for i, eps in enumerate((0.05, 0.1)):
            right = f(fgsm(f, x, y, replace(STEP, eps=eps))).argmax(1) == labels[rows]
            assert found["fgsm"][i]["accuracy"] == right.double().mean().item()
            right = f(fgsm(f, x, y, replace(STEP, eps=eps, scale=scale, loss=BCESoftmax()))).argmax(1) == labels[rows]
            assert normalised["fgsm"][i]["accuracy"] == right.double().mean().item()
    assert (found["loss"], normalised["loss"]) == ("CrossEntropy", "BCESoftmax")
    assert found["libraries"]["torch"] == importlib.metadata.version("torch")
    assert (found["norm"], found["space"], found["num_images"], found["finished"]) == ("linf", "pixel", 50, True)
    assert list(found["pgd"][0]["over_iterations"]) == ["1", "2", "4"]
    for name in ("attack", "attack_examples", "attack-normalised", "attack-normalised_examples"):
        assert (folder / "plots" / f"{name}.png").stat().st_size > 8_000


def test_an_attack_that_failed_is_taken_up_after_the_last_that_was_done(
    attacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = attacked / "none" / "seed-0"
    options = ["attack_cls", str(folder), *ATTACK, "--output", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(Bench, "unbounded", failing)
        code, _ = command_here(capsys, *options)
    assert code == 2
    assert not (tmp_path / "attack.json").exists()
    begun = of(tmp_path, "attack.begun.json")
    assert list(begun["results"]) == ["clean", "fgsm 0.05", "fgsm 0.1", "pgd 0.05", "pgd 0.1"]
    kept = begun["results"]["fgsm 0.1"]
    kept["accuracy"] = (kept["low"] + kept["high"]) / 2
    (tmp_path / "attack.begun.json").write_text(json.dumps(begun))
    done = run(*options)
    assert done.returncode == 0, done.stderr
    expected = of(folder)
    assert expected["fgsm"][1] != kept
    expected["fgsm"][1] = kept
    found = of(tmp_path)
    assert {**found, "checks": None} == {**expected, "checks": None}
    assert not (tmp_path / "attack.begun.json").exists()
    begun["settings"]["seed"] = 8  # of another attack
    (tmp_path / "attack.begun.json").write_text(json.dumps(begun))
    done = run(*options)
    assert of(tmp_path) == of(folder), done.stderr


def failing(*_: object) -> Tensor:
    raise UserError("no more of this")


def test_the_pictures_of_an_attack_say_the_arm_and_what_the_network_took_them_for(
    f: Staged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(f, n=4)
    images, seen, moved, fooled = b.example(Attack(0.3, 0.1, 5), torch.arange(4))
    with torch.no_grad():
        assert torch.equal(images, b.images.float() / 255)
        assert torch.equal(seen, f(images).argmax(1))
        assert torch.equal(fooled, f(moved).argmax(1))
    assert (seen != fooled).any()
    texts: list[str] = []

    def read(figure: Figure, *_: object, **__: object) -> None:
        texts.extend(text.get_text() for text in figure.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", read)
    plot_attacked(images, seen, moved, fooled, b.labels, "none/seed-0: PGD", tmp_path / "picture.png")
    assert [text for text in texts if "label" in text] == [
        f"label {label}\npredicted {before}" for label, before in zip(b.labels.tolist(), seen.tolist(), strict=True)
    ]
    assert [text for text in texts if text.startswith("predicted")] == [
        f"predicted {after}" for after in fooled.tolist()
    ]
    assert any(text.startswith("none/seed-0: PGD") for text in texts)


def test_two_processes_report_what_one_does(attacked: Path, tmp_path: Path) -> None:
    folder, transfer = attacked / "adversarial" / "seed-0", ["--transfer", str(attacked / "none" / "seed-0")]
    done = run("attack_cls", str(folder), *ATTACK, *transfer, "--output", str(tmp_path), processes=2)
    assert done.returncode == 0, done.stderr
    assert of(tmp_path) == of(folder)


@pytest.fixture
def seeds(attacked: Path, tmp_path: Path) -> Path:
    """Those runs as three seeds an arm."""
    folder = tmp_path / "arms"
    for arm, values in {"none": (0.2, 0.3, 0.25), "adversarial": (0.5, 0.7, 0.6)}.items():
        for seed, value in enumerate(values):
            one = folder / arm / f"seed-{seed}"
            shutil.copytree(
                attacked / arm / "seed-0", one, ignore=shutil.ignore_patterns("checkpoints", "best", "mmgan")
            )
            config = yaml.safe_load((one / "config.yaml").read_text()) | {"seed": seed}
            (one / "config.yaml").write_text(yaml.safe_dump(config))
            found = of(one)
            found["pgd"][1]["accuracy"] = value
            (one / "attack.json").write_text(json.dumps(found))
    found = of(folder / "none" / "seed-1")
    found["checks"][1] |= {"passed": False, "found": "eps 0.1: +9.00 points"}
    (folder / "none" / "seed-1" / "attack.json").write_text(json.dumps(found))
    return folder


def test_a_report_compares_attacked_arms(seeds: Path, tmp_path: Path) -> None:
    shutil.rmtree(seeds / "adversarial" / "seed-0" / "plots")
    done = run("report", str(seeds), "--output", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    measures = {(one["arm"], one["seed"]): one["measures"] for one in of(tmp_path / "page", "record.json")["runs"]}
    assert [measures["adversarial", seed]["pgd/0.1"] for seed in range(3)] == [0.5, 0.7, 0.6]
    text = (tmp_path / "page.md").read_text()
    assert "| accuracy under PGD, eps 0.1, % | 25.0 +- 5.0 | 60.0 +- 10.0 |" in text
    assert "| PGD is at least as strong as FGSM | 2 of 3 |" in text
    assert "- `none`, seed 1: PGD is at least as strong as FGSM (eps 0.1: +9.00 points)" in text
    assert "| Table 3: CIFAR-10, PreActResNet18 | accuracy under FGSM, % | 36.32 | 56.10 |" in text
    assert "## Under attack, normalised space" in text
    assert (tmp_path / "page" / "curves-1.png").stat().st_size > 8_000
    assert (tmp_path / "page" / "attack_examples-none.png").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"clean": {}},
        {"pgd": [{"eps": 0.05, "accuracy": "x"}, {"eps": 0.1, "accuracy": 0.2}]},
        {"fgsm": [{"eps": 0.05, "accuracy": 0.2}]},
        {"fgsm": 3},
        {"checks": [{"name": "x"}]},
        {"checks": None},
    ],
)
def test_a_run_with_a_damaged_attack_is_named_and_left_out(seeds: Path, change: dict[str, Any]) -> None:
    file = seeds / "none" / "seed-1" / "attack.json"
    file.write_text(json.dumps(of(file.parent) | change))
    with pytest.warns(UserWarning, match=f"{file.parent} is damaged and left out"):
        found = read([seeds])
    assert len(found) == 5


def test_attacks_by_unlike_protocols_are_not_compared(seeds: Path) -> None:
    file = seeds / "none" / "seed-1" / "attack.json"
    file.write_text(json.dumps(of(file.parent) | {"restarts": 7}))
    with pytest.raises(UserError, match=r"by a different protocol from .* \(attack\): restarts (7, not 2|2, not 7)"):
        read([seeds])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "nowhere is not a run"),
        (["RUN", "--eps", "[0.1,-0.1]"], "eps must be positive and finite, not -0.1"),
        (["RUN", "--restarts", "0"], "restarts must be positive and at most 1000000, not 0"),
        (["RUN", "--norm", "l1"], "l1"),
        (["RUN", "--transfer", "RUN"], "is the run under attack"),
        (["RUN", "--transfer", "OTHER"], "has shape [1, 9, 9], the attacked run [1, 8, 8]"),
        (["RUN", "--space", "normalised", "--autoattack", "true"], "use --space pixel"),
        (["RUN", "--autoattack", "true"], "pip install -e '.[attacks]'"),
        (["FEW", "--autoattack", "true"], "AutoAttack needs 4 classes"),
        (["RUN", "--output", "/proc/x"], "cannot write to /proc/x ("),
    ],
)
def test_a_mistake_gets_one_line(
    options: list[str],
    words: str,
    arms: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "OTHER" in options:
        shutil.copytree(arms / "none" / "seed-0", tmp_path / "OTHER")
        (best,) = checkpoint.steps(tmp_path / "OTHER" / "best")
        with_state(best, shape=[1, 9, 9])
    if "FEW" in options:
        few(arms / "none" / "seed-0", tmp_path / "FEW")
    if "pip" in words:
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    here = {"RUN": arms / "none" / "seed-0"} | {name: tmp_path / name for name in ("OTHER", "FEW")}
    code, text = command_here(capsys, "attack_cls", *(str(here.get(option, option)) for option in options))
    assert code == 2
    assert words in text
    assert len(text.splitlines()) == 1


def few(run: Path, copy: Path) -> None:
    """A copy of a run whose last layer has three classes."""
    shutil.copytree(run, copy)
    saved = checkpoint.of_run(copy, "best")
    weights = {key: value[:3] if value.shape[:1] == (10,) else value for key, value in saved.weights["network"].items()}
    with_state(saved.path, {key: value.contiguous() for key, value in weights.items()}, classes=3)
