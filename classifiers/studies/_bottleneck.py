"""A fully connected network with two numbers in its middle, and its training: what `spirals` and `bottleneck` share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from classifiers.supervised import CrossEntropy
from mmgan.engine.randomness import batch_rows, stream
from mmgan.mixup import ClassifierMixup, Plans, Staged


class Noise(nn.Module):
    """Adds Gaussian noise of standard deviation `std` to every number, in training alone."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, h: Tensor) -> Tensor:
        """`h` of any shape, with noise in training."""
        return h + self.std * torch.randn_like(h) if self.training else h


def network(
    below: tuple[int, ...], above: tuple[int, ...], seed: int, norm: bool = False, dropout: float = 0.0, *end: nn.Module
) -> Staged:
    """Fully connected layers of sizes `below`, then `end`; above them, layers of sizes `above`.

    Layer 1 is the bottleneck, of `below[-1]` == `above[0]` numbers. Hidden layers end with a leaky ReLU, after batch
    norm if `norm`, and before dropout; the bottleneck is linear. The weights depend only on the sizes and `seed`.
    """

    def hidden(sizes: tuple[int, ...]) -> list[nn.Module]:
        made: list[nn.Module] = []
        for before, after in pairwise(sizes):
            made += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] if norm else []), nn.LeakyReLU(inplace=True)]
            made += [nn.Dropout(dropout)] if dropout else []
        return made

    torch.manual_seed(stream(seed, "weights", 0).initial_seed())
    first = [*hidden(below[:-1]), nn.Linear(below[-2], below[-1]), *end]
    return Staged(nn.Sequential(*first), nn.Sequential(*hidden(above[:-1]), nn.Linear(above[-2], above[-1])))


def fit(
    f: Staged,
    x: Tensor,
    y: Tensor,
    mixup: ClassifierMixup | None,
    seed: int,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float = 0.0,
) -> Staged:
    """Minimise Eq. 1 on `x` float32 [N, D] and one-hot `y` [N, C] by Adam, its rate falling linearly to 0.

    The network is returned in evaluation mode. Batches, plans and noise depend only on `seed` and the step.
    """
    adam = torch.optim.Adam(f.parameters(), lr, weight_decay=weight_decay, fused=True)
    f.train()
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * (1 - step / steps)
        rows = batch_rows(seed, step, batch_size, len(x))
        plans = mixup.draw(batch_size, stream(seed, "plan", step)) if mixup else Plans(rows=batch_size)
        torch.manual_seed(stream(seed, "network", step).initial_seed())  # dropout and noise
        loss = CrossEntropy()(*f(x[rows], plans, y[rows]))
        adam.zero_grad()
        loss.backward()
        adam.step()
    return f.eval()
