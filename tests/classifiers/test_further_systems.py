"""AdaMixUp, Fortified Networks, ICT and noisy mixup in training: losses, resuming, processes, attacks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from classifiers.attacks import adversarial
from classifiers.attacks.gradient import Attack, pgd
from classifiers.attacks.protocol import draws_at_random
from classifiers.fortified import Autoencoder, Fortified, fortify, reconstruction
from classifiers.load import Classifier, load_classifier
from classifiers.methods.ict import ICT, ict
from classifiers.networks import build, normalise_of
from classifiers.supervised import CrossEntropy
from classifiers.training import train
from classifiers.updates import Updates, learning_rate, smoothed
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.mixup import AdaMixUp, Plan, Plans, Staged
from tests.classifiers.runs import begun, first_updates
from tests.classifiers.test_semisupervised import BASE, configured, numpy_pass, softmax, trained
from tests.conftest import ENVIRONMENT, ROOT, result, run, same
from tests.plain_network import Plain

pytestmark = pytest.mark.slow

FGSM = ["--adversarial.iterations", "1", "--adversarial.random_start", "false", "--adversarial.eps", "0.1"]
FGSM += ["--adversarial.step_size", "0.1", "--adversarial.clean", "true", "--adversarial.labels", "predicted"]
FORTIFIED = ["--fortified.hidden", "16", "--fortified.cross", "true", *FGSM, "--label_smoothing", "0.1"]
SYSTEMS = {
    "adamixup": ["--mixup", "AdaMixUp", "--mixup.layers", "[0,1]"],
    "fortified": FORTIFIED,
    "fortified, mixed": [*FORTIFIED, "--mixup", "ClassifierMixup", "--mixup.layers", "[0,1,2,3]"],
    "ict": ["--ssl", "ICT", "--ssl.batch_size", "16", "--ssl.ramp_until", "0.5", "--ssl.decay", "0.7"],
    "noisy": ["--mixup", "ClassifierNoisyMixup", "--mixup.layers", "[0,1,2]"],
}


def updates(*options: str) -> Updates:
    """The first updates of a run on digits, of a network without batch norm."""
    return first_updates(configured("--network", "tests.plain_network.Plain", *options), 20)


# Fortified Networks


@pytest.mark.parametrize("activation", ["tanh", "leaky-relu"])
@pytest.mark.parametrize("maps", [False, True])
def test_the_autoencoder_agrees_with_numpy_and_its_weights_are_tied(activation: Any, maps: bool) -> None:
    torch.manual_seed(0)
    encoder = Autoencoder(5, 7, activation, 0.1).double()
    with torch.no_grad():
        for p in encoder.parameters():
            p.normal_()
    h = torch.randn(4, 5, 2, 3, dtype=torch.float64) if maps else torch.randn(4, 5, dtype=torch.float64)
    encoder.generator = torch.Generator().manual_seed(3)
    r = encoder(h)
    n = torch.randn(h.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    s = np.tanh if activation == "tanh" else lambda a: np.where(a > 0, a, 0.2 * a)
    w, b, c = (p.detach().numpy() for p in (encoder.weight, encoder.encoder_bias, encoder.decoder_bias))

    def by_hand(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        rows = np.moveaxis((h + 0.1 * n).numpy(), 1, -1)
        return np.asarray(np.moveaxis(s(s(rows @ first + b) @ second.T + c), -1, 1))

    np.testing.assert_allclose(r.detach().numpy(), by_hand(w, w), rtol=1e-9)
    loss = reconstruction(h, r, blocking=False)
    assert loss.item() == pytest.approx(np.square(h.numpy() - by_hand(w, w)).mean(), rel=1e-6)
    encoder.weight.grad = None
    r.square().sum().backward()
    eps, i, j = 1e-6, 2, 4
    moved = [w + sign * eps * np.outer(np.eye(5)[i], np.eye(7)[j]) for sign in (1, -1)]
    both = (np.square(by_hand(moved[0], moved[0])).sum() - np.square(by_hand(moved[1], moved[1])).sum()) / (2 * eps)
    one = (np.square(by_hand(moved[0], w)).sum() - np.square(by_hand(moved[1], w)).sum()) / (2 * eps)
    grad = encoder.weight.grad
    assert grad is not None
    assert grad[i, j].item() == pytest.approx(both, rel=1e-5), "of both layers"
    assert abs(both - one) > 1e-3


def test_its_weights_start_as_published() -> None:
    torch.manual_seed(0)
    weight = Autoencoder(60, 40, "tanh", 0.1).weight.detach()
    assert weight.abs().max() == pytest.approx(0.1, rel=0.01)
    assert weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)


def test_its_noise_stays_at_test_and_has_the_deviation_it_says() -> None:
    encoder = Autoencoder(50, 50, "tanh", 0.1).eval()
    with torch.no_grad():
        encoder.weight.copy_(torch.eye(50))
        r = torch.atanh(torch.atanh(encoder(torch.zeros(400, 50))))
    assert r.std().item() == pytest.approx(0.1, rel=0.03)
    h = torch.zeros(3, 50)
    assert not encoder(h).equal(encoder(h))
    encoder.noise = 0
    assert encoder(h).equal(encoder(h))


@pytest.mark.parametrize("layer", [None, 1, 2])
def test_it_stands_between_two_stages(layer: int | None) -> None:
    torch.manual_seed(0)
    plain = build(Plain(width=0.25), 10, torch.tensor([0.3]), torch.tensor([0.4]))
    torch.manual_seed(0)
    net = build(Plain(width=0.25), 10, torch.tensor([0.3]), torch.tensor([0.4]))
    fortify(net, Fortified(layer=layer, hidden=9), [1, 8, 8])
    k, x = layer or 2, torch.rand(4, 1, 8, 8)
    encoder = net.stages[k]
    assert isinstance(encoder, Autoencoder)
    encoder.noise = 0
    h = plain(x, stop=k)
    torch.testing.assert_close(net(x), plain(encoder(h), start=k))
    assert net.depth == plain.depth + 1
    with pytest.raises(ValueError, match=r"fortified.layer 3: the network has layers 1 to 2"):
        fortify(plain, Fortified(layer=3), [1, 8, 8])


def fortified_by_hand(updates: Updates, k: int) -> dict[str, Tensor]:
    """The terms of a step without mixup: two halves, both reconstructions, FGSM on the network's own classes."""
    net, config, (encoder,) = updates.network, updates.config, updates.encoders
    assert config.fortified
    x, y = updates.batch(k)
    generator = torch.Generator().manual_seed(stream(config.seed, "autoencoder/0", k).initial_seed())

    def passed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = net(x, start=0, stop=2)
        noisy = h + 0.1 * torch.randn(h.shape, generator=generator)
        r = torch.tanh(
            torch.tanh(noisy @ encoder.weight + encoder.encoder_bias) @ encoder.weight.T + encoder.decoder_bias
        )
        return h, r, net(r, start=3)

    taken_for = passed(x)[2].argmax(1)
    at = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(passed(at)[2], taken_for, reduction="sum"), at)
    moved = (x + 0.1 * g.sign()).clamp(0, 1).detach()
    (h, r, logits), (_, r_moved, logits_moved) = passed(x), passed(moved)
    soft = torch.where(y > 0.5, 0.9, 0.1 / 9)
    terms = {
        "supervised": (F.cross_entropy(logits, soft) + F.cross_entropy(logits_moved, soft)) / 2,
        "reconstruction": (h - r).square().sum(1).mean() / h.shape[1],
        "cross": (h - r_moved).square().sum(1).mean() / h.shape[1],
    }
    return {name: value.detach() for name, value in terms.items()}


