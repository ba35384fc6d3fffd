"""Learning without labels: every objective does what its name says; the runs that hold it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from classifiers.config import ClassifierConfig, ClassifierData
from classifiers.evaluation.measures import predict
from classifiers.load import load_classifier
from classifiers.methods.mean_teacher import mean_teacher
from classifiers.methods.mixup_consistency import MixupConsistency, interpolation
from classifiers.methods.pi_model import pi_model
from classifiers.methods.pseudo_label import pseudo_label
from classifiers.methods.vat import direction, divergence, entropy, vat
from classifiers.networks import build
from classifiers.networks.oliver import Oliver
from classifiers.networks.wideresnet import WideResNet
from classifiers.preprocess import Whiten, fit, gcn, zca
from classifiers.split import split
from classifiers.training import train
from classifiers.unlabelled import Unlabelled, frozen
from mmgan.data import DataConfig, load
from mmgan.engine import cli
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.mixup import ClassifierCutMix, Plan, Plans, Staged
from mmgan.mixup.rules.cutmix import Boxes
from tests.classifiers.runs import begun, first_updates
from tests.classifiers.test_evaluate import command_here
from tests.conftest import ENVIRONMENT, ROOT, result, run, same

pytestmark = pytest.mark.slow

SSL = ["--ssl.batch_size", "16", "--ssl.ramp_until", "0"]
METHODS = {
    "pi": ["--ssl", "PiModel", *SSL, "--ssl.compare", "logits"],
    "mean-teacher": ["--ssl", "MeanTeacher", *SSL, "--ssl.decay", "0.9"],
    "vat": ["--ssl", "VAT", *SSL, "--ssl.eps", "1"],
    "vat-em": ["--ssl", "VAT", *SSL, "--ssl.eps", "1", "--ssl.entropy", "0.1"],
    "mixup": ["--ssl", "MixupConsistency", *SSL, "--ssl.mixup.alpha", "2", "--mixup.alpha", "0.1"],
}
BASE = ["--config", "configs/cls/digits.yaml", "--data.labels_per_class", "4", "--batch_size", "8", "--epochs", "3"]
BASE += ["--network", "WideResNet", "--network.depth", "10", "--network.width", "0.25", "--tracker", "null"]
BASE += ["--log_every", "2", "--mixup", "null"]


def configured(*options: str) -> ClassifierConfig:
    return cli.parse(ClassifierConfig, "", args=["--output", "", *BASE, *options]).config


def trained(folder: Path, *options: str) -> None:
    """Train in this process, as a process of its own would."""
    AcceleratorState._reset_state(reset_partial_state=True)
    train(configured(*options), folder)


# Objectives, in float64 on a small network without batch norm


@pytest.fixture
def f() -> Staged:
    torch.manual_seed(0)
    return Staged(
        nn.Sequential(nn.Linear(6, 5), nn.Tanh()), nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 3)
    ).double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def numpy_pass(f: Any, x: np.ndarray, start: int = 0, stop: int = 3) -> np.ndarray:
    """Layers of `f` from its weights."""
    for stage in range(start, stop):
        linear = f.stages[stage] if stage == 2 else f.stages[stage][0]
        x = x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        x = x if stage == 2 else np.tanh(x)
    return x


@pytest.mark.parametrize("compare", ["probabilities", "logits"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_algorithm_1_agrees_with_numpy_in_value_and_gradient(f: Any, x: Tensor, layer: int, compare: str) -> None:
    left, right, lam = np.arange(8), np.array([3, 2, 1, 0, 7, 5, 6, 4]), 0.3
    plan = Plan(layer, torch.tensor(left), torch.tensor(right), torch.tensor(lam, dtype=torch.float64))
    norm = softmax if compare == "probabilities" else np.asarray

    def by_hand(targets: np.ndarray) -> float:
        h = numpy_pass(f, x.numpy(), stop=layer)
        logits = numpy_pass(f, lam * h[left] + (1 - lam) * h[right], start=layer)
        return float(np.square(norm(logits) - (lam * targets[left] + (1 - lam) * targets[right])).mean())

    targets = norm(numpy_pass(f, x.numpy()))
    loss = interpolation(f, x, Plans((plan,), rows=8), compare)
    assert loss.item() == pytest.approx(by_hand(targets), rel=1e-9)
    loss.backward()
    for stage, (i, j) in ((0, (2, 1)), (1, (0, 3))):  # by differences with fixed targets, which get no gradient
        weight, eps = f.stages[stage][0].weight, 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[i, j] += sign * eps
                values.append(by_hand(targets))
                weight[i, j] -= sign * eps
        assert weight.grad[i, j].item() == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-4, abs=1e-9)


def test_any_rule_mixes_images_and_their_predictions_alike() -> None:
    torch.manual_seed(0)
    net = Staged(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 3)).double()
    x = torch.rand(8, 1, 8, 8, dtype=torch.float64)
    plans = ClassifierCutMix(layers=(0, 1)).draw(8, torch.Generator().manual_seed(3))
    (plan,) = plans.plans
    assert isinstance(plan, Boxes)
    with torch.no_grad():
        h, p = net(x, stop=plan.layer), net(x).softmax(1)
        inside = plan.inside(8, 8)
        mixed = torch.where(inside[:, None], h[plan.right], h)
        area = inside.double().mean((1, 2))[:, None]
        want = (net(mixed, start=plan.layer).softmax(1) - ((1 - area) * p + area * p[plan.right])).square().mean()
        assert 0 < float(area.mean()) < 1
        assert interpolation(net, x, plans, "probabilities").item() == pytest.approx(want.item(), rel=1e-6)


def test_baselines_agree_with_numpy(f: Staged, x: Tensor) -> None:
    again = x + 0.1
    teacher = Staged(nn.Linear(6, 3)).double()
    p, q = (softmax(numpy_pass(f, views.numpy())) for views in (x, again))
    t = softmax(teacher(again).detach().numpy())
    assert pi_model(f, x, again, "probabilities").item() == pytest.approx(np.square(p - q).mean())
    assert mean_teacher(f, teacher, x, again, "probabilities").item() == pytest.approx(np.square(p - t).mean())
    threshold = float(np.median(p.max(1)))
    sure = p.max(1)[p.max(1) > threshold]
    assert 0 < len(sure) < 8
    assert pseudo_label(f, x, threshold).item() == pytest.approx(-np.log(sure).sum() / 8)
    assert entropy(f(x)).item() == pytest.approx(-(p * np.log(p)).sum(1).mean())
    assert divergence(f(x), f(again)).item() == pytest.approx((p * np.log(p / q)).sum(1).mean())


def parts(name: str, f: Staged, x: Tensor) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """A term, and the same with what gets no gradient held where `f` has it now."""
    again, d, sure = x + 0.5, torch.ones_like(x), 0.34
    teacher = Staged(nn.Linear(6, 3)).double()
    plan = Plan(1, torch.arange(8), torch.arange(8).flip(0), torch.tensor(0.3, dtype=torch.float64))
    with torch.no_grad():
        logits, other, taught = f(x), f(again), teacher(again).softmax(1)
    eps, xi = 0.5, 1e-3
    r = eps * direction(f, x, logits, d, xi, 1)
    plans = Plans((plan,), rows=8)
    mixed = plan.mix_targets(logits.softmax(1), x)
    return {
        "pseudo-label": (lambda: pseudo_label(f, x, sure), lambda: F.cross_entropy(f(x), logits.argmax(1))),
        "pi": (
            lambda: pi_model(f, x, again, "probabilities"),
            lambda: F.mse_loss(f(x).softmax(1), other.softmax(1)),
        ),
        "mean-teacher": (
            lambda: mean_teacher(f, teacher, x, again, "probabilities"),
            lambda: F.mse_loss(f(x).softmax(1), taught),
        ),
        "vat": (lambda: vat(f, x, f(x), d, eps, xi, 1), lambda: divergence(logits, f(x + r))),
        "entropy": (lambda: entropy(f(x)), lambda: entropy(f(x))),
        "mixup": (
            lambda: interpolation(f, x, plans, "probabilities"),
            lambda: F.mse_loss(f(x, plans).softmax(1), mixed),
        ),
    }[name]


@pytest.mark.parametrize("name", ["pseudo-label", "pi", "mean-teacher", "vat", "entropy", "mixup"])
def test_the_gradient_of_a_term_alone_brings_predictions_to_their_targets(name: str, f: Staged, x: Tensor) -> None:
    term, held = parts(name, f, x)
    before = held().item()
    term().backward()
    gradients = [p.grad for p in f.parameters()]
    square = torch.stack([g.square().sum() for g in gradients]).sum().item()
    assert square > 1e-8
    step = 1e-4 / math.sqrt(square)
    with torch.no_grad():
        for p, g in zip(f.parameters(), gradients, strict=True):
            p.sub_(step * g)
    assert before - held().item() == pytest.approx(step * square, rel=0.05), "by as much as the gradient says"


def test_pseudo_labels_below_the_threshold_teach_nothing(f: Staged, x: Tensor) -> None:
    loss = pseudo_label(f, x, 0.999)
    loss.backward()
    assert loss.item() == 0
    assert all(not p.grad.any() for p in f.parameters())


@pytest.mark.parametrize("xi", [1e-3, 1e-2])
def test_the_direction_of_vat_changes_predictions_more_than_random_ones(xi: float) -> None:
    """In single precision, on images and a convolutional network with batch norm; and is that of the exact Hessian."""
    torch.manual_seed(0)
    net = build(WideResNet(depth=10, width=0.25), 10, torch.tensor([0.3]), torch.tensor([0.4])).train()
    x = load(DataConfig("digits")).images[:20].float() / 255
    logits, d = net(x).detach(), torch.randn_like(x)
    r = direction(net, x, logits, d, xi, 1)
    torch.testing.assert_close(r.flatten(1).norm(dim=1), torch.ones(20))
    with torch.no_grad():
        found = divergence(logits, net(x + 0.1 * r)).item()
        scaled = [F.normalize(torch.randn(20, 64)).view_as(x) for _ in range(10)]
        assert found > 2 * max(divergence(logits, net(x + 0.1 * noise)).item() for noise in scaled)
        assert net(x).equal(net(x)), "no randomness of its own"

    net, x, d = net.double(), x.double(), F.normalize(d.flatten(1).double()).view_as(d)
    at = torch.zeros_like(x, requires_grad=True)
    (gradient,) = torch.autograd.grad(divergence(net(x).detach(), net(x + at)), at, create_graph=True)
    (exact,) = torch.autograd.grad((gradient * d).sum(), at)
    cosines = (F.normalize(exact.flatten(1)) * r.flatten(1)).sum(1)
    assert cosines.mean() > 0.95


def test_vat_passes_in_full_single_precision() -> None:
    """Where it differentiates a difference of size xi, TF32 would leave rounding."""
    seen: list[bool] = []
    updates = first_updates(configured(*METHODS["vat"]), 20)
    updates.network.stages[0].register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    updates.step(0)
    assert seen == [True, False, False, False], "labelled images, then unlabelled ones, the direction and the loss"
    assert torch.backends.cudnn.allow_tf32


def test_the_ramp_at_known_points() -> None:
    zero, official = MixupConsistency(ramp_from="zero"), MixupConsistency(ramp_from="official")
    assert official.ramp(0) == pytest.approx(0.006737947)
    assert official.ramp(0.2) == pytest.approx(math.exp(-1.25))
    assert zero.ramp(0) == 0
    assert zero.ramp(0.2) == pytest.approx((0.2865048 - 0.0067379) / (1 - 0.0067379), rel=1e-5)
    for config in (zero, official):
        assert config.ramp(0.4) == config.ramp(1) == 1
        values = [config.ramp(done / 100) for done in range(41)]
        assert values == sorted(values)
    assert MixupConsistency(ramp_until=0).ramp(0) == 1


# Preprocessing


def test_zca_makes_the_covariance_the_identity_and_can_be_inverted() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 3
    mean, matrix = zca(x, eps=0)
    white = (x - mean) @ matrix
    np.testing.assert_allclose(np.cov(white.numpy().T, bias=True), np.eye(12), atol=1e-3)
    torch.testing.assert_close(white @ torch.linalg.inv(matrix) + mean, x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(matrix, matrix.T, msg="symmetric: of all whitenings the nearest to the identity")


def test_whitening_images_agrees_with_numpy_in_the_layout_of_channels_first() -> None:
    images = torch.randint(256, (60, 3, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    mean, std, whiten = fit("gcn-zca", images[:5], images)
    assert isinstance(whiten, Whiten)
    assert (mean.tolist(), std.tolist()) == ([0] * 3, [1] * 3)
    flat = images.numpy().reshape(60, -1) / 255.0
    flat = flat - flat.mean(1, keepdims=True)
    flat = 55 * flat / np.sqrt(np.square(flat).sum(1, keepdims=True))
    torch.testing.assert_close(gcn(images.flatten(1).float() / 255).double(), torch.tensor(flat), rtol=1e-4, atol=1e-4)
    covariance = np.cov(flat.T, bias=True) + 0.1 * np.eye(48)
    w = whiten.matrix.double().numpy()
    np.testing.assert_allclose(w @ covariance @ w, np.eye(48), atol=1e-3)
    want = ((flat - flat.mean(0)) @ w).reshape(60, 3, 4, 4)
    pixels = images.float() / 255
    for x in (pixels, pixels.contiguous(memory_format=torch.channels_last)):
        torch.testing.assert_close(whiten(x).double(), torch.tensor(want), rtol=1e-3, atol=1e-3)
    assert whiten(torch.full((1, 3, 4, 4), 0.5)).isfinite().all(), "a constant image has no contrast to normalise"


def test_the_network_whitens_what_it_is_given_and_splits_at_every_layer() -> None:
    images = load(DataConfig("digits")).images[:200]
    net: Any = build(Oliver(depth=10, width=0.5), 10, *fit("gcn-zca", images, images)).eval()
    x = images[:5].float() / 255
    with torch.no_grad():
        for layer in range(net.depth):
            torch.testing.assert_close(net(net(x, stop=layer), start=layer), net(x))
        assert net(x, stop=0).equal(net.preprocess(x))
    first = [fit(kind, images, images)[:2] for kind in ("standardise", "symmetric")]
    assert first[0][0].item() == pytest.approx(images.double().mean().item() / 255, rel=1e-5)
    assert (first[1][0].item(), first[1][1].item()) == (0.5, 0.5)


# Network


def test_oliver_s_network_is_wrn_28_2_with_its_own_activation_shortcuts_and_batch_norm() -> None:
    with torch.device("meta"):
        big = build(Oliver(depth=28, width=2.0), 10, torch.zeros(3), torch.ones(3))
    assert sum(p.numel() for p in big.parameters()) == 1_467_610
    torch.manual_seed(0)
    net: Any = build(Oliver(depth=10, width=2.0), 10, torch.zeros(3), torch.ones(3))
    deviation = math.sqrt(2 / (128 + 10))
    assert net.stages[-1].weight.std().item() == pytest.approx(deviation, rel=0.1)
    assert net.stages[-1].weight.abs().max() > 2.5 * deviation  # normal, not uniform
    assert not net.stages[-1].bias.any()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 1e-3)}
    assert not any(isinstance(module, nn.ReLU) for module in net.modules())

    def activated(h: Tensor) -> Tensor:
        variance, mean = torch.var_mean(h, (0, 2, 3), correction=0)
        h = (h - mean[:, None, None]) / (variance[:, None, None] + 1e-3).sqrt()
        return torch.where(h > 0, h, 0.1 * h)

    x = torch.rand(4, 3, 8, 8)
    units = [net.stages[0][1][1][0], net.stages[1][0], net.stages[2][0][0]]
    with torch.no_grad():
        h = F.conv2d(x, net.stages[0][1][0].weight, padding=1)
        for i, unit in enumerate(units):
            stride = 1 if i == 0 else 2
            a = activated(h)
            convs = [module for module in unit.layers if isinstance(module, nn.Conv2d)]
            inner = activated(F.conv2d(a, convs[0].weight, stride=stride, padding=1))
            skip = F.conv2d(a if i == 0 else h, unit.shortcut.weight, stride=stride)
            h = F.conv2d(inner, convs[1].weight, padding=1) + skip
        want = net.stages[-1](activated(h).mean((2, 3)))
        torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-4)


# Split


@given(
    labels=st.lists(st.integers(0, 3), min_size=40, max_size=80),
    validation=st.integers(0, 10),
    each=st.integers(1, 3),
    seed=st.integers(0, 3),
)
def test_unlabelled_images_are_all_that_validation_leaves(
    labels: list[int], validation: int, each: int, seed: int
) -> None:
    y = torch.tensor(labels + [0, 1, 2, 3] * 14)
    rows = split(y, ClassifierData(validation=validation, labels_per_class=each, subset_seed=seed))
    pool, held, train = (set(part.tolist()) for part in (rows.pool, rows.validation, rows.train))
    assert pool | held == set(range(len(y)))
    assert not pool & held
    assert train <= pool
    assert y[rows.train].bincount().tolist() == [each] * 4


# Runs


def test_the_teacher_is_the_running_mean_of_the_student_and_what_is_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path, *METHODS["mean-teacher"], "--data.preprocess", "gcn-zca")
    last = result(tmp_path)[0]
    weights = [
        key for key in last["student"] if "running" not in key and "preprocess" not in key and last["student"][key].ndim
    ]
    assert not any(last["student"][key].equal(last["network"][key]) for key in weights if key.endswith("weight"))
    code, text = command_here(capsys, "attack_cls", str(tmp_path), "--space", "normalised")
    assert (code, "whitens its images" in text) == (2, True)
    network, config, saved = load_classifier(tmp_path, "best", torch.device("cpu"))
    images, labels = load(config.data)
    held = json.loads((tmp_path / "split.json").read_text())["validation"]
    wrong = predict(network, images[held], torch.device("cpu")).argmax(1) != labels[held]
    assert wrong.double().mean().item() == saved.state["validation/error"]
    done = run("evaluate_cls", str(tmp_path), "--deformations", "false")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "evaluation.json").read_text())
    test, truth = load(DataConfig("digits", split="test"))
    wrong = predict(network, test, torch.device("cpu")).argmax(1) != truth
    assert (found["error"], found["num_train"]) == (pytest.approx(wrong.double().mean().item()), 40)

    AcceleratorState._reset_state(reset_partial_state=True)
    net = build(config.network, 10, torch.zeros(1), torch.ones(1))
    assert config.ssl
    unlabelled = Unlabelled(config, config.ssl, net, images, Accelerator(cpu=True), 1)
    assert unlabelled.teacher
    before = [p.clone() for p in unlabelled.teacher.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1)
    unlabelled.learn(0)
    for p, old, new in zip(unlabelled.teacher.parameters(), before, net.parameters(), strict=True):
        torch.testing.assert_close(p, 0.9 * old + 0.1 * new)
        assert not p.requires_grad


@pytest.mark.parametrize(
    ("batch_size", "rows"), [("16", 16), ("null", 8)], ids=["16 unlabelled", "as many as labelled"]
)
def test_a_step_has_the_loss_of_algorithm_1(batch_size: str, rows: int) -> None:
    """L_S + w(k) L_US, by plans that are drawn apart; a fifth of the run is done, two fifths of the ramp."""
    plain = ["--network", "tests.plain_network.Plain", "--ssl.weight", "3", "--ssl.ramp_until", "0.5"]
    config = configured(*METHODS["mixup"], *plain, "--ssl.batch_size", batch_size)
    assert config.mixup
    assert isinstance(config.ssl, MixupConsistency)
    updates = first_updates(config, 100)
    net = updates.network
    assert updates.unlabelled
    draws, k = updates.unlabelled.draws, 3
    x, y = updates.batch(k)
    u = updates.unlabelled.views(draws.rows(k, rows, len(load(config.data).images)), draws, k)
    plans = config.mixup.draw(8, stream(config.seed, "plan", k))
    others = config.ssl.mixup.draw(rows, stream(draws.seed, "plan", k))
    (plan,), (other,) = plans.plans, others.plans
    assert not torch.equal(plan.lam, other.lam)
    with torch.no_grad():
        logits, mixed, clean = (net(*given, start=0).double().numpy() for given in ((x, plans), (u, others), (u,)))

    def mix(targets: np.ndarray, by: Plan) -> np.ndarray:
        lam = by.lam.double().numpy().reshape(-1, 1)
        return np.asarray(lam * targets[by.left] + (1 - lam) * targets[by.right])

    l_s = -(mix(y.double().numpy(), plan) * np.log(softmax(logits))).sum(1).mean()
    l_us = np.square(softmax(mixed) - mix(softmax(clean), other)).mean()
    share = (math.exp(-5 * 0.6**2) - math.exp(-5)) / (1 - math.exp(-5))
    terms = updates.step(k)
    assert l_us > 1e-5
    assert terms["supervised"].item() == pytest.approx(l_s, rel=1e-4)
    assert terms["unsupervised"].item() == pytest.approx(3 * share * l_us, rel=1e-4)
    assert terms["loss"].item() == pytest.approx(l_s + 3 * share * l_us, rel=1e-4)


@pytest.mark.parametrize("method", ["mean-teacher", "vat-em", "mixup"])
def test_a_run_taken_up_from_its_middle_ends_as_if_it_never_was_stopped(method: str, tmp_path: Path) -> None:
    options = [*METHODS[method], "--checkpoint_every", "1", "--keep_checkpoints", "9", "--data.noise", "0.1"]
    trained(tmp_path / "whole", *options, "--l1", "0.0001", "--ssl.ramp_until", "0.5")
    trained(begun(tmp_path / "whole", tmp_path / "again"), *options, "--l1", "0.0001", "--ssl.ramp_until", "0.5")
    a, b = result(tmp_path / "whole"), result(tmp_path / "again")
    assert same(a, b)
    assert ("student" in a[0]) == (method == "mean-teacher")
    terms = [{key for key in row if key in ("supervised", "unsupervised", "entropy", "l1")} for row in a[1]]
    want = {"supervised", "unsupervised", "l1"} | ({"entropy"} if method == "vat-em" else set())
    logged = [row for row, found in zip(a[1], terms, strict=True) if found == want]
    assert logged
    assert all(row["loss"] == pytest.approx(sum(row[term] for term in want), rel=1e-5) for row in logged)


def test_running_statistics_pass_over_what_vat_perturbs(tmp_path: Path) -> None:
    """They are those of a run in which the perturbation is larger, until weights differ."""
    for eps in ("1", "3"):
        options = [*METHODS["vat"], "--ssl.eps", eps, "--epochs", "1", "--batch_size", "40", "--data.validation", "0"]
        trained(tmp_path / eps, *options)
    a, b = (result(tmp_path / eps)[0]["network"] for eps in ("1", "3"))
    key = "stages.0.1.1.0.norm.running_mean"
    assert a[key].equal(b[key])
    assert not a["stages.0.1.0.weight"].equal(b["stages.0.1.0.weight"])


NORMS: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm1d": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12)),
    "BatchNorm2d": lambda: nn.BatchNorm2d(3),
    "BatchNorm2d, cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
    "BatchNorm3d": lambda: nn.Sequential(nn.Unflatten(1, (1, 3)), nn.BatchNorm3d(1)),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(3, track_running_stats=True),
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 3, 1)),
}


@pytest.mark.parametrize("norm", NORMS)
def test_vat_moves_no_buffer_of_any_norm(norm: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(NORMS[norm](), nn.Flatten(), nn.Linear(12, 3))
    x, d = torch.randn(8, 3, 2, 2), torch.randn(8, 3, 2, 2)
    for parameter in network.parameters():
        nn.init.normal_(parameter)  # so that spectral norm's power iteration has something to do
    logits = network(x)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with frozen(network):
        loss = vat(network, x, logits, d, 1.0, 1e-3, 2)
        assert any(not buffer.equal(before[name]) for name, buffer in network.named_buffers())
    assert before
    assert all(buffer.equal(before[name]) for name, buffer in network.named_buffers())
    loss.backward()
    assert network[-1].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("method", ["mean-teacher", "vat-em", "mixup"])
def test_two_processes_see_what_one_sees(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network without batch norm, whose statistics are a process's own, they end with the same weights.

    Where pairs are mixed, the one process takes up the run of two, whose pairs lie within halves of a batch.
    """
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    options = [*METHODS[method], "--network", "tests.plain_network.Plain", "--epochs", "2", "--data.noise", "0.1"]
    options += ["--checkpoint_every", "1"]
    if method == "mixup":  # so that it matters, even at the start of training, which images are paired
        options += ["--ssl.compare", "logits", "--ssl.weight", "20"]
    done = run("train_cls", *BASE, *options, "--output", str(tmp_path / "two"), processes=2)
    assert done.returncode == 0, done.stderr
    one = begun(tmp_path / "two", tmp_path / "one") if method == "mixup" else tmp_path / "one"
    trained(one, *options)
    a, b = (result(tmp_path / name)[0] for name in ("one", "two"))
    assert a["step"] == b["step"] == 10
    torch.testing.assert_close(a["network"], b["network"], rtol=1e-4, atol=1e-5)


