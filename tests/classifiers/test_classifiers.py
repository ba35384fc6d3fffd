"""Classifiers: networks, augmentation, split, losses and schedules, each against an independent computation."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from classifiers.augment import cutout, shift_and_flip
from classifiers.config import ClassifierConfig, ClassifierData
from classifiers.networks import NetworkConfig, build, moments
from classifiers.networks.oliver import Oliver
from classifiers.networks.preactresnet import PreActResNet
from classifiers.networks.wideresnet import WideResNet
from classifiers.split import split
from classifiers.supervised import BCESoftmax, ClassifierLoss, CrossEntropy
from classifiers.updates import learning_rate
from mmgan.errors import UserError
from mmgan.mixup import ClassifierCutMix, ClassifierMixup, Mixable, Plan, Plans, Staged
from mmgan.mixup.rules.cutmix import Boxes

MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3])


def network(config: NetworkConfig) -> Staged:
    torch.manual_seed(0)
    made = build(config, 10, MEAN, STD)
    for module in made.modules():  # statistics and weights that differ from one another
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return made.eval()


# Networks


@pytest.mark.parametrize(
    ("config", "count"),
    [
        # He et al.'s network: 11,173,962 with a batch norm after each convolution; here the three shortcuts have none
        (PreActResNet(depth=18), 11_172_170),
        (PreActResNet(depth=18, final_norm=False), 11_172_170 - 2 * 512),
        (WideResNet(depth=28, width=10.0), 36_479_194),  # as in Zagoruyko's code and many others
        (WideResNet(depth=28, width=2.0), 1_467_610),
    ],
)
def test_networks_have_the_published_sizes(config: NetworkConfig, count: int) -> None:
    with torch.device("meta"):
        made = build(config, 10, MEAN, STD)
    assert sum(p.numel() for p in made.parameters()) == count


def test_the_paper_s_20_10_is_the_network_others_call_22_10() -> None:
    with torch.device("meta"):
        sizes = [
            [tuple(p.shape) for p in build(WideResNet(depth=depth, width=10.0), 10, MEAN, STD).parameters()]
            for depth in (20, 22)
        ]
    assert sizes[0] == sizes[1]
    assert len([shape for shape in sizes[0] if len(shape) == 4 and shape[-1] == 3]) == 1 + 3 * 6


def by_hand(state: dict[str, Tensor], x: Tensor, groups: list[tuple[str, int, int]], final: str | None) -> Tensor:
    """He et al.'s and Zagoruyko's network, layer after layer from its weights; `groups`: key, blocks, first stride."""

    def norm_relu(key: str, h: Tensor) -> Tensor:
        mean, var, weight, bias = (
            state[f"{key}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias")
        )
        return ((h - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    h = F.conv2d((x - MEAN[:, None, None]) / STD[:, None, None], state["stages.0.1.0.weight"], padding=1)
    for group, blocks, first in groups:
        for i in range(blocks):
            key, stride = f"{group}.{i}", first if i == 0 else 1
            active = norm_relu(f"{key}.norm", h)
            short = f"{key}.shortcut.weight"
            skip = F.conv2d(active, state[short], stride=stride) if short in state else h
            weights = [state[k] for k in state if re.fullmatch(rf"{re.escape(key)}\.layers\.\d+\.weight", k)]
            convs = [w for w in weights if w.ndim == 4]
            norms = re.findall(rf"({re.escape(key)}\.layers\.\d+)\.running_mean", " ".join(state))
            strided = 1 if len(convs) == 3 else 0  # a bottleneck steps in its 3x3 convolution
            h = active
            for j, w in enumerate(convs):
                h = F.conv2d(h, w, stride=stride if j == strided else 1, padding=w.shape[-1] // 2)
                h = norm_relu(norms[j], h) if j < len(norms) else h
            h = h + skip
    h = norm_relu(final, h) if final else h
    last = max(key for key in state if re.fullmatch(r"stages\.\d+\.weight", key))
    return h.mean((2, 3)) @ state[last].T + state[last.replace("weight", "bias")]


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("depth", [18, 34, 50, 152])
def test_preactresnet_computes_what_he_et_al_say(depth: int, final_norm: bool) -> None:
    made = network(PreActResNet(depth=depth, width=0.0625, final_norm=final_norm))
    sizes = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 152: (3, 8, 36, 3)}[depth]
    keys = ("stages.0.1.1", "stages.1", "stages.2", "stages.3.0")
    groups = [(key, n, 1 if i == 0 else 2) for i, (key, n) in enumerate(zip(keys, sizes, strict=True))]
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        want = by_hand(made.state_dict(), x, groups, "stages.3.1.0" if final_norm else None)
        torch.testing.assert_close(made(x), want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@pytest.mark.parametrize(("depth", "blocks"), [(10, 1), (16, 2), (20, 3)])
def test_wideresnet_computes_what_zagoruyko_says(depth: int, blocks: int) -> None:
    made = network(WideResNet(depth=depth, width=0.5, dropout=0.3))
    groups = [("stages.0.1.1", blocks, 1), ("stages.1", blocks, 2), ("stages.2.0", blocks, 2)]
    x = torch.rand(3, 3, 16, 16)
    with torch.no_grad():
        want = by_hand(made.state_dict(), x, groups, "stages.2.1.0")
        torch.testing.assert_close(made(x), want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


@pytest.mark.parametrize(
    "config", [PreActResNet(depth=50, width=0.125), *(kind(depth=10, width=0.125) for kind in (WideResNet, Oliver))]
)
def test_every_layer_splits_the_network_and_the_last_stage_is_linear(config: NetworkConfig) -> None:
    made = network(config)
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        for layer in range(made.depth):
            torch.testing.assert_close(made(made(x, stop=layer), start=layer), made(x))
        assert made(x, stop=made.depth - 1).ndim == 2
    assert isinstance(made.stages[-1], nn.Linear)


def test_dropout_drops_before_the_last_convolution_of_a_block() -> None:
    made = network(PreActResNet(width=0.125, dropout=0.5))
    x = torch.rand(4, 3, 8, 8)
    assert made(x).equal(made(x))
    assert not made.train()(x).equal(made(x))
    drops = [module for module in made.modules() if isinstance(module, nn.Dropout)]
    assert len(drops) == 8


def test_convolutions_start_with_variance_2_over_fan_out() -> None:
    made = build(PreActResNet(), 10, MEAN, STD)
    for module in made.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            want = 2 / (module.out_channels * module.kernel_size[0] ** 2)
            assert float(module.weight.detach().var()) == pytest.approx(want, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "depth", "words"),
    [
        (PreActResNet, 20, "network.depth must be one of 18, 34, 50, 152, not 20"),
        (WideResNet, 18, "network.depth must be 6n \\+ 4 .* or 6n \\+ 2, up to 1010, not 18"),
        (WideResNet, 4, "network.depth must be 6n"),
        (Oliver, 20, "network.depth must be 6n \\+ 4 .*, not 20"),
        (Oliver, 4, "network.depth must be 6n"),
    ],
)
def test_networks_that_cannot_be_are_refused(
    kind: type[PreActResNet | WideResNet | Oliver], depth: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        kind(depth=depth)


def test_moments_are_those_of_the_pixels() -> None:
    images = torch.randint(256, (50, 3, 7, 7), dtype=torch.uint8)
    mean, std = moments(images)
    values = images.numpy() / 255.0
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=1e-6)


# Mixing


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_mixing_in_a_torchvision_network_by_name_equals_splitting_it_by_hand(layer: int) -> None:
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=7).eval()
    x, y = torch.rand(6, 3, 64, 64), F.one_hot(torch.arange(6), 7).float()
    plans = ClassifierMixup(layers=(layer,), lam_per="pair").draw(6, torch.Generator().manual_seed(1))
    got = CrossEntropy()(*Mixable(net, ["layer1", "layer2", "layer3"])(x, plans, y))

    lam, right = plans.plans[0].lam.numpy(), plans.plans[0].right.numpy()
    below = [
        nn.Identity(),
        nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1),
        net.layer2,
        net.layer3,
    ]
    above = [nn.Sequential(*below[1:]), nn.Sequential(net.layer2, net.layer3), net.layer3, nn.Identity()]
    h = x
    for part in below[: layer + 1]:
        h = part(h)
    weight = torch.tensor(lam)[:, None, None, None]
    mixed = weight * h + (1 - weight) * h[right]
    logits = net.fc(net.avgpool(net.layer4(above[layer](mixed))).flatten(1)).detach().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = lam[:, None] * y.numpy() + (1 - lam[:, None]) * y.numpy()[right]
    assert float(got.detach()) == pytest.approx(-(targets * log_p).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_the_ablation_gives_layers_below_the_mix_no_gradient(layer: int) -> None:
    made = network(PreActResNet(width=0.125)).train()
    x, y = torch.rand(4, 3, 8, 8), F.one_hot(torch.arange(4), 10).float()
    plan = Plan(layer, torch.arange(4), torch.tensor([1, 0, 3, 2]), torch.tensor(0.3), detach=True)
    CrossEntropy()(*made(x, Plans((plan,), rows=4), y)).backward()
    for i, stage in enumerate(made.stages):
        assert all((p.grad is None) == (i < layer) for p in stage.parameters())


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_cutmix_in_a_classifier_pastes_boxes_and_weighs_targets_by_their_area(layer: int) -> None:
    made = network(WideResNet(depth=10, width=0.25))
    x, y = torch.rand(8, 3, 12, 12), F.one_hot(torch.arange(8), 10).float()
    plans = ClassifierCutMix(layers=(layer,)).draw(8, torch.Generator().manual_seed(2))
    (plan,) = plans.plans
    assert isinstance(plan, Boxes)
    with torch.no_grad():
        h = made(x, stop=layer)
        inside = plan.inside(*h.shape[2:])
        mixed = torch.stack([torch.where(box, h[j], row) for box, row, j in zip(inside, h, plan.right, strict=True)])
        area = inside.double().mean((1, 2))[:, None]
        targets = (1 - area) * y + area * y[plan.right]
        want = -(targets * made(mixed, start=layer).double().log_softmax(1)).sum(1).mean()
        got = CrossEntropy()(*made(x, plans, y))
    assert 0.1 < float(area.mean()) < 0.9
    assert float(got) == pytest.approx(float(want), rel=1e-5)


def test_without_anything_to_mix_the_objective_is_the_plain_one() -> None:
    made = network(WideResNet(depth=10, width=0.25))
    x, y = torch.rand(8, 3, 12, 12), F.one_hot(torch.arange(8), 10).float()
    assert CrossEntropy()(*made(x, Plans(rows=8), y)).equal(F.cross_entropy(made(x), y))


# Losses


@pytest.fixture(scope="module")
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(16, 5, generator=generator, dtype=torch.float64)
    return logits, torch.rand(16, 5, generator=generator, dtype=torch.float64).softmax(1)


def test_losses_on_soft_targets_agree_with_numpy(rows: tuple[Tensor, Tensor]) -> None:
    logits, y = (t.numpy() for t in rows)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert float(CrossEntropy()(*rows)) == pytest.approx(-(y * np.log(p)).sum(1).mean(), rel=1e-12)
    assert float(BCESoftmax()(*rows)) == pytest.approx(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean(), rel=1e-12)


@pytest.mark.parametrize("loss", [CrossEntropy(), BCESoftmax()])
def test_a_mixed_target_and_a_mix_of_two_losses_are_the_same(loss: ClassifierLoss, rows: tuple[Tensor, Tensor]) -> None:
    """Both losses are linear in the target, so the paper's form and Zhang et al.'s code agree."""
    logits = rows[0]
    a, b = (F.one_hot(torch.arange(16) % n, 5).double() for n in (5, 3))
    mixed = loss(logits, 0.3 * a + 0.7 * b)
    torch.testing.assert_close(mixed, 0.3 * loss(logits, a) + 0.7 * loss(logits, b))


def test_with_two_classes_the_authors_loss_is_cross_entropy(rows: tuple[Tensor, Tensor]) -> None:
    logits, y = rows[0][:, :2], rows[1][:, :2] / rows[1][:, :2].sum(1, keepdim=True)
    torch.testing.assert_close(BCESoftmax()(logits, y), CrossEntropy()(logits, y))


# Augmentation


def test_crops_and_flips_are_those_of_padded_images() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 3, 6, 6), dtype=np.uint8)
    shifts, flips = rng.integers(0, 5, (20, 2)), rng.random(20) < 0.5
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    crops = np.stack([p[:, r : r + 6, c : c + 6] for p, (r, c) in zip(padded, shifts, strict=True)])
    want = np.stack([c[:, :, ::-1] if flip else c for c, flip in zip(crops, flips, strict=True)])
    got = shift_and_flip(torch.tensor(images), torch.tensor(shifts), 2, torch.tensor(flips))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(shift_and_flip(torch.tensor(images), torch.tensor(shifts), 2, None), crops)
    only_flips = shift_and_flip(torch.tensor(images), None, 0, torch.tensor(flips))
    np.testing.assert_array_equal(only_flips[flips], images[flips][:, :, :, ::-1])
    assert shift_and_flip(torch.tensor(images), None, 0, None).equal(torch.tensor(images))


@pytest.mark.parametrize("size", [1, 4, 5, 30])
def test_cutout_fills_a_square_around_its_centre(size: int) -> None:
    x, fill = torch.rand(9, 3, 8, 8), torch.tensor([0.1, 0.2, 0.3])
    centres = torch.tensor([[i % 8, 3 * i % 8] for i in range(9)])
    want = x.numpy().copy()
    for image, (row, column) in zip(want, centres.tolist(), strict=True):
        rows = slice(max(row - size // 2, 0), row - size // 2 + size)
        columns = slice(max(column - size // 2, 0), column - size // 2 + size)
        image[:, rows, columns] = fill.numpy()[:, None, None]
    np.testing.assert_array_equal(cutout(x, centres, size, fill), want)


# Split


@given(
    labels=st.lists(st.integers(0, 3), min_size=20, max_size=60),
    validation=st.integers(0, 10),
    seed=st.integers(0, 3),
)
def test_a_split_is_disjoint_and_complete(labels: list[int], validation: int, seed: int) -> None:
    config = ClassifierData(validation=validation, subset_seed=seed)
    train, held, _ = split(torch.tensor(labels), config)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert len(held) == validation
    assert train.equal(split(torch.tensor(labels), config).train)


def test_labelled_images_are_balanced_and_leave_validation_alone() -> None:
    labels = torch.randint(5, (500,), generator=torch.Generator().manual_seed(0))
    config = ClassifierData(validation=100, labels_per_class=20)
    train, held, _ = split(labels, config)
    assert labels[train].bincount().tolist() == [20] * 5
    assert not set(train.tolist()) & set(held.tolist())
    assert held.equal(split(labels, ClassifierData(validation=100)).validation), "whatever the number of labels"
    assert set(split(labels, replace(config, labels_per_class=10)).train.tolist()) < set(train.tolist())
    assert not train.equal(split(labels, replace(config, subset_seed=1)).train)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"validation": 50}, "leaves none"), ({"labels_per_class": 11}, "10 images of the smallest class")],
)
def test_a_split_of_too_few_images_is_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(UserError, match=words):
        split(torch.arange(50) % 5, ClassifierData(**options))


# Schedules


def test_learning_rates() -> None:
    step = ClassifierConfig(epochs=1200, milestones=(400, 800))
    assert [learning_rate(step, done) for done in (0, 399.99, 400, 799.9, 800, 1199)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    cosine = replace(step, lr_schedule="cosine")
    assert [learning_rate(cosine, done) for done in (0, 300, 600, 1200)] == pytest.approx(
        [0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0]
    )
    assert learning_rate(replace(step, lr_schedule="constant"), 1199) == 0.1