def test_a_fortified_step_has_the_published_loss() -> None:
    """L = [CE(f(x)) + CE(f(x'))] / 2 + L_rec + L_adv, x' by FGSM, labels smoothed."""
    ours = updates(*FORTIFIED)
    want = fortified_by_hand(ours, 3)
    found = ours.step(3)
    assert {name: found[name].item() for name in want} == {
        name: pytest.approx(value.item(), rel=1e-4) for name, value in want.items()
    }
    assert found["loss"].item() == pytest.approx(sum(value.item() for value in want.values()), rel=1e-4)


@pytest.mark.parametrize("name", ["reconstruction", "cross"])
@pytest.mark.parametrize("blocking", ["true", "false"])
def test_a_reconstruction_alone_has_the_gradient_that_brings_it_down(name: str, blocking: str) -> None:
    """Blocked, it leaves the clean states where they are; what is made of attacked ones has its gradient either way."""
    ours = updates(*FORTIFIED, "--fortified.blocking", blocking)
    net, (encoder,) = ours.network, ours.encoders
    encoder.generator = torch.Generator().manual_seed(0)
    x, y = ours.batch(0)

    def terms() -> dict[str, Tensor]:
        assert encoder.generator
        encoder.generator.manual_seed(1)
        return ours.labelled.terms(0, x, y, Plans(rows=len(x)))[0]

    def held() -> Tensor:
        """The term against the states of before, as a blocked gradient sees it."""
        passes = []
        original = ours.labelled._pass
        try:
            ours.labelled._pass = lambda *given: passes.append(original(*given)) or passes[-1]  # type: ignore[method-assign,func-returns-value]
            terms()
        finally:
            ours.labelled._pass = original  # type: ignore[method-assign]
        made = passes[0].made if name == "reconstruction" else passes[1].made
        assert made is not None
        return F.mse_loss(made, states)

    states = net(x, start=0, stop=2).detach()
    below = list(net.stages[0].parameters())
    every = [*below, *encoder.parameters()]
    gradients = torch.autograd.grad(terms()[name], every)
    assert all(g.any() for g in gradients)
    before = (held() if blocking == "true" else terms()[name]).item()
    square = sum(g.square().sum().item() for g in gradients)
    step = 1e-3 / square**0.5
    with torch.no_grad():
        for p, g in zip(every, gradients, strict=True):
            p.sub_(step * g)
    after = (held() if blocking == "true" else terms()[name]).item()
    assert before - after == pytest.approx(step * square, rel=0.1)


