"""SIGINT and SIGTERM end a run after the current step; so does the end of its launcher."""

from __future__ import annotations

import os
import signal
import time
from types import FrameType

import torch
from accelerate import Accelerator

PARENT = "MMGAN_PARENT"
"""Environment variable in which a worker (mmgan/experiments/sweep.py) gives its runs its process ID."""


class Stop:
    """Inside the block, the first SIGINT or SIGTERM is only recorded; another one acts as usual.

    Repeats of a signal within a second of the first are ignored: a scheduler and a launcher may both send it.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.signal = 0
        self.first: dict[int, float] = {}
        # `accelerate launch` sets the second variable; a run started by hand may outlive its shell.
        self.launched = bool({PARENT, "ACCELERATE_MIXED_PRECISION"} & os.environ.keys())
        self.parent = int(os.environ.get(PARENT, os.getppid()))

    def __enter__(self) -> Stop:
        self.before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        self.signal, now = number, time.monotonic()
        if now - self.first.setdefault(number, now) > 1:
            signal.signal(number, self.before[signal.Signals(number)])
            signal.raise_signal(number)

    def requested(self, step: int) -> bool:
        """Whether to stop after `step`; several processes agree on it every tenth step."""
        if self.launched and os.getppid() != self.parent:  # a killed launcher does not forward the signal
            self.signal = self.signal or signal.SIGTERM
        if self.accelerator.num_processes == 1:
            return self.signal > 0
        if step % 10:
            return False
        signals = self.accelerator.gather(torch.tensor([self.signal], device=self.accelerator.device))
        self.signal = int(signals.max())
        return self.signal > 0
