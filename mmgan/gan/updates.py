"""The two updates of a GAN, and all that they change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmgan.data import Feed, fingerprint, to_network
from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.randomness import Draws, stream
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig
from mmgan.gan.diagnose import diagnose
from mmgan.gan.losses import LOSSES
from mmgan.gan.objective import discriminator_terms, generator_loss


class Updates:
    """Networks and optimisers, prepared by Accelerate, and how one update changes them.

    Every draw is a function of the seed and the number of the update; batches are the global ones' shares.
    """

    def __init__(
        self,
        config: GANConfig,
        generator: nn.Module,
        discriminator: nn.Module,
        images: Tensor,
        accelerator: Accelerator,
    ) -> None:
        """`images`: uint8 [N, C, R, R], the real data."""
        self.config, self.accelerator = config, accelerator
        self.rank, self.world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
        self.draws = Draws(config.seed, self.rank, self.world, device)
        self.data = fingerprint(images)
        self.images, self.feed = images, Feed(images, device)
        self.loss = LOSSES[config.loss]
        self.networks = {"generator": generator, "discriminator": discriminator}
        for network in self.networks.values():
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(config.ema)) if config.ema else None
        optimisers = [Adam(net.parameters(), config.lr, config.betas, fused=True) for net in self.networks.values()]
        self.G, self.D, self.adam_g, self.adam_d = accelerator.prepare(generator, discriminator, *optimisers)

    def discriminator(self, number: int, fake: Tensor | None = None) -> dict[str, Tensor]:
        """Discriminator update `number`: one step on Eq. 11; its terms. `fake` instead of fresh fakes where given."""
        config, size = self.config, self.config.batch_size
        self._seed("discriminator", number)
        if fake is None:
            with torch.no_grad():
                fake = self.G(self.draws.normal("d-latents", number, size, config.generator.z_dim))
        plans = config.mixup.draw(size, stream(config.seed, "plan", number)) if config.mixup else ()
        plans = tuple(plan.shard(self.rank, self.world, size).to(fake.device) for plan in plans)
        real = self.real(number)
        terms = discriminator_terms(self.D, real, fake, self.loss, config.mixup, plans, config.gradient_penalty)
        self.adam_d.zero_grad()
        self.accelerator.backward(torch.stack(list(terms.values())).sum())
        self.adam_d.step()
        return terms

    def generator(self, number: int) -> tuple[Tensor, Tensor]:
        """Generator update `number`: its loss, and the fakes it was made on.

        The discriminator's weights stay as they are; its spectral norm goes on with its power iteration.
        """
        size, weights = self.config.generator_batch, self.networks["discriminator"]
        self._seed("generator", number)
        fake = self.G(self.draws.normal("g-latents", number, size, self.config.generator.z_dim))
        weights.requires_grad_(False)
        with self.accelerator.no_sync(self.D):  # without gradients of its own, DDP has nothing to wait for
            loss = generator_loss(self.D, fake, self.loss, self.config.saturating)
        weights.requires_grad_(True)
        self.adam_g.zero_grad()
        self.accelerator.backward(loss)
        self.adam_g.step()
        if self.ema:
            self.ema.update_parameters(self.networks["generator"])
        return loss, fake.detach()

    def _seed(self, purpose: str, number: int) -> None:
        """Make what networks draw themselves (dropout) a function of the seed and the update, too."""
        torch.manual_seed(stream(self.config.seed, f"{purpose}/{self.rank}", number).initial_seed())

    def real(self, number: int) -> Tensor:
        """Real batch `number`: the share of this process, in [-1, 1]."""
        size, data = self.config.batch_size, self.config.data
        x = self.feed(self.draws.rows(number, size, len(self.images)))
        flips = self.draws.uniform("flip", number, size) < 0.5 if data.flip else None
        noise = self.draws.uniform("noise", number, size, *self.images.shape[1:]) if data.dequantise else None
        return to_network(x, flips, noise)

    def set_lr(self, lr: float) -> None:
        """Set both learning rates."""
        for group in (*self.adam_g.param_groups, *self.adam_d.param_groups):
            group["lr"] = lr

    def sampler(self) -> nn.Module:
        """The generator to sample from: the average of its weights where one is kept."""
        return self.ema.module if self.ema else self.networks["generator"]

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

    def diagnose(self, fakes: Tensor, held_out: Tensor | None) -> tuple[dict[str, float], dict[str, list[float]]]:
        """Diagnostics of the discriminator on `fakes` and as many training images, as mmgan/gan/diagnose.py has them.

        `fakes` and `held_out`, real images not trained on, are uint8 [N, C, R, R].
        """
        rows = torch.randperm(len(self.images), generator=stream(self.config.seed, "diagnosed", 0))[: len(fakes)]
        device = self.accelerator.device
        fresh = None if held_out is None else to_network(held_out.to(device))
        fakes = fakes[: len(rows)]
        return diagnose(self.networks["discriminator"], to_network(self.feed(rows)), to_network(fakes), fresh)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The weights of a checkpoint."""
        return {name: network.state_dict() for name, network in self._kept().items()}

    def _kept(self) -> dict[str, nn.Module]:
        return self.networks | ({"ema": self.ema.module} if self.ema else {})

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint."""
        scaler = self.accelerator.scaler
        parts = {"adam_g": self.adam_g, "adam_d": self.adam_d} | ({"scaler": scaler} if scaler else {})
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        return state | self.facts()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of the networks and their data."""
        return {"resolution": self.images.shape[-1], "channels": self.images.shape[1], "data": self.data}

    def restore(self, saved: Checkpoint) -> None:
        """Go back to a checkpoint; raises UserError when it was made of other data or other networks."""
        if saved.state["data"] != self.data:
            raise UserError(f"{saved.path} was trained on other images than data.name and data.root give now")
        for name, network in self._kept().items():
            saved.restore(name, network)
        if self.ema:
            self.ema.n_averaged.fill_(saved.step)
        self.adam_g.load_state_dict(saved.state["adam_g"])
        self.adam_d.load_state_dict(saved.state["adam_d"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])