def test_a_fortified_network_mixes_below_and_above_its_autoencoder_as_one_pass_does() -> None:
    """In three parts, of which one mixes: outputs and targets are those of the whole network."""
    for layer in range(4):
        ours = updates(*FORTIFIED, "--mixup", "ClassifierMixup", "--mixup.layers", f"[{layer}]")
        ours.encoders[0].noise = 0
        x, y = ours.batch(0)
        assert ours.config.mixup
        plans = ours.config.mixup.draw(8, torch.Generator().manual_seed(0))
        one = ours.labelled._pass(x, y, plans)
        outputs, targets = ours.network(x, plans, y, start=0)
        torch.testing.assert_close(one.outputs, outputs)
        torch.testing.assert_close(one.targets, targets)
        assert one.states is not None
        torch.testing.assert_close(one.made, ours.encoders[0](one.states), msg="of the very states it was given")


def test_smoothed_labels_are_the_clipped_ones_of_the_authors() -> None:
    y = F.one_hot(torch.arange(10), 10).float()
    torch.testing.assert_close(smoothed(y, 0.1), y.clip(0.1 / 9, 0.9))
    soft = 0.3 * y + 0.7 * y.roll(1, 0)
    torch.testing.assert_close(smoothed(soft, 0.1).sum(1), torch.ones(10))


# ICT


@pytest.mark.parametrize("mixed", ["probabilities", "logits"])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_ict_agrees_with_numpy_in_value_and_gradient(layer: int, mixed: Any) -> None:
    torch.manual_seed(0)

    def network() -> Staged:
        layers = [nn.Sequential(nn.Linear(6, 5), nn.Tanh()), nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 3)]
        return Staged(*layers).double()

    f, teacher = network(), network()
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, right, lam = np.arange(8), np.array([3, 2, 1, 0, 7, 5, 6, 4]), 0.3
    plan = Plan(layer, torch.tensor(left), torch.tensor(right), torch.tensor(lam, dtype=torch.float64))

    def mix(a: np.ndarray) -> np.ndarray:
        return lam * a[left] + (1 - lam) * a[right]

    logits = numpy_pass(teacher, x.numpy())
    q = softmax(mix(logits)) if mixed == "logits" else mix(softmax(logits))

    def by_hand() -> float:
        h = mix(numpy_pass(f, x.numpy(), stop=layer))
        return float(np.square(softmax(numpy_pass(f, h, start=layer)) - q).mean())

    loss = ict(f, teacher, x, Plans((plan,), rows=8), mixed)
    assert loss.item() == pytest.approx(by_hand(), rel=1e-9)
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters()), "no gradient to the targets"
    for stage, (i, j) in ((0, (2, 1)), (1, (0, 3))):
        weight, eps = f.get_submodule(f"stages.{stage}.0").weight, 1e-5
        assert isinstance(weight, nn.Parameter)
        assert weight.grad is not None
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[i, j] += sign * eps
                values.append(by_hand())
                weight[i, j] -= sign * eps
        assert weight.grad[i, j].item() == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-4, abs=1e-9)


