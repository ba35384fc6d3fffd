"""Labelled images in an update: attacked, mixed and passed through the network, and the terms of its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor

from classifiers.attacks.adversarial import AdversarialTraining, attack, predicted, premixed
from classifiers.config import ClassifierConfig
from classifiers.fortified import Autoencoder, reconstruction
from classifiers.supervised import Forward
from mmgan.engine.randomness import Draws
from mmgan.mixup import Plans, Staged


class Pass(NamedTuple):
    """The result of one pass of the network."""

    outputs: Tensor
    targets: Tensor
    states: Tensor | None = None
    """The input of the network's autoencoder, if it has one."""
    made: Tensor | None = None
    """The autoencoder's reconstruction of it."""


class Labelled:
    """The part of a run's loss that comes from images and their labels."""

    def __init__(
        self,
        config: ClassifierConfig,
        network: Staged,
        f: Forward,
        policy: Callable[..., Tensor] | None,
        accelerator: Accelerator,
        draws: Draws,
    ) -> None:
        """`network` is on its device; `f` is its training pass, `policy` the mixup rule's, both prepared."""
        self.config, self.network, self.f, self.policy = config, network, f, policy
        self.accelerator, self.draws = accelerator, draws
        self.encoder = next((k for k, stage in enumerate(network.stages) if isinstance(stage, Autoencoder)), None)

    def terms(self, number: int, x: Tensor, y: Tensor, plans: Plans) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Terms of the loss of batch `number`, and scalars to log with them.

        `x` float32 [B, C, R, R] as layer 0 takes it, `y` float32 [B, classes]; `plans` are for B rows. With both
        clean and attacked images, every term of the objective is a mean over the two.
        """
        config, views = self.config, [x]
        if config.adversarial:
            x, y, plans = premixed(config.adversarial, x, y, plans)
            moved = self._attacked(config.adversarial, number, x, y, plans)
            views = [x, moved] if config.adversarial.clean else [moved]
        if config.mixup and self.policy is not None:
            plans = config.mixup.complete(self.policy, views[0], plans)
        passes = [self._pass(view, y, plans) for view in views]
        each = [self._objective(one, plans) for one in passes]
        terms = {name: torch.stack([found[name] for found in each]).mean() for name in each[0]}
        return terms | self._reconstructions(passes), config.mixup.watch(plans) if config.mixup else {}

    def _objective(self, one: Pass, plans: Plans) -> dict[str, Tensor]:
        rule, loss = self.config.mixup, self.config.loss
        return rule.terms(*one[:2], plans, loss) if rule else {"supervised": loss(*one[:2])}

    def _reconstructions(self, passes: list[Pass]) -> dict[str, Tensor]:
        """The autoencoder's terms: for the first pass (of clean images, if there are any), and across both passes."""
        config, first = self.config.fortified, passes[0]
        if config is None or first.states is None or first.made is None:
            return {}
        terms = {"reconstruction": config.weight * reconstruction(first.states, first.made, config.blocking)}
        made = passes[-1].made if config.cross else None
        if made is not None:
            terms["cross"] = config.weight * reconstruction(first.states, made, config.blocking)
        return terms

    def _pass(self, x: Tensor, y: Tensor, plans: Plans) -> Pass:
        """One pass; with an autoencoder it has three parts, and mixing happens in one of them, or before the second."""
        if self.encoder is None:
            return Pass(*self.f(x, plans, y))
        k, nothing = self.encoder, Plans()

        def part(start: int, stop: int | None, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            here = any(start <= plan.layer < (stop or self.network.depth) for plan in plans.plans)
            found: tuple[Tensor, Tensor] = self.f(h, plans if here else nothing, y, start=start, stop=stop)
            return found

        states, y = plans.mix(k, *part(0, k, x, y))
        made, y = self.f(states, nothing, y, start=k, stop=k + 1)
        return Pass(*part(k + 1, None, made, y), states, made)

    def _attacked(self, config: AdversarialTraining, number: int, x: Tensor, y: Tensor, plans: Plans) -> Tensor:
        """The images under attack; every process attacks the same network, with the batch norm statistics of rank 0."""
        draws = self.draws
        if draws.world > 1:  # each process has its own, from the rows it saw
            for buffer in self.network.buffers():
                broadcast(buffer)
        size = len(x) * draws.world
        noise = draws.normal("attack", number, size, *x.shape[1:]) if config.random_start else None
        with self.accelerator.autocast():
            y = predicted(self.network, x, y) if config.labels == "predicted" else y
            return attack(config, self.network, x, y, plans, self.config.loss, noise)
