"""The two steps of a GAN."""

from __future__ import annotations

import torch
from torch import Tensor

from mmgan.engine.modes import undone
from mmgan.engine.randomness import Draws, stream, whole_numbers
from mmgan.gan.augment import Augmentation
from mmgan.gan.config import GANConfig
from mmgan.gan.data import Batches
from mmgan.gan.schedule import rates
from mmgan.gan.state import State
from mmgan.mixup import Plans, discriminator_loss, generator_loss


class Steps:
    """The discriminator's and the generator's step. Draws are functions of the seed and of the step, counted from 0.

    In the generator's step, latents and the networks' own draws count from 1, as in version 0.1, so that runs of that
    version can be repeated.
    """

    def __init__(self, config: GANConfig, gan: State, images: Tensor, labels: Tensor | None = None) -> None:
        """`images`: uint8 [N, C, R, R], the real data; `labels`: for a conditional GAN, int64 [N]."""
        self.config, self.gan, self.accelerator = config, gan, gan.accelerator
        world = self.accelerator.num_processes
        self.draws = Draws(config.seed, self.accelerator.process_index, world, self.accelerator.device)
        self.real = Batches(config, images, self.draws, labels)

    def rehearse(self) -> None:
        """Take a first step and undo it, if there are several processes.

        DistributedDataParallel regroups its sums of gradients after its first backward pass, and the rounding of three
        or more terms depends on their order: after this, a resumed run ends like an uninterrupted one.
        """
        gan = self.gan
        parts = (*gan.networks.values(), gan.average, gan.adam_g, gan.adam_d, self.accelerator.scaler)
        if self.accelerator.num_processes > 1:
            with undone(*filter(None, parts)):
                self.both(1)

    def both(self, step: int) -> dict[str, Tensor]:
        """Generator step `step`, counted from 1, and its `n_dis` discriminator steps; returns the mean terms."""
        numbers = range((step - 1) * self.config.n_dis, step * self.config.n_dis)
        if self.config.reuse_fakes:
            terms_g, fake = self.generator(step - 1)
            terms_d = [self.discriminator(number, fake) for number in numbers]
        else:
            terms_d = [self.discriminator(number) for number in numbers]
            terms_g, _ = self.generator(step - 1)
        return {name: torch.stack([terms[name] for terms in terms_d]).mean() for name in terms_d[0]} | terms_g

    def discriminator(self, number: int, fake: Tensor | None = None) -> dict[str, Tensor]:
        """The discriminator's step on Eq. 10-11; returns its terms. `fake`, if given, replaces new fakes."""
        config, gan, size = self.config, self.gan, self.config.batch_size
        self._seed("discriminator", number)
        classes = self._classes(number, size)
        if fake is None:
            with torch.no_grad():
                fake = gan.generator(self._inputs("d-latents", number, size, classes))
        plans = config.mixup and self._mine(config.mixup.draw(size, stream(config.seed, "plan", number)))
        real = self.real(number, size)
        augment = self._augment("augment", number, size, 2)
        now = rates(config, number // config.n_dis + 1)
        terms = discriminator_loss(
            gan.discriminator, real, fake, plans, config.loss, now.r1_gamma, now.r2_gamma, augment, classes
        )
        gan.adam_d.zero_grad()
        self.accelerator.backward(torch.stack(list(terms.values())).sum())
        gan.adam_d.step()
        return terms

    def generator(self, number: int) -> tuple[dict[str, Tensor], Tensor]:
        """The generator's step on its side of Eq. 10; returns its terms and its fakes.

        The discriminator's weights do not change, but its spectral norm continues the power iteration.
        """
        config, gan, size = self.config, self.gan, self.config.generator_batch
        self._seed("generator", number + 1)
        classes = self._classes(number, size, "g-")
        fake = gan.generator(self._inputs("g-latents", number + 1, size, classes))
        plans = config.mixup and self._mine(
            config.mixup.draw_for_generator(size, stream(config.seed, "g-plan", number))
        )
        real = self.real(number, size, "g-") if plans or config.loss.needs_real else None
        gan.discriminator.requires_grad_(False)
        with self.accelerator.no_sync(gan.discriminator):  # it has no gradients for DDP to wait for
            augment = self._augment("g-augment", number, size, 1 if real is None else 2)
            terms = generator_loss(gan.discriminator, fake, real, plans, config.loss, augment, classes)
        gan.discriminator.requires_grad_(True)
        gan.adam_g.zero_grad()
        self.accelerator.backward(torch.stack(list(terms.values())).sum())
        gan.adam_g.step()
        gan.learn()
        return terms, fake.detach()

    def _inputs(self, purpose: str, number: int, size: int, classes: Tensor | None) -> Tensor:
        """New latents, followed by the classes of the fakes if `classes` of `[real; fake]` are given."""
        z = self.draws.normal(purpose, number, size, self.config.generator.z_dim)
        return z if classes is None else torch.cat([z, classes[-len(z) :]], 1)

    def _classes(self, number: int, size: int, step: str = "") -> Tensor | None:
        """Class vectors of this process's rows `[real; fake]`; None if the GAN is unconditional."""
        if not self.config.conditional:
            return None
        inputs, real = self.gan.inputs, self.real.labels(number, size, step)
        fake = real
        if self.config.conditional == "uniform":
            fake = whole_numbers(self.draws.uniform(f"{step}classes", number, size), len(inputs.names))
        return inputs.vectors(torch.cat([real, fake]))

    def _augment(self, step: str, number: int, size: int, sections: int) -> Augmentation | None:
        """This process's share of the augmentation of the global batch, `size` rows in each section."""
        if not self.config.augment:
            return None
        drawn = self.config.augment.draw(sections * size, stream(self.config.seed, step, number))
        return drawn.share(self.draws.rank, self.draws.world, sections).to(self.draws.device)

    def _mine(self, plans: Plans) -> Plans:
        """This process's share of the global batch's plans, on its device."""
        return plans.share(self.draws.rank, self.draws.world).to(self.draws.device)

    def _seed(self, step: str, number: int) -> None:
        """Make the networks' random numbers (dropout) a function of the seed and the step, too."""
        torch.manual_seed(stream(self.config.seed, f"{step}/{self.draws.rank}", number).initial_seed())