def test_its_teacher_is_the_mean_of_all_weights_and_then_an_average_of_decay() -> None:
    method = ICT(decay=0.999)
    assert [method.teacher_decay(number) for number in (0, 1, 2)] == pytest.approx([1 / 2, 2 / 3, 3 / 4])
    assert method.teacher_decay(997) == pytest.approx(1 - 1 / 999)
    assert method.teacher_decay(998) == method.teacher_decay(10**6) == 0.999
    ours = updates(*SYSTEMS["ict"], "--ssl.decay", "0.999")
    assert ours.unlabelled
    assert ours.unlabelled.teacher
    seen = [[p.detach().clone() for p in ours.network.parameters()]]
    for number in range(3):
        ours.step(number)
        seen.append([p.detach().clone() for p in ours.network.parameters()])
    for p, *weights in zip(ours.unlabelled.teacher.parameters(), *seen, strict=True):
        torch.testing.assert_close(p, torch.stack(weights).mean(0))


def test_the_ramp_and_the_rate_are_the_authors() -> None:
    """exp(-5 (1 - e / E_r)^2) of 100 up to a quarter of the run; a cosine that would reach 0 at epoch 450 of 400."""
    method = ICT()
    assert method.weight * method.ramp(0.125) == pytest.approx(100 * np.exp(-5 * 0.5**2))
    assert method.ramp(0.25) == method.ramp(1) == 1
    config = configured("--epochs", "400", "--lr_schedule", "cosine", "--cosine_epochs", "450")
    for epoch in (0, 100, 400):
        assert learning_rate(config, epoch) == pytest.approx(0.1 * (np.cos(np.pi * epoch / 450) + 1) / 2)


# AdaMixUp


def test_a_step_of_adamixup_has_both_terms_of_one_pass() -> None:
    ours = updates("--mixup", "AdaMixUp", "--mixup.layers", "[1]")
    rule, parts = ours.config.mixup, ours.learnt
    assert isinstance(rule, AdaMixUp)
    assert parts.head
    x, y = ours.batch(2)
    with torch.no_grad():
        plans = rule.draw(8, stream(ours.config.seed, "plan", 2))
        plans = rule.complete(parts.policy, x, plans)  # type: ignore[arg-type]
        features, targets = ours.network(x, plans, y, start=0, stop=2)
        logits, intrusion = ours.network(features, start=2), parts.head(features)
    rows = [*range(4), *range(8, 12)]
    supervised = F.cross_entropy(logits[rows], targets[rows])
    told = F.cross_entropy(intrusion, torch.tensor([1] * 8 + [0] * 4))
    found = ours.step(2)
    assert found["supervised"].item() == pytest.approx(supervised.item(), rel=1e-5)
    assert found["intrusion"].item() == pytest.approx(told.item(), rel=1e-5)
    assert found["loss"].item() == pytest.approx((supervised + told).item(), rel=1e-5)
    assert found["interval/low"].item() == pytest.approx(plans.plans[0].low.mean().item(), rel=1e-5)  # type: ignore[attr-defined]


def test_one_optimiser_moves_the_network_the_policy_and_the_head() -> None:
    ours = updates("--mixup", "AdaMixUp")
    before = {name: {k: v.clone() for k, v in net.state_dict().items()} for name, net in ours.networks.items()}
    assert set(before) == {"network", "policy", "head"}
    assert normalise_of(ours.network).mean.equal(before["policy"]["backbone.stages.0.0.mean"])
    assert not before["policy"]["backbone.stages.0.1.0.weight"].equal(before["network"]["stages.0.1.0.weight"])
    for number in range(2):
        ours.step(number)
    for name, net in ours.networks.items():
        for key, value in net.named_parameters():
            assert not value.equal(before[name][key]), f"{name} {key} stays"


# Runs


