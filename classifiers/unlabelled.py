"""Unlabelled images in an update: their batches, their terms of the loss, and a teacher."""

from __future__ import annotations

from copy import deepcopy

from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from classifiers.config import ClassifierConfig
from classifiers.semisupervised import (
    SemiSupervised,
    entropy,
    frozen,
    interpolation,
    mean_teacher,
    pi_model,
    pseudo_label,
    ramp,
    vat,
)
from classifiers.supervised import Forward
from classifiers.views import Views
from mmgan.engine.randomness import Draws, stream
from mmgan.mixup import Staged


class Unlabelled:
    """What one run takes from images without their labels; all draws are apart from the labelled images'."""

    def __init__(
        self, config: ClassifierConfig, ssl: SemiSupervised, network: Staged, images: Tensor, accelerator: Accelerator
    ) -> None:
        """`network` is on its device and not yet prepared; `images` uint8 [N, C, R, R]."""
        self.ssl, self.network, self.accelerator, self.size = ssl, network, accelerator, len(images)
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
        self.teacher = deepcopy(network).requires_grad_(False) if ssl.mean_teacher else None

    def terms(self, f: Forward, number: int, done: float) -> dict[str, Tensor]:
        """The weighted terms that batch `number` adds to the loss of the network `f`, when `done` of 1 is done."""
        ssl, draws = self.ssl, self.draws
        rows = draws.rows(number, ssl.batch_size, self.size)
        x = self.views(rows, draws, number)
        share = ramp(done, ssl)
        terms = {}
        if ssl.pseudo_label:
            loss = pseudo_label(f, x, ssl.pseudo_label.threshold)
        elif ssl.pi:
            loss = pi_model(f, x, self.views(rows, self.again, number), ssl.pi.compare)
        elif ssl.mean_teacher:
            loss = mean_teacher(f, self._teach, x, self.views(rows, self.again, number), ssl.mean_teacher.compare)
        elif ssl.vat:
            logits = f(x)
            with frozen(self.network):
                d = draws.normal("direction", number, ssl.batch_size, *x.shape[1:])
                loss = vat(f, x, logits, d, ssl.vat)
            if ssl.vat.entropy:
                terms["entropy"] = ssl.vat.entropy * entropy(logits)
        elif ssl.mixup:
            plan = ssl.mixup.draw(ssl.batch_size, stream(draws.seed, "plan", number))
            loss = interpolation(
                f, x, plan.shard(draws.rank, draws.world, ssl.batch_size).to(x.device), ssl.mixup.compare
            )
        return {"unsupervised": share * ssl.weight * loss} | terms

    def _teach(self, x: Tensor) -> Tensor:
        assert self.teacher is not None
        with self.accelerator.autocast():
            return self.teacher(x, start=0).float()

    def learn(self) -> None:
        """Move the teacher, where there is one, towards the network: theta' <- decay theta' + (1 - decay) theta.

        The teacher's running statistics are of its own passes.
        """
        if self.teacher and self.ssl.mean_teacher:
            average = get_ema_multi_avg_fn(self.ssl.mean_teacher.decay)
            average(list(self.teacher.parameters()), list(self.network.parameters()), 0)
