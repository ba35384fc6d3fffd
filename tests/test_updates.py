"""What the loop asks of its updates, and what they do, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mmgan.engine import cli
from mmgan.gan.config import GANConfig
from mmgan.gan.networks import build
from mmgan.gan.train import train
from mmgan.gan.updates import Updates
from mmgan.mixup import DiscriminatorMixup
from tests.conftest import digits


def updates(tmp_path: Path, *options: str) -> Updates:
    AcceleratorState._reset_state(reset_partial_state=True)
    config = cli.parse(GANConfig, "", {"mixup": DiscriminatorMixup}, [*digits(tmp_path), *options]).config
    images = torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8)
    return Updates(config, *build(config, 8, 1), images, Accelerator(cpu=True))


def test_the_average_of_the_generator_is_what_ema_says(tmp_path: Path) -> None:
    one = updates(tmp_path, "--ema", "0.75", "--lr", "0.1")
    averages: list[torch.Tensor] = []
    for number in range(3):
        one.generator(number)
        now = [p.detach().clone() for p in one.networks["generator"].parameters()]
        averages = [0.75 * a + 0.25 * p for a, p in zip(averages, now, strict=True)] if averages else now
    for average, kept in zip(averages, one.sampler().parameters(), strict=True):
        torch.testing.assert_close(kept.detach(), average)
    live = dict(one.networks["generator"].named_buffers())
    assert all(torch.equal(live[name], buffer) for name, buffer in one.sampler().named_buffers())


def test_a_discriminator_update_is_a_step_of_adam_down_its_terms(tmp_path: Path) -> None:
    one, fake = updates(tmp_path, "--lr", "1e-3", "--betas", "[0,0.9]"), torch.randn(8, 1, 8, 8)
    before = {name: p.detach().clone() for name, p in one.networks["discriminator"].named_parameters()}
    one.discriminator(0, fake)
    for name, p in one.networks["discriminator"].named_parameters():
        assert p.grad is not None
        step = 1e-3 * p.grad / (p.grad.abs() + 1e-8)  # Adam's first, with beta1 = 0
        torch.testing.assert_close(p.detach(), before[name] - step, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "rates"), [("linear", [0.5, 0.4, 0.3, 0.2, 0.1]), ("constant", [0.5, 0.5, 0.5, 0.5, 0.5])]
)
def test_the_loop_s_numbers_and_rates(
    schedule: str, rates: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linear decay reaches 0 after the last step; every discriminator update has a number, and a batch, of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    numbers, asked = [], []
    discriminator, set_lr = Updates.discriminator, Updates.set_lr

    def spy_number(self: Updates, number: int, fake: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        numbers.append(number)
        return discriminator(self, number, fake)

    def spy_lr(self: Updates, lr: float) -> None:
        asked.append(lr)
        set_lr(self, lr)
        assert {group["lr"] for adam in (self.adam_g, self.adam_d) for group in adam.param_groups} == {lr}

    monkeypatch.setattr(Updates, "discriminator", spy_number)
    monkeypatch.setattr(Updates, "set_lr", spy_lr)
    options = ["--steps", "5", "--n_dis", "3", "--lr", "0.5", "--lr_schedule", schedule, "--loss", "hinge"]
    arguments = cli.parse(GANConfig, "", {"mixup": DiscriminatorMixup}, [*digits(tmp_path / "run"), *options])
    train(arguments.config, arguments.output, arguments.yaml)
    assert asked == pytest.approx(rates)
    assert numbers == list(range(15))