def test_two_processes_train_a_network_with_batch_norm_through_several_passes(tmp_path: Path) -> None:
    options = [*METHODS["vat-em"], "--epochs", "1", "--output", str(tmp_path)]
    done = run("train_cls", *BASE, *options, processes=2)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path)[0]["step"] == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ssl", "SemiSupervised"], "ssl"),
        (["--ssl", "Nothing"], "ssl must be ICT, MeanTeacher, .* not Nothing"),
        (["--ssl", "VAT", "--ssl.decay", "0.9"], "ssl.decay: VAT has no option decay"),
        ([*METHODS["pi"], "--data.pad", "0"], "compares random views"),
        ([*METHODS["vat"], "--mixed_precision", "bf16"], "set mixed_precision null"),
        ([*METHODS["vat"], "--network.dropout", "0.1"], "network.dropout 0"),
        (["--ssl", "VAT", "--ssl.xi", "0"], "ssl.xi must be positive"),
        (["--ssl", "VAT", "--ssl.entropy", "-1"], "entropy must be 0 or more"),
        (["--ssl", "PseudoLabel", "--ssl.threshold", "1"], "must be in \\[0, 1\\)"),
        (["--ssl", "MeanTeacher", "--ssl.decay", "1"], "must be in \\(0, 1\\)"),
        (["--ssl", "MixupConsistency", "--ssl.mixup.detach", "true"], "ssl.mixup.detach is an ablation"),
        ([*METHODS["mixup"], "--ssl.mixup.layers", "[4]"], r"ssl.mixup.layers \[4\]: the network has layers 0"),
        (
            [*METHODS["mixup"], "--ssl.mixup", "ClassifierCutMix", "--ssl.mixup.layers", "[3]"],
            "ssl.mixup.layers \\[3\\]: CutMix needs states",
        ),
        ([*METHODS["mixup"], "--mixup.detach", "true"], "mixup.detach is an ablation"),
        ([*METHODS["pi"], "--ssl.weight", "0"], "ssl.weight must be positive"),
        ([*METHODS["pi"], "--ssl.ramp_until", "2"], "ramp_until must be in"),
        ([*METHODS["pi"], "--ssl.ramp_from", "official"], "needs ssl.ramp_until"),
        ([*METHODS["pi"], "--ssl.batch_size", "1500"], "ssl.batch_size 1500 is larger than the 1200"),
        ([*METHODS["pi"], "--l1", "-1"], "l1 must be 0 or more"),
        ([*METHODS["pi"], "--l1_on", "first"], "l1_on first needs l1"),
        ([*METHODS["pi"], "--data.pad", "0", "--data.noise", "1", "--data.border", "reflect"], "needs data.pad"),
    ],
)
def test_mistakes_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        trained(tmp_path / "run", *options)


