"""Moves scalars from the device to metrics.jsonl, a tracker and the terminal, without a sync in every step."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mmgan.engine import files
from mmgan.engine.checkpoint import last_of
from mmgan.engine.run import Run
from mmgan.errors import UserError


class Log:
    """Collects scalars on the device at every step, and writes their mean every `every` steps.

    Resumed with `state()`, it writes the rows it would have written without the interruption.
    """

    def __init__(self, run: Run, start: int, steps: int, every: int, state: dict[str, Any]) -> None:
        """For a run of `steps`, of which `start` are complete; `state` is what `state()` returned then, or empty."""
        self.run, self.accelerator, self.steps, self.every = run, run.accelerator, steps, every
        self.names: list[str] = state.get("names", [])
        rows = state.get("rows", torch.empty(0))
        whole = isinstance(self.names, list) and isinstance(rows, Tensor)
        if not whole or (len(rows) and rows.shape[1:] != (len(self.names),)):
            raise UserError(f"the checkpoint of step {start} in {run.checkpoints} is damaged: its log is not a table")
        self.rows: list[Tensor] = []
        self.means: Tensor = rows.to(self.accelerator.device)
        """Rows that have been averaged over all processes."""
        self.clock, self.timed = time.perf_counter(), 0
        main = self.accelerator.is_main_process
        if main:
            run.truncate_metrics(start)
            self.file = run.metrics.open("a")
        options = _flat(files.read_yaml(run.folder / "config.yaml"))
        self.accelerator.init_trackers("mmgan", options, {"tensorboard": {"purge_step": start + 1}})
        self.lines = main and not sys.stderr.isatty()
        hidden = self.lines or not main
        self.bar = tqdm(total=steps, initial=start, disable=hidden, unit="step", dynamic_ncols=True)

    def add(self, step: int, scalars: dict[str, Tensor], lr: float | None = None) -> None:
        """Add the scalars of `step`, counted from 1, on the device; every `every` steps, write their mean.

        `lr` is the learning rate of the step; the last one is written.
        """
        self.names = list(scalars)
        self.rows.append(torch.stack([value.detach().float() for value in scalars.values()]))
        self.timed += 1
        self.bar.update()
        if step % self.every == 0 or step == self.steps:
            self._write(step, lr)

    def _finite_table(self, step: int) -> Tensor:
        """The scalars collected up to `step`, [steps, names] on the CPU, averaged over all processes.

        Raises UserError, naming the step, the term and the last checkpoint, if one is not finite.
        """
        if self.rows:  # gathered: an all-reduce rounds differently for other numbers of rows
            means = self.accelerator.gather(torch.stack(self.rows)[None]).mean(0)
            self.means, self.rows = torch.cat([self.means, means]) if len(self.means) else means, []
        table = self.means.cpu()
        bad = (~table.isfinite()).nonzero()
        if len(bad):
            row, column = (int(i) for i in bad[0])
            raise UserError(
                f"{self.names[column]} became {float(table[row, column])} at step {step - len(table) + row + 1}; "
                f"last good checkpoint: {last_of(self.run.checkpoints)}; lower lr or change the loss"
            )
        return table

    def state(self, step: int) -> dict[str, Any]:
        """The log's part of a checkpoint after `step`, once synced; raises UserError if a scalar is not finite."""
        if self.accelerator.is_main_process:
            os.fsync(self.file.fileno())
        return {"names": self.names, "rows": self._finite_table(step)}

    def _write(self, step: int, lr: float | None) -> None:
        means = dict(zip(self.names, self._finite_table(step).mean(0).tolist(), strict=True))
        if step % self.every == 0:  # otherwise it is the end of the run, which may be extended later
            self.means = torch.empty(0)
        speed = self.timed / (time.perf_counter() - self.clock)
        self.clock, self.timed = time.perf_counter(), 0
        self.record(step, means if lr is None else means | {"lr": lr}, {"steps_per_second": round(speed, 3)})
        if self.accelerator.is_main_process:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in means.items())
            self.bar.set_postfix_str(shown)
            if self.lines:
                left = math.ceil((self.steps - step) / speed)
                print(f"step {step}/{self.steps}  {shown}  {speed:.1f} steps/s  {left} s left", flush=True)

    def record(self, step: int, values: dict[str, float], beside: Mapping[str, Any] | None = None) -> None:
        """Write a row of metrics.jsonl, and `values` to the tracker too: for occasional measurements such as scores."""
        self.accelerator.log(values, step=step)
        if self.accelerator.is_main_process:
            self.file.write(json.dumps({"step": step, **values, **(beside or {})}) + "\n")
            self.file.flush()

    def picture(self, step: int, name: str, image: Tensor) -> None:
        """Show an image, uint8 [C, H, W], in the trackers that support images."""
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                tracker.log_images({name: image[None]}, step=step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Close the file and the bar, and, if there was no error, the trackers and the process group.

        Processes end together, because a launcher that sees one of them end may not give the others time to save.
        """
        self.bar.close()
        if self.accelerator.is_main_process:
            self.file.close()
        if error is None:  # otherwise others may be inside a collective, and this one would wait for them
            self.accelerator.wait_for_everyone()
            self.accelerator.end_training()


def _flat(options: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Nested options by dotted names, as trackers take them."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in options.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return found
