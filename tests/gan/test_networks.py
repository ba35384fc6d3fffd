"""The ResNets of Miyato et al., against a second build of the same networks in plain steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan.gan.networks._fused import conv_pool, upsample_conv
from mmgan.gan.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from mmgan.gan.networks.resnet import Discriminator, Generator, ResNetDiscriminator, ResNetGenerator
from mmgan.mixup import DiscriminatorMixup, Plan, Plans

SIZES = [(8, 1), (16, 1), (28, 1), (32, 3), (48, 3), (64, 3)]


def generator_by_hand(net: Generator, z: Tensor) -> Tensor:
    """Table 4 (left) of the paper, step by step: upsampling before its convolutions, shortcuts included."""
    weights = iter(net.parameters())

    def norm(h: Tensor) -> Tensor:
        gamma, beta = next(weights), next(weights)
        return F.relu(F.batch_norm(h, None, None, gamma, beta, training=True, eps=2e-5))

    def conv(h: Tensor, padding: int) -> Tensor:
        return F.conv2d(h, next(weights), next(weights), padding=padding)

    h = F.linear(z, next(weights), next(weights)).reshape(len(z), -1, net.bottom, net.bottom)
    for _ in net.blocks:
        (g1, b1), (g2, b2) = [(next(weights), next(weights)) for _ in range(2)]
        convs = [[next(weights), next(weights)] for _ in range(3)]
        r = F.relu(F.batch_norm(h, None, None, g1, b1, training=True, eps=2e-5))
        r = F.conv2d(F.interpolate(r, scale_factor=2, mode="nearest"), *convs[0], padding=1)
        r = F.relu(F.batch_norm(r, None, None, g2, b2, training=True, eps=2e-5))
        r = F.conv2d(r, *convs[1], padding=1)
        h = r + F.conv2d(F.interpolate(h, scale_factor=2, mode="nearest"), *convs[2])
    return conv(norm(h), 1).tanh()


def discriminator_by_hand(net: Discriminator, x: Tensor) -> Tensor:
    """Table 4 (right), with every weight divided by its largest singular value under the network's own u and v."""

    def weight(layer: nn.Module) -> Tensor:
        norm = layer.get_submodule("parametrizations.weight.0.norm")
        w = layer.get_submodule("parametrizations.weight").original
        return w / torch.einsum("o,oi,i->", norm._u, w.flatten(1), norm._v)

    def conv(layer: nn.Module, h: Tensor, padding: int = 1) -> Tensor:
        return F.conv2d(h, weight(layer), layer.bias, padding=padding)

    h, first = x, True
    *blocks, head = net.stages
    for block in blocks:
        down = first or hasattr(block, "shortcut")
        r = conv(block.conv2, F.relu(conv(block.conv1, h if first else F.relu(h))))
        if down:
            r = F.avg_pool2d(r, 2)
            shortcut: nn.Module = block.shortcut  # type: ignore[assignment]
            h = conv(shortcut, F.avg_pool2d(h, 2), 0) if first else F.avg_pool2d(conv(shortcut, h, 0), 2)
        h, first = h + r, False
    return F.linear(F.relu(h).sum((2, 3)), weight(head.linear)).squeeze(1)


@pytest.mark.parametrize(("resolution", "channels"), SIZES)
def test_networks_compute_what_the_paper_s_table_says(resolution: int, channels: int) -> None:
    torch.manual_seed(0)
    G = Generator(resolution, channels, ResNetGenerator(z_dim=6, width=8)).double()
    D = Discriminator(resolution, channels, ResNetDiscriminator(width=8)).double()
    fake = G(torch.randn(4, 6, dtype=torch.float64))
    assert fake.shape == (4, channels, resolution, resolution)
    z = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(G(z), generator_by_hand(G, z))
    D.eval()
    torch.testing.assert_close(D(fake), discriminator_by_hand(D, fake))


@pytest.mark.parametrize("resolution", [32, 48, 128])
def test_the_networks_of_imagenet_compute_what_its_table_says(resolution: int) -> None:
    """Table 6: widths double as maps halve, from 64 to 1024 at 128x128, where the first generator block keeps 1024."""
    torch.manual_seed(0)
    G = Generator(resolution, 3, ResNetGenerator(z_dim=6, width=2, table="imagenet")).double()
    D = Discriminator(resolution, 3, ResNetDiscriminator(width=2, table="imagenet")).double()
    z = torch.randn(4, 6, dtype=torch.float64)
    fake = G(z)
    torch.testing.assert_close(fake, generator_by_hand(G, z))
    D(fake)
    torch.testing.assert_close(D.eval()(fake), discriminator_by_hand(D, fake))
    widths = [block.conv2.weight.shape[:2] for block in (*G.blocks, *D.stages[:-1])]
    if resolution == 128:
        up, down = [32, 16, 8, 4, 2], [2, 4, 8, 16, 32, 32]
        assert widths == [*((w, w) for w in up), (2, 2), *widening(down[:-1]), (32, 32)]
        assert G.linear.weight.shape[0] == 4 * 4 * 32


