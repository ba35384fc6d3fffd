"""What a trained classifier does on images it was not trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def predict(network: nn.Module, images: Tensor, device: torch.device, batch_size: int = 512) -> Tensor:
    """Logits of uint8 images [N, C, R, R], float32 [N, classes] on the CPU; the network's mode is left as it was."""
    training = network.training
    network.eval()
    logits = [network(batch.to(device).float() / 255).float() for batch in images.split(batch_size)]
    network.train(training)
    return torch.cat(logits).cpu()


def error(logits: Tensor, labels: Tensor) -> float:
    """Share of rows whose largest logit is not the label's."""
    return (logits.argmax(1) != labels).double().mean().item()


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    return F.cross_entropy(logits.double(), labels).item()
