"""Checks, in advance, whether what is requested fits into this machine's memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import psutil
import torch
from torch import Tensor, nn

from mmgan.errors import UserError

COPIES = {"Adam": 4, "SGD": 3}
"""Numbers stored per parameter: its value, its gradient, and the optimiser's state."""


def free(device: torch.device) -> int:
    """Bytes that this process can still allocate on `device`, including those that PyTorch holds but does not use."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def refuse_more(needed: float, device: torch.device, what: str, lower: str) -> None:
    """Raise UserError if `needed` bytes exceed the free memory; `lower` names the options to reduce."""
    if needed > (available := free(device)):
        least = "more than can be counted" if needed == float("inf") else f"at least {needed / 2**30:,.1f} GiB"
        raise UserError(f"{what} need {least} of memory, and {available / 2**30:,.1f} GiB are free; lower {lower}")


@torch.enable_grad()
def needed_for(
    build: Callable[[], Sequence[nn.Module]], forward: Callable[[Sequence[nn.Module]], Tensor], rows: int, copies: int
) -> float:
    """The fewest bytes that training needs: `copies` of the networks, and what a batch of `rows` saves for backward.

    `build` makes the networks, and `forward` passes two rows through them, both with tensors that have shapes but no
    values. Infinite for sizes that cannot be computed; without the batch if the networks cannot be called this way.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: PLC0415  # slow to import

    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    weights = 0
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            networks = build()
            own = {p.untyped_storage()._cdata for net in networks for p in (*net.parameters(), *net.buffers())}
            weights = sum(p.nbytes for network in networks for p in network.parameters())
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                forward(networks)
    except (RuntimeError, OverflowError, TypeError, NotImplementedError, AttributeError) as error:
        if any(word in str(error).lower() for word in ("overflow", "too large", "exceeds", "out of range")):
            return float("inf")
        return copies * weights
    of_batch = sum(tensor.nbytes for key, tensor in kept.items() if key not in own)
    return copies * weights + of_batch * rows / 2
