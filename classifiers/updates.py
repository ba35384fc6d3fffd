"""The update of a classifier, and all that it changes."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Generator, Tensor, nn
from torch.optim import SGD

from classifiers.config import ClassifierConfig
from classifiers.fortified import Autoencoder
from classifiers.labelled import Labelled
from classifiers.learnt import Heads, learnt
from classifiers.supervised import draw
from classifiers.unlabelled import Unlabelled
from classifiers.views import Views
from mmgan.data import Images, fingerprint
from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.modes import undone
from mmgan.engine.randomness import Draws, stream
from mmgan.errors import UserError
from mmgan.mixup import Staged


class Updates:
    """Network and optimiser, prepared by Accelerate, and how one update changes them.

    Every draw is a function of the seed and the number of the update; batches are shares of the global ones.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        network: Staged,
        images: Images,
        classes: int,
        accelerator: Accelerator,
        pool: Tensor | None = None,
        blocks: int | None = None,
    ) -> None:
        """`images`: what is trained on; `pool`: images for `config.ssl`.

        `blocks`: equal parts of a batch within which pairs are mixed; None: the number of processes.
        """
        self.config, self.classes, self.accelerator = config, classes, accelerator
        self.rank, self.world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
        self.blocks = blocks or self.world
        self.draws = Draws(config.seed, self.rank, self.world, device)
        self.data = fingerprint(images.images)
        self.pool = None if pool is None else fingerprint(pool)
        self.size, self.shape = len(images.images), images.images.shape[1:]
        self.labels = images.labels.to(device)
        self.learnt = learnt(config, network, classes)
        for one in (network, *self.learnt.networks.values()):
            one.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        self.views = Views(images.images, config.data, network, device)
        self.unlabelled = None
        if config.ssl and pool is not None:
            self.unlabelled = Unlabelled(config, config.ssl, network, pool, accelerator, self.blocks)
        weights = [p for p in network.parameters() if p.ndim > 1]
        self.l1_of = weights if config.l1_on == "all" else weights[:1]
        trained: nn.Module = network
        if self.learnt.head is not None:  # next to the last layer, in training only
            trained = Staged(*network.stages[:-1], Heads(network.stages[-1], self.learnt.head))
        parameters = [p for one in (network, *self.learnt.networks.values()) for p in one.parameters()]
        sgd = SGD(
            parameters,
            config.lr,
            config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=not any(p.is_complex() for p in parameters),
        )
        accelerator.ddp_handler = DistributedDataParallelKwargs(
            broadcast_buffers=False,  # it would change them in place between passes; training does not use them
            find_unused_parameters=bool(config.mixup and config.mixup.detach),  # layers below the mix take no part then
        )
        self.f, self.sgd = accelerator.prepare(trained, sgd)
        if config.momentum:  # zeros: a fused first step that overflows in fp16 would leave it uninitialised
            for parameter in parameters:
                self.sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        self.forward = partial(self.f, start=0)  # views are preprocessed
        policy = None if self.learnt.policy is None else accelerator.prepare(self.learnt.policy)
        self.labelled = Labelled(config, network, self.forward, policy, accelerator, self.draws)
        teacher = self.unlabelled.teacher if self.unlabelled else None
        modules = (module for one in (network, teacher) if one is not None for module in one.modules())
        self.encoders = [module for module in modules if isinstance(module, Autoencoder)]
        for encoder in self.encoders:
            encoder.generator, encoder.rank, encoder.world = Generator(device), self.rank, self.world
        for parameter in parameters:  # zero, not None: momentum must move layers below a detached mix too
            parameter.grad = torch.zeros_like(parameter)

    def rehearse(self) -> None:
        """Take a first step and undo it if there are several processes, for the reason in mmgan/gan/steps.py."""
        if self.world > 1:
            with undone(*self.networks.values(), self.sgd, *filter(None, [self.accelerator.scaler])):
                self.step(0)

    def step(self, number: int) -> dict[str, Tensor]:
        """Update `number`, counted from 0: one step on Eq. 1 and the other terms; returns them and their sum."""
        config, size = self.config, self.config.batch_size
        torch.manual_seed(stream(config.seed, f"network/{self.rank}", number).initial_seed())  # dropout
        for i, encoder in enumerate(self.encoders):
            if encoder.generator is not None:
                encoder.generator.manual_seed(stream(config.seed, f"autoencoder/{i}", number).initial_seed())
        plans = draw(config.mixup, size, self.draws, number, self.blocks)
        terms, watched = self.labelled.terms(number, *self.batch(number), plans)
        if self.unlabelled:
            terms |= self.unlabelled.terms(self.forward, number, number * size / (config.epochs * self.size))
        if config.l1:
            terms["l1"] = config.l1 * torch.stack([weight.abs().sum() for weight in self.l1_of]).sum()
        loss = torch.stack(list(terms.values())).sum()
        self.sgd.zero_grad(set_to_none=False)
        self.accelerator.backward(loss)
        self.sgd.step()
        if self.unlabelled:
            self.unlabelled.learn(number)
        return {"loss": loss} | (terms if len(terms) > 1 else {}) | watched

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """This process's share of batch `number`: views float32, as layer 0 takes them, and targets [B, classes]."""
        rows = self.draws.rows(number, self.config.batch_size, self.size)
        x = self.views(rows, self.draws, number)
        labels = self.labels[rows.to(self.labels.device, non_blocking=True)]
        return x, smoothed(F.one_hot(labels, self.classes).float(), self.config.label_smoothing)

    def set_lr(self, done: float) -> None:
        """Set the learning rate that applies after `done` epochs."""
        for group in self.sgd.param_groups:
            group["lr"] = learning_rate(self.config, done)

    @property
    def lr(self) -> float:
        """The learning rate."""
        return float(self.sgd.param_groups[0]["lr"])

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The trained networks: `network`, which is validated and evaluated, and its `student` if it is a teacher.

        Also `policy` and `head`, if the rule has them.
        """
        if self.unlabelled and self.unlabelled.teacher:
            return {"network": self.unlabelled.teacher, "student": self.network}
        return {"network": self.network} | self.learnt.networks

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint."""
        scaler = self.accelerator.scaler
        state = {"sgd": self.sgd.state_dict()} | ({"scaler": scaler.state_dict()} if scaler else {})
        return state | self.facts() | {"blocks": self.blocks, "processes": self.world}

    def facts(self) -> dict[str, Any]:
        """What a checkpoint records about the network and its data."""
        return {"classes": self.classes, "shape": list(self.shape), "data": self.data, "pool": self.pool}

    def restore(self, saved: Checkpoint) -> None:
        """Restore a checkpoint; raises UserError if it comes from other data or another network."""
        if (saved.fact("data", str), saved.state.get("pool")) != (self.data, self.pool):
            raise UserError(
                f"{saved.path} was trained on other images than those that data.name and data.root now name; to "
                f"train on these from its weights, choose another --output and --init_from {saved.path.parent.parent}"
            )
        for name, network in self.networks.items():
            saved.restore(name, network)
        saved.restore_optimiser("sgd", self.sgd, {"momentum_buffer"})
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(saved.fact("scaler", dict))


def smoothed(y: Tensor, share: float) -> Tensor:
    """Targets `y` [B, classes], rows that sum to 1, with `share` of each class moved to the others in equal parts."""
    return y * (1 - share) + (1 - y) * share / (y.shape[1] - 1) if share else y


def learning_rate(config: ClassifierConfig, done: float) -> float:
    """The learning rate after `done` epochs."""
    if config.lr_schedule == "step":
        return config.lr * 0.1 ** sum(done >= epoch for epoch in config.milestones)
    if config.lr_schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * done / (config.cosine_epochs or config.epochs))) / 2
    return config.lr
