"""The update of a classifier, and all that it changes."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from torch import Tensor
from torch.optim import SGD

from classifiers import adversarial
from classifiers.augment import cutout, shift_and_flip
from classifiers.config import ClassifierConfig
from classifiers.supervised import LOSSES, supervised
from mmgan.data import Feed, Images, fingerprint
from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.randomness import Draws, stream
from mmgan.errors import UserError
from mmgan.mixup import Plan, Staged


class Updates:
    """Network and optimiser, prepared by Accelerate, and how one update changes them.

    Every draw is a function of the seed and the number of the update; batches are the global ones' shares.
    """

    def __init__(
        self, config: ClassifierConfig, network: Staged, images: Images, classes: int, accelerator: Accelerator
    ) -> None:
        """`images`: what is trained on."""
        self.config, self.classes, self.accelerator = config, classes, accelerator
        self.rank, self.world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
        self.draws = Draws(config.seed, self.rank, self.world, device)
        self.data = fingerprint(images.images)
        self.size, self.shape = len(images.images), images.images.shape[1:]
        self.feed, self.labels = Feed(images.images, device), images.labels.to(device)
        self.loss = LOSSES[config.loss]
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fill = network.stages[0][0].mean.flatten()  # type: ignore[index]
        sgd = SGD(
            network.parameters(),
            config.lr,
            config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
        if config.mixup and config.mixup.detach:  # then layers below the mix have no part in a step
            accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.f, self.sgd = accelerator.prepare(network, sgd)
        for parameter in network.parameters():  # a gradient of zero, not none, for those layers: their momentum goes on
            parameter.grad = torch.zeros_like(parameter)

    def step(self, number: int) -> dict[str, Tensor]:
        """Update `number`, counted from 0: one step on Eq. 1; its loss."""
        config, size = self.config, self.config.batch_size
        torch.manual_seed(stream(config.seed, f"network/{self.rank}", number).initial_seed())  # dropout
        x, y = self.batch(number)
        plan = None
        if config.mixup:
            plan = config.mixup.draw(size, stream(config.seed, "plan", number))
            plan = plan.shard(self.rank, self.world, size).to(x.device)
        x, y, plan = self.attacked(number, x, y, plan) if config.adversarial else (x, y, plan)
        loss = supervised(self.f, x, y, plan, self.loss)
        self.sgd.zero_grad(set_to_none=False)
        self.accelerator.backward(loss)
        self.sgd.step()
        return {"loss": loss}

    def attacked(self, number: int, x: Tensor, y: Tensor, plan: Plan | None) -> tuple[Tensor, Tensor, Plan | None]:
        """The batch under attack; every process attacks the same network, with the batch norm statistics of rank 0."""
        config = self.config.adversarial
        assert config
        if self.world > 1:  # DDP hands them out at its next pass only
            for buffer in self.network.buffers():
                broadcast(buffer)
        size = self.config.batch_size
        noise = self.draws.normal("attack", number, size, *self.shape) if config.random_start else None
        with self.accelerator.autocast():
            return adversarial.attack(config, self.network, x, y, plan, self.loss, noise)

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number`, the share of this process: augmented pixels in [0, 1], float32, and one-hot targets."""
        data, size, pixels = self.config.data, self.config.batch_size, self.shape[-1]
        rows = self.draws.rows(number, size, self.size)
        shifts = self._whole("shift", number, 2 * data.pad + 1) if data.pad else None
        flips = self.draws.uniform("flip", number, size) < 0.5 if data.flip else None
        x = shift_and_flip(self.feed(rows), shifts, data.pad, flips).float() / 255
        if data.cutout:
            x = cutout(x, self._whole("cutout", number, pixels), data.cutout, self.fill)
        labels = self.labels[rows.to(self.labels.device, non_blocking=True)]
        return x, F.one_hot(labels, self.classes).float()

    def _whole(self, purpose: str, number: int, stop: int) -> Tensor:
        """Two whole numbers in [0, stop) for every image of the batch."""
        return (self.draws.uniform(purpose, number, self.config.batch_size, 2) * stop).long()

    def set_lr(self, done: float) -> None:
        """Set the learning rate for when `done` epochs are done."""
        for group in self.sgd.param_groups:
            group["lr"] = learning_rate(self.config, done)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """The weights of a checkpoint."""
        return {"network": self.network.state_dict()}

    def state(self) -> dict[str, Any]:
        """The rest of a checkpoint."""
        scaler = self.accelerator.scaler
        state = {"sgd": self.sgd.state_dict()} | ({"scaler": scaler.state_dict()} if scaler else {})
        return state | self.facts()

    def facts(self) -> dict[str, Any]:
        """What a checkpoint says of the network and its data."""
        return {"classes": self.classes, "shape": list(self.shape), "data": self.data}

    def restore(self, saved: Checkpoint) -> None:
        """Go back to a checkpoint; raises UserError when it was made of other data or another network."""
        if saved.state["data"] != self.data:
            raise UserError(f"{saved.path} was trained on other images than data.name and data.root give now")
        saved.restore("network", self.network)
        self.sgd.load_state_dict(saved.state["sgd"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(saved.state["scaler"])


def learning_rate(config: ClassifierConfig, done: float) -> float:
    """The learning rate when `done` of all epochs are done."""
    if config.lr_schedule == "step":
        return config.lr * 0.1 ** sum(done >= epoch for epoch in config.milestones)
    if config.lr_schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * done / config.epochs)) / 2
    return config.lr
