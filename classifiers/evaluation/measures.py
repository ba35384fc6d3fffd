"""Measures of a trained classifier on images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan.engine.modes import evaluating
from mmgan.engine.randomness import stream
from mmgan.mixup import Plan, Plans, Staged

LAMS = tuple(i / 10 for i in range(11))
BINS = 15


@torch.no_grad()
def predict(
    network: nn.Module,
    images: Tensor,
    device: torch.device,
    batch_size: int = 512,
    change: Callable[[Tensor, slice], Tensor] | None = None,
    start: int | None = None,
    stop: int | None = None,
) -> Tensor:
    """Logits of uint8 images [N, C, R, R], float32 [N, classes] on the CPU; the network's modes are left as they were.

    `change` maps pixels in [0, 1] and their slice of the images to the pixels to use instead. With a staged network,
    `stop` asks for the states of that layer instead of logits, and `start` says that `images` are states of that layer.
    """
    outputs = []
    with evaluating(network):
        for rows in _slices(len(images), batch_size):
            x = images[rows].to(device)
            x = x.float() / 255 if start is None else x
            x = change(x, rows) if change else x
            layers = {key: layer for key, layer in (("start", start), ("stop", stop)) if layer is not None}
            outputs.append(network(x, **layers).float().cpu())
    return torch.cat(outputs)


def _slices(n: int, batch_size: int) -> Iterator[slice]:
    return (slice(start, min(start + batch_size, n)) for start in range(0, n, batch_size))


def error(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is not the label's."""
    return (logits.argmax(1) != labels).double().mean().item()


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    return F.cross_entropy(logits.double(), labels).item()


def reliability(logits: Tensor, labels: Tensor) -> list[tuple[int, float, float]]:
    """For `BINS` equal parts of [0, 1]: how many rows have their largest probability there, its mean, their accuracy.

    A part includes its upper end, not its lower (Guo et al. 2017). Parts without rows are left out.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    part = (confidence * BINS).ceil().long().clamp(1, BINS)
    right = (predicted == labels).double()
    rows = [part == i for i in range(1, BINS + 1)]
    return [(int(r.sum()), confidence[r].mean().item(), right[r].mean().item()) for r in rows if r.any()]


def ece(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error (Guo et al. 2017): the mean over rows of the confidence-accuracy gap in their bin."""
    parts = reliability(logits, labels)
    return sum(n * abs(confidence - accuracy) for n, confidence, accuracy in parts) / len(labels)


def knn_error(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, k: int) -> float:
    """Error of a vote of the `k` nearest (Euclidean) training features [N, d]; the smaller label wins a tie."""
    from sklearn.neighbors import KNeighborsClassifier  # noqa: PLC0415  # training imports this file but needs no kNN

    vote = KNeighborsClassifier(k, algorithm="brute").fit(train.numpy(), train_labels.numpy())
    return float(np.mean(vote.predict(test.numpy()) != test_labels.numpy()))


@torch.no_grad()
def interpolated_nll(
    network: Staged,
    images: Tensor,
    labels: Tensor,
    classes: int,
    layer: int,
    device: torch.device,
    seed: int = 0,
    lams: Sequence[float] = LAMS,
    batch_size: int = 256,
) -> list[float]:
    """Fig. 2: for each of `lams` the NLL of the mixed targets of pairs of images mixed at `layer`.

    `images` uint8 [N, C, R, R]; image i is paired with the i-th of a permutation that depends only on N and `seed`.
    The network must be in evaluation mode.
    """
    partner = torch.randperm(len(images), generator=stream(seed, "pairs", 0))
    y = F.one_hot(labels, classes).float()
    sums = torch.zeros(len(lams), dtype=torch.float64)
    for rows in _slices(len(images), batch_size):
        both = torch.cat([torch.arange(len(images))[rows], partner[rows]])
        n = len(both) // 2
        h = network(images[both].to(device).float() / 255, stop=layer)
        target = y[both].to(device)
        for i, lam in enumerate(lams):
            plan = Plan(layer, torch.arange(n), torch.arange(n, 2 * n), torch.tensor(lam)).to(device)
            logits, mixed = network(h, Plans((plan,), rows=2 * n), target, start=layer)
            sums[i] += F.cross_entropy(logits.double(), mixed.double(), reduction="sum").cpu()
    return (sums / len(images)).tolist()