# The configurations of Table 2


@pytest.mark.parametrize(
    ("files", "labels", "updates", "images"),
    [
        ("cifar10", 4000, 1000 * 45_000 // 100, 100),
        ("cifar10 cifar10_batch_50", 4000, 1000 * 45_000 // 100, 50),
        ("svhn", 1000, 200 * 65_930 // 100, 100),
        ("svhn svhn_batch_50", 1000, 200 * 65_930 // 100, 50),
        ("fashion_mnist_200", 200, 1000, 50),
        ("fashion_mnist_1000", 1000, 1000, 50),
    ],
)
def test_both_readings_of_the_batch_size_make_as_many_updates(
    files: str, labels: int, updates: int, images: int
) -> None:
    """Appendix E: 1000 epochs of 45,000 images and 200 of 65,932, at 100 an update; rates fall at 1/2, 3/4 and 7/8."""
    names = [f"configs/ssl/{name}.yaml" for name in (*files.split(), "arms/ssl-manifold")]
    args = [part for name in names for part in ("--config", name)]
    config = cli.parse(ClassifierConfig, "", args=["--output", "", *args]).config
    assert (config.data.labels_per_class or 0) * 10 == labels
    assert (config.batch_size, config.unlabelled_batch) == (images, images)
    assert math.ceil(config.epochs * labels / config.batch_size) == updates
    falls = [epoch / config.epochs for epoch in config.milestones]
    assert falls == pytest.approx([1 / 2, 3 / 4, 7 / 8], abs=1 / config.epochs)
