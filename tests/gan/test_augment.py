"""DiffAugment as it is defined, pixel by pixel in float64, and what it does in a run."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmgan.gan.augment import DiffAugment, cut_out, translated
from mmgan.mixup import DiscriminatorMixup, Mixable, discriminator_loss, generator_loss


def by_hand(image: Tensor, u: list[float]) -> Tensor:
    """One image, float64 [C, H, H]."""
    side, (brightness, saturation, contrast, down, right, *middle) = image.shape[1], u
    x = image + brightness - 0.5
    x = (x - x.mean(0)) * 2 * saturation + x.mean(0)
    x = (x - x.mean()) * (contrast + 0.5) + x.mean()
    most = int(0.125 * side + 0.5)
    shifts = [min(int(v * (2 * most + 1)), 2 * most) - most for v in (down, right)]
    made = torch.zeros_like(x)
    for i in range(side):
        for j in range(side):
            p, q = i - shifts[0], j - shifts[1]
            if 0 <= p < side and 0 <= q < side:
                made[:, i, j] = x[:, p, q]
    cut = int(0.5 * side + 0.5)
    places = side + 1 - cut % 2
    corner = [min(int(v * places), places - 1) - cut // 2 for v in middle]
    for i in range(cut):
        for j in range(cut):
            p, q = (min(max(c + k, 0), side - 1) for c, k in zip(corner, (i, j), strict=True))
            made[:, p, q] = 0
    return made


@pytest.mark.parametrize("side", [8, 9, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_changed_as_defined(side: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(40, channels, side, side, dtype=torch.float64, generator=generator) * 2 - 1
    drawn = DiffAugment().draw(40, generator)
    want = torch.stack([by_hand(image, u.double().tolist()) for image, u in zip(images, drawn.u, strict=True)])
    torch.testing.assert_close(drawn(images), want, rtol=0, atol=1e-12)


def test_gradients_pass_through_it() -> None:
    drawn = DiffAugment().draw(3, torch.Generator().manual_seed(0))
    images = torch.rand(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(drawn, images)


def test_shifts_and_squares_are_uniform() -> None:
    u = torch.rand(6000, 2, generator=torch.Generator().manual_seed(0))
    corner = torch.zeros(6000, 1, 16, 16)
    corner[:, 0, 8, 8] = 1
    found = translated(corner, u[:, 0], u[:, 1])[:, 0].nonzero()[:, 1:] - 8
    for axis in range(2):
        counts = torch.bincount(found[:, axis] + 2, minlength=5)
        assert counts.shape == (5,)
        assert (counts - 1200).abs().max() < 150
    left = cut_out(torch.ones(6000, 1, 16, 16), u[:, 0], u[:, 1]).mean((1, 2, 3))
    assert left.min() == 0.75
    assert left.max() == 1 - 16 / 256


def test_real_rows_and_fakes_are_changed_before_the_mix() -> None:
    """R1 and R2 are gradients at the images as they were."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    network = Mixable(torch.nn.Sequential(net, torch.nn.Flatten(0)), ["0.1"]).double()
    real, fake = torch.rand(2, 6, 1, 8, 8, dtype=torch.float64) * 2 - 1
    plans = DiscriminatorMixup(layers=(0, 1)).draw(6)
    augment = DiffAugment().draw(12)
    got = discriminator_loss(network, real, fake, plans, r1_gamma=3.0, r2_gamma=5.0, augment=augment)
    changed = augment(torch.cat([real, fake]))
    want = discriminator_loss(network, changed[:6], changed[6:], plans)
    for name in ("real", "fake", "mix"):
        torch.testing.assert_close(got[name], want[name])
    for name, gamma, images, rows in (("r1", 3.0, real, slice(0, 6)), ("r2", 5.0, fake, slice(6, 12))):
        part = type(augment)(augment.kinds, augment.u[rows])
        squares = []
        for i in range(6):
            one = images[i : i + 1].clone().requires_grad_()
            single = type(augment)(augment.kinds, part.u[i : i + 1])
            (gradient,) = torch.autograd.grad(network(single(one)).sum(), one)
            squares.append(gradient.square().sum())
        torch.testing.assert_close(got[name], gamma / 2 * torch.stack(squares).mean())
    fakes = generator_loss(network, fake, augment=type(augment)(augment.kinds, augment.u[6:]))
    torch.testing.assert_close(fakes["generator"], generator_loss(network, changed[6:])["generator"])


def test_two_processes_have_the_draws_of_one() -> None:
    drawn = DiffAugment().draw(16, torch.Generator().manual_seed(0))
    parts = [drawn.share(rank, 2) for rank in range(2)]
    rows = torch.arange(16).reshape(2, 2, 4)  # section, process, row
    for rank, part in enumerate(parts):
        assert torch.equal(part.u, drawn.u[rows[:, rank].flatten()])
