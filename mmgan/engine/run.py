"""The folder of a run: config.yaml, environment.json, metrics.jsonl, checkpoints/, samples/, plots/."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from mmgan.engine import checkpoint, files
from mmgan.engine.accelerator import patience
from mmgan.engine.changes import refuse_other_run
from mmgan.engine.checkpoint import Checkpoint
from mmgan.errors import UserError


class Run:
    """A run's folder, locked by this process (and those launched with it)."""

    def __init__(self, folder: Path, config: str, accelerator: Accelerator) -> None:
        """Create the folder, or resume the run in it; `config` is the YAML text of its configuration.

        Raises UserError if the folder cannot be written, or holds something else, another configuration (naming the
        keys that differ), or a run in progress.
        """
        self.folder, self.accelerator = folder, accelerator
        self.checkpoints = folder / "checkpoints"
        self.best = folder / "best"
        self.metrics = folder / "metrics.jsonl"
        self._lock = FileLock(folder / ".lock")
        refuse_other_run(folder, config)
        with files.writing(folder):
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    self._lock.acquire(timeout=0)
                except Timeout as error:
                    raise UserError(f"{folder} is being written by another process; wait for it or stop it") from error
                for name in (".", "plots", "samples"):
                    for path in filter(Path.is_file, (folder / name).glob(".*.part")):  # left by a killed process
                        path.unlink()
                self.write("config.yaml", config)
                self.write("environment.json", json.dumps(self._environment(), indent=1))
                for name in ("checkpoints", "plots"):
                    (folder / name).mkdir(exist_ok=True)
            self._refuse_unshared()

    def _refuse_unshared(self) -> None:
        """Raise UserError if a process does not see a file that the main process creates in the folder."""
        accelerator = self.accelerator
        (name,) = broadcast_object_list([f".{uuid.uuid4().hex}.part"])
        mark = self.folder / name
        if accelerator.is_main_process:
            mark.touch()
        accelerator.wait_for_everyone()
        if not files.appears(mark, min(60, patience())):
            raise UserError(f"{self.folder} is not the same folder on every machine; --output must be one they share")
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            mark.unlink()

    def agree_on(self, saved: Checkpoint | None, keep: int) -> None:
        """Raise UserError if processes found different checkpoints, because they then see different folders.

        Removes the checkpoints after the one found, and all but the last `keep` up to it. Prints a line if a different
        number of processes saved it: batches and draws are the same for any number, but batch norm normalises each
        process's rows separately.
        """
        accelerator, step = self.accelerator, saved.step if saved else 0
        found = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
        if len(set(found)) > 1:
            raise UserError(f"processes found different last steps {found}; --output must be a folder they share")
        if saved and accelerator.is_main_process:
            checkpoint.tidy(self.checkpoints, step, keep)
        now = accelerator.num_processes
        before = saved.fact("processes", int) if saved else now
        if before != now:
            accelerator.print(
                f"{self.folder} was trained by {before} process(es) up to step {step} and continues with {now}: the "
                "batches are the same, but if a network has batch norm, whose statistics are computed per process, "
                f"the final weights differ from those with {before}"
            )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the folder, as does the end of this process."""
        self._lock.release()

    def truncate_metrics(self, step: int) -> None:
        """Drop the rows of metrics.jsonl after `step`, which a resumed run will write again."""
        lines = files.lines(self.metrics)
        kept = [line for line in lines if (row := files.row_of(line)) is not None and row["step"] <= step]
        self.write(self.metrics.name, "".join(kept))

    def write(self, name: str, text: str) -> None:
        """Replace a file of the folder atomically."""
        files.write(self.folder / name, text)

    def _environment(self) -> list[dict[str, Any]]:
        """What the run was executed with: one record per start."""
        file = self.folder / "environment.json"
        try:
            before = files.read_json(file)
        except UserError:  # none yet, or damaged
            before = []
        return [*(before if isinstance(before, list) else []), environment(self.accelerator)]


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """Command, code, libraries and machine of this process."""
    names = ("torch", "torchvision", "accelerate", "numpy")
    device = accelerator.device
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in names},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    """The commit of this code; None outside a checkout or without git."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
