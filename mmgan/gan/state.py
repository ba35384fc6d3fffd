"""A GAN in training: networks, optimisers and the generator's average, and how a checkpoint saves them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import nn
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from mmgan.engine.checkpoint import Checkpoint
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.inputs import Inputs
from mmgan.gan.schedule import Rates


def build(config: GANConfig, resolution: int, channels: int, classes: int = 0) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator for images of `resolution` pixels; raises UserError if they cannot be built."""
    given = {"classes": classes} if classes else {}
    for one in (config.generator, config.discriminator):
        if classes and "classes" not in inspect.signature(one.build).parameters:
            raise UserError(
                f"conditional: {type(one).__name__} has no conditional networks, since its build takes no classes"
            )
    try:
        generator = config.generator.build(resolution, channels, **given)
        return generator, config.discriminator.build(resolution, channels, **given)
    except ValueError as error:
        raise UserError(f"data.resolution: {error}") from error


STANDING = (16, 64)
"""Batches, and latents per batch, used to compute the batch norm statistics of the generator's average."""


class State:
    """Everything that training changes. Call `generator` and `discriminator`; `networks` holds the same without DDP."""

    def __init__(
        self,
        config: GANConfig,
        generator: nn.Module,
        discriminator: nn.Module,
        accelerator: Accelerator,
        inputs: Inputs | None = None,
    ) -> None:
        """`inputs`: the generator's inputs; None: latents only."""
        self.accelerator = accelerator
        self.inputs = inputs or Inputs(config.generator.z_dim)
        self.networks = {"generator": generator, "discriminator": discriminator}
        for network in self.networks.values():
            network.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average, self.decay = AveragedModel(generator) if config.ema else None, config.ema or 0.0
        self.standing = self.inputs.standing(config.seed, *STANDING)
        optimisers = [
            Adam(net.parameters(), config.lr, config.betas, fused=not any(p.is_complex() for p in net.parameters()))
            for net in self.networks.values()
        ]
        self.generator, self.discriminator, self.adam_g, self.adam_d = accelerator.prepare(
            generator, discriminator, *optimisers
        )

    @torch.no_grad()
    def learn(self) -> None:
        """Move the average, if there is one, towards the generator's weights (at first, copy them); copy its buffers.

        `AveragedModel.update_parameters` does the same, but moves its counter to the device, which makes a GPU wait.
        """
        if self.average is None:
            return
        average, generator = self.average.module, self.networks["generator"]
        move = get_ema_multi_avg_fn(self.decay if self.average.n_averaged else 0.0)
        move(list(average.parameters()), list(generator.parameters()), 0)
        for own, its in zip(average.buffers(), generator.buffers(), strict=True):
            own.copy_(its)
        self.average.n_averaged += 1

    def set_rates(self, now: Rates) -> None:
        """Set the rates of the optimisers and the average."""
        for group in (*self.adam_g.param_groups, *self.adam_d.param_groups):
            group["lr"], group["betas"] = now.lr, now.betas
        if now.ema is not None:
            self.decay = now.ema

    def sampler(self) -> nn.Module:
        """The generator to sample from: the average of its weights, if there is one."""
        return self.average.module if self.average else self.networks["generator"]

    def refresh(self) -> None:
        """Recompute the average's batch norm statistics for its weights: "standing statistics".

        After each step, the average has those of the generator instead. Standing statistics come from fixed inputs, so
        they do not depend on when, or on how many processes, they are computed (Brock et al. 2019, appendix B).
        """
        if self.average:
            update_bn(self.standing, self.average.module, self.accelerator.device)

    @contextmanager
    def one_sampler(self) -> Iterator[nn.Module]:
        """The sampler with the main process's batch norm statistics, which would otherwise differ between processes."""
        buffers = list(self.sampler().buffers())
        own = [buffer.clone() for buffer in buffers]
        for buffer in buffers:
            buffer.copy_(broadcast(buffer))
        yield self.sampler()
        for buffer, values in zip(buffers, own, strict=True):
            buffer.copy_(values)

    @property
    def kept(self) -> dict[str, nn.Module]:
        """The networks that a checkpoint saves."""
        return self.networks | ({"ema": self.average.module} if self.average else {})

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint."""
        scaler = self.accelerator.scaler
        parts = {"adam_g": self.adam_g, "adam_d": self.adam_d} | ({"scaler": scaler} if scaler else {})
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        return state | {"processes": self.accelerator.num_processes}

    def start_average(self, source: Checkpoint) -> None:
        """Start from the average of the run that the weights come from, if both runs have one."""
        if self.average and "ema" in source.weights:
            source.restore("ema", self.average.module)
            self.average.n_averaged.fill_(1)

    def restore(self, saved: Checkpoint) -> None:
        """Restore a checkpoint; raises UserError if it holds other networks."""
        for name, network in self.kept.items():
            saved.restore(name, network)
        if self.average:
            self.average.n_averaged.fill_(saved.step)
        for name, adam in (("adam_g", self.adam_g), ("adam_d", self.adam_d)):
            saved.restore_optimiser(name, adam, {"step", "exp_avg", "exp_avg_sq"})
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(saved.fact("scaler", dict))