@pytest.mark.parametrize("system", ["adamixup", "fortified, mixed", "ict", "noisy"])
def test_a_run_taken_up_from_its_middle_ends_as_if_it_never_was_stopped(system: str, tmp_path: Path) -> None:
    options = [*SYSTEMS[system], "--checkpoint_every", "1", "--keep_checkpoints", "9", "--network.dropout", "0.1"]
    trained(tmp_path / "whole", *options)
    trained(begun(tmp_path / "whole", tmp_path / "again"), *options)
    a, b = result(tmp_path / "whole"), result(tmp_path / "again")
    assert same(a, b)
    assert {"adamixup": {"policy", "head"}, "ict": {"student"}}.get(system, set()) <= set(a[0])
    rows = [row for row in a[1] if "supervised" in row]
    assert (len(rows) > 0) == (system != "noisy")
    if system == "adamixup":
        assert all(0 < row["interval/low"] < row["interval/high"] < 1 for row in rows)
        assert (tmp_path / "whole" / "plots" / "interval.png").is_file()


SYSTEMS["ict, fortified"] = [*SYSTEMS["ict"], "--fortified.hidden", "16"]


@pytest.mark.parametrize("system", ["adamixup", "fortified, mixed", "ict, fortified"])
def test_two_processes_see_what_one_sees(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network without batch norm; the one takes up the run of the two, whose pairs lie within halves."""
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(ROOT))
    options = [*SYSTEMS[system], "--network", "tests.plain_network.Plain", "--epochs", "2", "--checkpoint_every", "1"]
    options += ["--lr", "0.02"]
    done = run("train_cls", *BASE, *options, "--output", str(tmp_path / "two"), processes=2)
    assert done.returncode == 0, done.stderr
    trained(begun(tmp_path / "two", tmp_path / "one"), *options)
    a, b = (result(tmp_path / name)[0] for name in ("one", "two"))
    assert a["step"] == b["step"] == 10
    for name in {"network", "policy", "head", "student"} & set(a):
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_a_fortified_network_is_attacked_by_averaged_gradients_and_says_that_it_is_random(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained(folder, *FORTIFIED)

    def attacked(output: Path, *options: str) -> tuple[dict[str, Any], str]:
        few = ["--num_images", "12", "--iterations", "2", "--restarts", "1", "--eps", "[0.1]", "--batch_size", "6"]
        done = run("attack_cls", str(folder), *few, "--output", str(output), *options)
        assert done.returncode == 0, done.stderr
        return json.loads((output / "attack.json").read_text()), done.stdout

    found, text = attacked(tmp_path / "rand", "--eot", "3", "--autoattack", "true")
    assert (found["random"], found["eot"], found["checks"][0]["passed"]) == (True, 3, True)
    assert 0 <= found["changed"]["share"] <= 1
    assert "the network draws at random" in text
    one, _ = attacked(tmp_path / "one", "--eot", "1")
    again, _ = attacked(tmp_path / "again", "--eot", "1")
    assert one == again, "its draws are the seed's"
    assert one["checks"][0]["passed"] is False
    with pytest.raises(UserError, match="features are random"):
        Classifier(str(folder)).build()


def test_averaged_gradients_are_those_of_the_expectation() -> None:
    """A network whose noise changes the sign of a gradient: one step by many draws is that of their mean."""

    class Random(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            factor = 1 + 3 * torch.randn(len(x), 1)
            return torch.cat([factor * x.flatten(1).sum(1, keepdim=True), torch.zeros(len(x), 1)], 1) * 1e-3

    torch.manual_seed(0)
    x, y = torch.full((200, 1, 2, 2), 0.5), F.one_hot(torch.zeros(200, dtype=torch.int64), 2).float()
    for eot, least, most in ((1, 0.3, 0.8), (200, 0.99, 1.0)):
        made = pgd(Random(), x, y, Attack(0.1, 0.1, 1, eot=eot))
        lower = (made < x).flatten(1).all(1).float().mean().item()
        assert least < lower <= most


def test_predicted_labels_are_the_network_s_own() -> None:
    torch.manual_seed(0)
    net = build(Plain(width=0.25), 10, torch.tensor([0.3]), torch.tensor([0.4]))
    x, y = torch.rand(6, 1, 8, 8), F.one_hot(torch.zeros(6, dtype=torch.int64), 10).float()
    found = adversarial.predicted(net, x, y)
    assert found.dtype == y.dtype
    assert torch.equal(found.argmax(1), net(x).argmax(1))
    assert torch.equal(found.sum(1), torch.ones(6))
    assert CrossEntropy()(net(x), found) < CrossEntropy()(net(x), y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mixup", "AdaMixUp", "--mixup.detach", "true"], "mixup.detach blocks"),
        (["--mixup", "AdaMixUp", "--batch_size", "7"], "batch_size 7, 1 process.*even number"),
        (["--mixup", "AdaMixUp", "--batch_size", "2"], "batch_size 2 gives one pair"),
        ([*FORTIFIED, "--mixup", "AdaMixUp"], "do not go together"),
        ([*FORTIFIED, "--mixup", "ClassifierMixup", "--mixup.detach", "true"], "leaves layers without a gradient"),
        (["--fortified.weight", "0", "--fortified.blocking", "true"], "no effect with fortified.weight 0"),
        (["--mixup", "AdaMixUp", "--mixup.layers", "[9]"], r"mixup.layers \[9\]"),
        (["--mixup", "AdaMixUp", "--ssl", "PiModel"], "learns from labelled images"),
        (["--ssl", "MixupConsistency", "--ssl.mixup", "AdaMixUp"], "learns from labels"),
        (["--ssl", "ICT", "--ssl.mixup.detach", "true"], "ssl.mixup.detach is an ablation"),
        (["--ssl", "ICT", "--ssl.decay", "1"], r"must be in \(0, 1\)"),
        (["--mixup", "AdaMixUp", *FGSM, "--adversarial.order", "mix-attack"], "cut the gradient"),
        (["--mixup", "ClassifierNoisyMixup", "--mixup.additive", "-1"], "mixup.additive must be 0 or more"),
        (["--fortified.layer", "7"], "fortified.layer 7: the network has layers 1 to 3"),
        (["--fortified.layer", "0"], "fortified.layer must be 1 or more"),
        (["--fortified.hidden", "0"], "fortified.hidden must be positive"),
        (["--fortified.noise", "-1"], "fortified.noise must be 0 or more"),
        (["--fortified.cross", "true"], "set adversarial.clean true"),
        (["--fortified.hidden", "8", "--ssl", "VAT"], "fortified null"),
        (["--label_smoothing", "1"], r"label_smoothing must be in \[0, 1\)"),
        (["--cosine_epochs", "9", "--lr_schedule", "step", "--milestones", "[1]"], "cosine_epochs needs lr_schedule"),
        (["--cosine_epochs", "1"], "at least the 3 epochs"),
    ],
)
def test_mistakes_are_refused(options: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        trained(tmp_path / "run", *options)


def test_a_damaged_place_of_the_autoencoder_is_refused_when_a_run_is_opened(tmp_path: Path) -> None:
    trained(tmp_path / "run", "--fortified.hidden", "8", "--epochs", "1")
    network, config, _ = load_classifier(tmp_path / "run")
    assert any(isinstance(stage, Autoencoder) for stage in network.stages)
    assert config.fortified
    file = tmp_path / "run" / "config.yaml"
    file.write_text(re.sub(r"(?m)^  layer:.*$", "  layer: 9", file.read_text()))
    with pytest.raises(UserError, match=r"damaged: fortified\.layer 9"):
        load_classifier(tmp_path / "run")


def test_a_run_starts_from_all_that_another_has_learnt(tmp_path: Path) -> None:
    trained(tmp_path / "first", *SYSTEMS["adamixup"])
    trained(tmp_path / "next", *SYSTEMS["adamixup"], "--init_from", str(tmp_path / "first"), "--lr", "1e-12")
    a, b = (result(tmp_path / name)[0] for name in ("first", "next"))
    for name in ("network", "policy", "head"):
        for key, value in a[name].items():
            if "running" not in key and value.is_floating_point():
                torch.testing.assert_close(value, b[name][key], atol=1e-6, rtol=0)


def test_a_network_that_gives_no_numbers_is_not_taken_for_a_random_one() -> None:
    class Lost(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), torch.nan)

    assert not draws_at_random(Lost(), torch.zeros(2, 1, 8, 8))
    assert draws_at_random(nn.Dropout(0.5), torch.ones(2, 1, 8, 8))


def test_train_is_what_python_calls_too(tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    small: dict[str, Any] = {"data": {"name": "digits", "labels_per_class": 4}, "network": {"width": 0.0625}}
    small |= {"batch_size": 20, "epochs": 1, "lr_schedule": "constant", "tracker": None}
    train({**small, "mixup": {"class_path": "AdaMixUp", "init_args": {"layers": [0, 2]}}}, tmp_path / "run")
    assert load_classifier(tmp_path / "run")[1].mixup == AdaMixUp(layers=[0, 2])
