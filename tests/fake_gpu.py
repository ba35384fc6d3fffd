"""A GPU without one: tensors that have a device, a shape and a dtype, but no values.

An operation on tensors of two devices fails as it would on a GPU, and so does any that needs a value, for which a GPU
would have to be waited for. Nothing can be differentiated, so that no weight changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState, PartialState
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from mmgan.engine.randomness import Draws
from mmgan.mixup import Plans

GPU = torch.device("cuda", 0)


@contextmanager
def fake_gpu(*with_values_too: tuple[Any, str]) -> Iterator[tuple[Accelerator, FakeTensorMode]]:
    """An Accelerator on the GPU, and the mode in which tensors have no values.

    In it, only the rows of a batch, shares of plans and what these functions return have values, on the CPU.
    """

    def with_values(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            with unset_fake_temporarily():  # type: ignore[no-untyped-call]
                return function(*args, **options)

        return call

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, device_placement=False)
    PartialState._shared_state["device"] = accelerator.state.device = GPU
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmgan.data.pipeline.free", lambda _: 2**40)
        patch.setattr(Draws, "_on_device", lambda *_: None)  # there is no generator of a GPU
        patch.setattr(Accelerator, "backward", lambda *_: None)
        patch.setattr(AcceleratedOptimizer, "step", lambda *_: None)
        for owner, name in ((Draws, "rows"), (Plans, "share"), *with_values_too):
            patch.setattr(owner, name, with_values(getattr(owner, name)))
        yield accelerator, FakeTensorMode(allow_non_fake_inputs=True)
    AcceleratorState._reset_state(reset_partial_state=True)
