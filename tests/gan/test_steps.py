"""What the loop asks of its steps, and what they do, by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mmgan.engine import cli
from mmgan.gan.config import GANConfig
from mmgan.gan.schedule import Rates, rates
from mmgan.gan.state import State, build
from mmgan.gan.steps import Steps
from mmgan.gan.train import train
from tests.conftest import digits


def steps(tmp_path: Path, *options: str) -> Steps:
    AcceleratorState._reset_state(reset_partial_state=True)
    config = cli.parse(GANConfig, "", [*digits(tmp_path), *options]).config
    torch.manual_seed(0)
    images = torch.randint(256, (32, 1, 8, 8), dtype=torch.uint8)
    return Steps(config, State(config, *build(config, 8, 1), Accelerator(cpu=True)), images)


def test_the_average_of_the_generator_is_what_ema_says(tmp_path: Path) -> None:
    one = steps(tmp_path, "--ema", "0.75", "--lr", "0.1")
    averages: list[torch.Tensor] = []
    for number in range(3):
        one.generator(number)
        now = [p.detach().clone() for p in one.gan.networks["generator"].parameters()]
        averages = [0.75 * a + 0.25 * p for a, p in zip(averages, now, strict=True)] if averages else now
    for average, kept in zip(averages, one.gan.sampler().parameters(), strict=True):
        torch.testing.assert_close(kept.detach(), average)


def test_a_discriminator_update_is_a_step_of_adam_down_its_terms(tmp_path: Path) -> None:
    one, fake = steps(tmp_path, "--lr", "1e-3", "--betas", "[0,0.9]"), torch.randn(8, 1, 8, 8)
    before = {name: p.detach().clone() for name, p in one.gan.networks["discriminator"].named_parameters()}
    one.discriminator(0, fake)
    for name, p in one.gan.networks["discriminator"].named_parameters():
        assert p.grad is not None
        step = 1e-3 * p.grad / (p.grad.abs() + 1e-8)  # Adam's first, with beta1 = 0
        torch.testing.assert_close(p.detach(), before[name] - step, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "rates"), [("linear", [0.5, 0.4, 0.3, 0.2, 0.1]), ("constant", [0.5, 0.5, 0.5, 0.5, 0.5])]
)
def test_the_loop_s_numbers_and_rates(
    schedule: str, rates: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linear decay reaches 0 after the last step; every step has a number, and so a batch, of its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    numbers: list[int] = []
    generators: list[int] = []
    asked: list[float] = []
    discriminator, generator, set_rates = Steps.discriminator, Steps.generator, State.set_rates

    def spy_discriminator(self: Steps, number: int, fake: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        numbers.append(number)
        return discriminator(self, number, fake)

    def spy_generator(self: Steps, number: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        generators.append(number)
        return generator(self, number)

    def spy_rates(self: State, now: Rates) -> None:
        asked.append(now.lr)
        set_rates(self, now)
        assert {group["lr"] for adam in (self.adam_g, self.adam_d) for group in adam.param_groups} == {now.lr}

    monkeypatch.setattr(Steps, "discriminator", spy_discriminator)
    monkeypatch.setattr(Steps, "generator", spy_generator)
    monkeypatch.setattr(State, "set_rates", spy_rates)
    options = ["--steps", "5", "--n_dis", "3", "--lr", "0.5", "--lr_schedule", schedule, "--loss", "Hinge"]
    arguments = cli.parse(GANConfig, "", [*digits(tmp_path / "run"), *options])
    train(arguments.config, arguments.output)
    assert asked == pytest.approx(rates)
    assert (numbers, generators) == (list(range(15)), list(range(5)))


def test_burn_in_is_the_schedule_of_r3gan(tmp_path: Path) -> None:
    """Base + (1 - decay) (final - base), decay = (1 + cos(pi images / all)) / 2; the average's half-life from 0."""
    options = ["--lr_schedule", "constant", "--burn_in", "BurnIn", "--burn_in.images", "80", "--r1_gamma", "0.05"]
    options += ["--lr", "2e-4", "--betas", "[0,0.9]", "--ema", "0.8", "--n_dis", "1"]
    one = steps(tmp_path, *options)
    half_life = math.log(0.5) / math.log(0.8)
    r1 = []
    for step in range(1, 13):
        now = rates(one.config, step)
        seen = min(8 * (step - 1), 80)
        decay = 0.5 * (1 + np.cos(np.pi * seen / 80))
        wanted = {name: a + (1 - decay) * (b - a) for name, a, b in SCHEDULED}
        assert (now.lr, now.betas[1], now.r1_gamma) == pytest.approx(tuple(wanted.values()))
        assert (now.betas[0], now.r2_gamma) == (0, 0)
        assert now.ema == pytest.approx(0.5 ** (1 / max((1 - decay) * half_life, 1e-8)), abs=1e-12)
        one.gan.set_rates(now)
        averaged = [p.clone() for p in one.gan.sampler().parameters()]
        terms = one.both(step)
        r1.append(terms["r1"].item() / now.r1_gamma)
        assert {group["betas"] for group in one.gan.adam_d.param_groups} == {now.betas}
        decayed = now.ema if step > 1 else 0  # the first average is the weights themselves
        assert decayed is not None
        for before, p, average in zip(
            averaged, one.gan.networks["generator"].parameters(), one.gan.sampler().parameters(), strict=True
        ):
            torch.testing.assert_close(average, decayed * before + (1 - decayed) * p, atol=1e-6, rtol=1e-5)
    assert max(r1) < 10 * min(r1), "R1 goes down with its gamma alone"
    constant = steps(tmp_path, "--lr_schedule", "constant", "--lr", "2e-4", "--r2_gamma", "3", "--ema", "null")
    assert rates(constant.config, 7) == (2e-4, (0, 0.9), 0, 3, None)


SCHEDULED = [("lr", 2e-4, 5e-5), ("beta2", 0.9, 0.99), ("gamma", 0.05, 0.005)]
"""As R3GAN's CIFAR-10 preset has them, from and to."""


def test_a_generator_step_climbs_the_mixup_term_of_draws_of_its_own(tmp_path: Path) -> None:
    """Eq. 10's generator: minus the mixup term, on real images and plans that the discriminator's step does not see."""
    one = steps(tmp_path, "--mixup.layers", "[1]")
    before = [p.detach().clone() for p in one.gan.networks["discriminator"].parameters()]
    terms, _ = one.generator(3)
    assert terms.keys() == {"generator", "generator_mix"}
    assert terms["generator_mix"] < 0
    after = one.gan.networks["discriminator"].parameters()
    assert all(torch.equal(a, b) and b.requires_grad for a, b in zip(before, after, strict=True))
    mine, theirs = one.real(3, 8, "g-"), one.real(3, 8)
    assert not torch.equal(mine.round(decimals=1), theirs.round(decimals=1))
