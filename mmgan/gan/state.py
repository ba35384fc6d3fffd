"""A GAN in training: networks, optimisers and the generator's average, and how they are kept in a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.randomness import stream
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.mixup import DiscriminatorRule


def build(config: GANConfig, resolution: int, channels: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator for images of `resolution` pixels; raises UserError where there are none."""
    try:
        generator = config.generator.build(resolution, channels)
        discriminator = config.discriminator.build(resolution, channels)
    except ValueError as error:
        raise UserError(f"data.resolution: {error}") from error
    return generator, discriminator


@torch.no_grad()
def check_layers(config: GANConfig, rule: DiscriminatorRule, discriminator: nn.Module, images: Tensor) -> None:
    """Raise UserError for layers that the discriminator does not have, or at which `rule` cannot mix.

    `images` are four like those it takes, [4, C, R, R]: the rule is tried on them once at each of its layers.
    """
    depth, layers = getattr(discriminator, "depth", None), f"mixup.layers {list(rule.layers)}"
    if depth is None:
        name = type(config.discriminator).__name__
        raise UserError(f"discriminator {name}: to be mixed, its network must be Staged or Mixable")
    if max(rule.layers) >= depth:
        raise UserError(f"{layers}: the discriminator has layers 0 (its input) to {depth - 1}")
    discriminator.eval()
    for layer in rule.layers:
        plans = replace(rule, layers=(layer,)).draw(2, stream(config.seed, "checked layer", layer))
        try:
            discriminator(images, plans)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{layers}: {error}") from error
    discriminator.train()


class State:
    """What training changes. `generator` and `discriminator` are called; `networks` are the same without DDP."""

    def __init__(
        self, config: GANConfig, generator: nn.Module, discriminator: nn.Module, accelerator: Accelerator
    ) -> None:
        self.accelerator = accelerator
        self.networks = {"generator": generator, "discriminator": discriminator}
        for network in self.networks.values():
            network.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
        optimisers = [Adam(net.parameters(), config.lr, config.betas, fused=True) for net in self.networks.values()]
        self.generator, self.discriminator, self.adam_g, self.adam_d = accelerator.prepare(
            generator, discriminator, *optimisers
        )

    def set_lr(self, lr: float) -> None:
        """Set both learning rates."""
        for group in (*self.adam_g.param_groups, *self.adam_d.param_groups):
            group["lr"] = lr

    def sampler(self) -> nn.Module:
        """The generator to sample from: the average of its weights where one is kept."""
        return self.average.module if self.average else self.networks["generator"]

    @contextmanager
    def one_sampler(self) -> Iterator[nn.Module]:
        """The sampler as the main process has it: without this, batch norm's statistics are each process's own."""
        buffers = list(self.sampler().buffers())
        own = [buffer.clone() for buffer in buffers]
        for buffer in buffers:
            buffer.copy_(broadcast(buffer))
        yield self.sampler()
        for buffer, values in zip(buffers, own, strict=True):
            buffer.copy_(values)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The weights of a checkpoint."""
        return {name: network.state_dict() for name, network in self._kept().items()}

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint."""
        scaler = self.accelerator.scaler
        parts = {"adam_g": self.adam_g, "adam_d": self.adam_d} | ({"scaler": scaler} if scaler else {})
        return {name: part.state_dict() for name, part in parts.items()}

    def start_average(self, source: Checkpoint) -> None:
        """Start from the average of another run, whose networks these are, where both keep one."""
        if self.average and "ema" in source.weights:
            source.restore("ema", self.average.module)
            self.average.n_averaged.fill_(1)

    def restore(self, saved: Checkpoint) -> None:
        """Go back to a checkpoint; raises UserError when it was made of other networks."""
        for name, network in self._kept().items():
            saved.restore(name, network)
        if self.average:
            self.average.n_averaged.fill_(saved.step)
        self.adam_g.load_state_dict(saved.state["adam_g"])
        self.adam_d.load_state_dict(saved.state["adam_d"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])

    def _kept(self) -> dict[str, nn.Module]:
        return self.networks | ({"ema": self.average.module} if self.average else {})