def widening(widths: list[int]) -> list[tuple[int, int]]:
    """The shape of the second convolution of blocks that halve, [out, in]: it is the one that widens."""
    return [(after, before) for before, after in pairwise(widths)]


def test_cifar_networks_have_the_paper_s_size() -> None:
    def conv(i: int, o: int, k: int) -> int:
        return i * o * k * k + o

    up = 2 * 2 * 256 + 2 * conv(256, 256, 3) + conv(256, 256, 1)
    expected = (128 + 1) * 16 * 256 + 3 * up + 2 * 256 + conv(256, 3, 3)
    assert sum(p.numel() for p in Generator(32, 3, ResNetGenerator()).parameters()) == expected == 4_276_739
    first = conv(3, 128, 3) + conv(128, 128, 3) + conv(3, 128, 1)
    down = 2 * conv(128, 128, 3) + conv(128, 128, 1)
    expected = first + down + 2 * 2 * conv(128, 128, 3) + 128
    assert sum(p.numel() for p in Discriminator(32, 3, ResNetDiscriminator()).parameters()) == expected == 1_053_824


def test_layers_0_1_2_are_input_h1_h2() -> None:
    D = Discriminator(32, 3, ResNetDiscriminator(width=8))
    shapes = [tuple(D(torch.zeros(1, 3, 32, 32), stop=k).shape[1:]) for k in range(D.depth + 1)]
    assert shapes == [(3, 32, 32), (8, 16, 16), (8, 8, 8), (8, 8, 8), (8, 8, 8), ()]


@pytest.mark.parametrize(("gain", "shortcut_gain"), [(math.sqrt(2), 1.0), (1.0, math.sqrt(2))])
def test_glorot_gains(gain: float, shortcut_gain: float) -> None:
    """A uniform Glorot weight is bounded by gain * sqrt(6 / (fan in + fan out)), and a large one comes near it."""
    G = Generator(32, 3, ResNetGenerator(gain=gain, shortcut_gain=shortcut_gain))
    D = Discriminator(32, 3, ResNetDiscriminator(gain=gain, shortcut_gain=shortcut_gain))
    for key, weight in (*G.named_parameters(), *D.named_parameters()):
        if weight.ndim == 4:
            wanted = shortcut_gain if "shortcut" in key else 1.0 if key.startswith("image") else gain
            bound = wanted * math.sqrt(6 / (weight[0, 0].numel() * sum(weight.shape[:2])))
            assert 0.98 * bound < float(weight.detach().abs().max()) <= bound, key
        if key.endswith("bias") and "norm" not in key:
            assert not weight.any(), key


def normalised(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in net.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            yield name, layer


@pytest.mark.parametrize("cover", ["all", "main", "none"])
def test_spectral_norm_is_one_on_every_weight_it_covers(cover: str) -> None:
    torch.manual_seed(0)
    D = Discriminator(32, 3, ResNetDiscriminator(width=16, spectral_norm=cover))
    for _ in range(150):
        D(torch.zeros(1, 3, 32, 32))
    D.eval()
    seen = []
    for name, layer in normalised(D):
        sigma = float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2))
        covered = cover == "all" or (cover == "main" and "shortcut" not in name)
        assert (abs(sigma - 1) < 1e-2) == covered, (name, sigma)
        seen.append(name)
    assert len(seen) == 11


def twins() -> tuple[Discriminator, Discriminator]:
    """Two discriminators with the same weights and the same state of their spectral norms."""
    torch.manual_seed(0)
    D, other = (Discriminator(16, 1, ResNetDiscriminator(width=8)) for _ in range(2))
    other.load_state_dict(D.state_dict())
    return D, other


