"""Unlabelled images in an update: their batches, what a method receives, and its teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from classifiers.config import ClassifierConfig
from classifiers.methods import Batch, SemiSupervised
from classifiers.supervised import Forward, draw
from classifiers.views import Views
from mmgan.engine.randomness import Draws, stream
from mmgan.mixup import Staged


class Unlabelled:
    """The part of a run's loss that comes from unlabelled images; its draws are separate from the labelled images'."""

    def __init__(
        self,
        config: ClassifierConfig,
        ssl: SemiSupervised,
        network: Staged,
        images: Tensor,
        accelerator: Accelerator,
        blocks: int,
    ) -> None:
        """`network` is on its device and not yet prepared; `images` uint8 [N, C, R, R]; `blocks` is for `draw`."""
        self.ssl, self.network, self.accelerator, self.blocks = ssl, network, accelerator, blocks
        self.size, self.batch_size = len(images), config.unlabelled_batch
        self.views = Views(images, config.data, network, accelerator.device)
        self.draws, self.again = (
            Draws(
                stream(config.seed, purpose, 0).initial_seed(),
                accelerator.process_index,
                accelerator.num_processes,
                accelerator.device,
            )
            for purpose in ("unlabelled", "unlabelled again")
        )
        self.teacher = None if ssl.teacher_decay(0) is None else deepcopy(network).requires_grad_(False)

    def terms(self, f: Forward, number: int, done: float) -> dict[str, Tensor]:
        """The weighted terms that batch `number` adds to the loss of `f` when a share `done` of training is done."""
        ssl, draws = self.ssl, self.draws
        rows = draws.rows(number, self.batch_size, self.size)
        x = self.views(rows, draws, number)
        terms = ssl.terms(
            Batch(
                f=f,
                x=x,
                again=lambda: self.views(rows, self.again, number),
                noise=lambda purpose: draws.normal(purpose, number, self.batch_size, *x.shape[1:]),
                plans=draw(ssl.rule, self.batch_size, draws, number, self.blocks),
                teacher=f if self.teacher is None else partial(self._teach, self.teacher),
                frozen=partial(frozen, self.network),
            )
        )
        return terms | {"unsupervised": ssl.ramp(done) * ssl.weight * terms["unsupervised"]}

    def _teach(self, teacher: Staged, x: Tensor) -> Tensor:
        with self.accelerator.autocast():
            return teacher(x, start=0).float()

    def learn(self, number: int) -> None:
        """Move the teacher, if there is one, towards the network: theta' <- decay theta' + (1 - decay) theta.

        The teacher's running statistics come from its own passes.
        """
        decay = self.ssl.teacher_decay(number)
        if self.teacher is not None and decay is not None:
            average = get_ema_multi_avg_fn(decay)
            average(list(self.teacher.parameters()), list(self.network.parameters()), 0)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Leave running statistics and all other buffers as they are, for passes of rows that are not images of the data.

    The passes may be differentiated afterwards.
    """
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, values in kept:
            buffer.data.copy_(values)  # .data: autograd holds the buffers of these passes, though it uses none of them