def test_one_pass_is_one_power_iteration_whatever_is_mixed() -> None:
    D, other = twins()
    x = torch.randn(8, 1, 16, 16)
    D(x)
    other(x, DiscriminatorMixup(layers=(2,)).draw(4))
    for (key, a), b in zip(D.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_autocast_leaves_the_power_iteration_in_full_precision() -> None:
    D, other = twins()
    x = torch.randn(8, 1, 16, 16)
    D(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert other(x).dtype == torch.bfloat16
    buffers = [dict(net.named_buffers()) for net in (D, other)]
    assert all(torch.equal(buffers[0][key], buffers[1][key]) for key in buffers[0])


@pytest.mark.parametrize("layer", range(4))
def test_kept_rows_are_as_without_a_plan(layer: int) -> None:
    D = Discriminator(16, 1, ResNetDiscriminator(width=8)).double().eval()
    x = torch.randn(6, 1, 16, 16, dtype=torch.float64)
    plan = Plan(layer, torch.tensor([0, 1]), torch.tensor([3, 4]), torch.tensor(0.3))
    kept = D(x, Plans((plan,), rows=6, keep=True))
    torch.testing.assert_close(kept[:6], D(x))
    torch.testing.assert_close(kept[6:], D(x, Plans((plan,), rows=6)))


def test_variants_of_the_official_code() -> None:
    G = Generator(16, 1, ResNetGenerator(width=8, shortcut_conv=False))
    assert not any("shortcut" in key for key, _ in G.named_parameters())
    assert G(torch.randn(2, 128)).shape == (2, 1, 16, 16)
    D, mean = (Discriminator(16, 1, ResNetDiscriminator(width=8, pool=pool)) for pool in ("sum", "mean"))
    mean.load_state_dict(D.state_dict())
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(D.eval()(x), mean.eval()(x) * 64)


@pytest.mark.parametrize("inputs", [1, 3])
def test_fused_resampling_is_exact(inputs: int) -> None:
    torch.manual_seed(0)
    x, w, b = torch.randn(2, inputs, 6, 8), torch.randn(5, inputs, 3, 3), torch.randn(5)
    x, w, b = (t.double().requires_grad_() for t in (x, w, b))
    pairs = [
        (conv_pool(x, w, b), F.avg_pool2d(F.conv2d(x, w, b, padding=1), 2)),
        (upsample_conv(x, w, b), F.conv2d(F.interpolate(x, scale_factor=2), w, b, padding=1)),
    ]
    for fused, two_steps in pairs:
        torch.testing.assert_close(fused, two_steps, atol=1e-13, rtol=1e-13)
        direction = torch.randn_like(fused)
        ours = torch.autograd.grad(fused, (x, w, b), direction)
        theirs = torch.autograd.grad(two_steps, (x, w, b), direction)
        for a, c in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, c, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("resolution", [7, 30, 36, 256])
def test_sizes_without_a_network_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match=f"no ResNet for {resolution} pixels"):
        Discriminator(resolution, 1, ResNetDiscriminator())
    with pytest.raises(ValueError, match=f"no ResNet for {resolution} pixels"):
        Generator(resolution, 1, ResNetGenerator())


def test_the_sizes_that_a_refusal_names_are_those_there_are() -> None:
    built = []
    for resolution in range(1, 230):
        try:
            Generator(resolution, 1, ResNetGenerator(z_dim=1, width=2))
            Discriminator(resolution, 1, ResNetDiscriminator(width=2))
            built.append(resolution)
        except ValueError as error:
            refusal = str(error)
    named = refusal.partition("use one of ")[2].partition(";")[0]
    assert [int(size) for size in named.split(", ")] == built


# DCGAN


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (16, 1), (32, 3), (64, 3)])
def test_a_dcgan_is_the_convolutions_of_its_paper(resolution: int, channels: int) -> None:
    """Step by step from the weights in their order: 4x4 kernels, stride 2, batch norm in the generator alone."""
    torch.manual_seed(0)
    G = DCGANGenerator(z_dim=5, width=3).build(resolution, channels).double()
    D = DCGANDiscriminator(width=3, spectral_norm=False).build(resolution, channels).double()
    z = torch.randn(4, 5, dtype=torch.float64)
    weights = iter(list(G.parameters()))
    h = F.conv_transpose2d(z[:, :, None, None], next(weights))
    for _ in range(int(math.log2(resolution // 8))):
        h = F.relu(F.batch_norm(h, None, None, next(weights), next(weights), training=True))
        h = F.conv_transpose2d(h, next(weights), stride=2, padding=1)
    h = F.relu(F.batch_norm(h, None, None, next(weights), next(weights), training=True))
    images = F.conv_transpose2d(h, next(weights), next(weights), stride=2, padding=1).tanh()
    assert images.shape == (4, channels, resolution, resolution)
    torch.testing.assert_close(G(z), images)
    weights = iter(list(D.parameters()))
    h = images
    for _ in range(int(math.log2(resolution // 4))):
        h = F.leaky_relu(F.conv2d(h, next(weights), next(weights), stride=2, padding=1), 0.2)
    torch.testing.assert_close(D(images), F.conv2d(h, next(weights)).flatten())
    assert next(weights, None) is None
    stds = [float(p.detach().std()) for p in (*G.parameters(), *D.parameters()) if p.ndim == 4 and p.numel() > 200]
    assert stds == pytest.approx([0.02] * len(stds), rel=0.25)


def test_a_dcgan_mixes_at_its_named_layers() -> None:
    D = DCGANDiscriminator(width=4).build(16, 1).double().eval()
    x = torch.randn(6, 1, 16, 16, dtype=torch.float64)
    plan = Plan(1, torch.tensor([0, 1]), torch.tensor([3, 4]), torch.tensor(0.3))
    h = D.network.down1(x)
    by_hand = D.network[1:](0.3 * h[:2] + 0.7 * h[3:5])
    torch.testing.assert_close(D(x, Plans((plan,), rows=6)), by_hand)
    assert D.depth == 3


def test_a_dcgan_s_weights_are_spectrally_normalised() -> None:
    torch.manual_seed(0)
    D = DCGANDiscriminator(width=4).build(8, 1)
    for _ in range(100):
        D(torch.zeros(1, 1, 8, 8))
    for _, layer in normalised(D.eval()):
        assert abs(float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) - 1) < 1e-3


@pytest.mark.parametrize("resolution", [4, 12, 28, 48])
def test_sizes_without_a_dcgan_are_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match=f"no DCGAN for {resolution} pixels"):
        DCGANGenerator().build(resolution, 1)
