"""The folder of a run: config.yaml, environment.json, metrics.jsonl, checkpoints/, samples/, plots/."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
import uuid
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    TorchDynamoPlugin,
    broadcast_object_list,
    parse_flag_from_env,
)
from filelock import FileLock, Timeout

from mmgan.engine import checkpoint, files
from mmgan.engine.checkpoint import Checkpoint
from mmgan.engine.values import load, shown
from mmgan.errors import UserError

HARMLESS = {"data.root", "data.download", "sample_every", "checkpoint_every", "keep_checkpoints", "tracker"}
HARMLESS |= {"score.final", "score.final_metrics", "score.extractor.run", "score.extractor.weights", "data.skip_broken"}
"""Options that may change between two starts of a run because they do not change its result: images and extractor are
compared by content."""
LENGTHS = ("steps", "epochs")
"""Options that may increase if nothing else in a run depends on them."""


TIMEOUT = "MMGAN_TIMEOUT"
"""Environment variable: seconds for which a process waits for another one before it gives up; 600 by default.

The death of a process is noticed at once, the loss of its machine only after this time. Since the others also wait
while one process works alone, reading a large folder of images for the first time, for example, must not take longer.
"""
STRATEGIES = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER")
"""ACCELERATE_USE_... of these would train in a way that no option describes."""


def accelerator_of(mixed_precision: str | None = None, compiled: bool = False, **options: Any) -> Accelerator:
    """An Accelerator whose computation no environment variable of Accelerate changes.

    Precision, gradient accumulation and compilation are set here, overriding ACCELERATE_MIXED_PRECISION,
    _GRADIENT_ACCUMULATION_STEPS and _DYNAMO_*. `compiled`: the networks it prepares go through torch.compile. The
    device (ACCELERATE_USE_CPU, _TORCH_DEVICE) is recorded with the run. Raises UserError for a training strategy that
    has no option.
    """
    for name in (f"ACCELERATE_USE_{strategy}" for strategy in STRATEGIES):
        if parse_flag_from_env(name):
            raise UserError(f"{name} is set, but only plain data parallelism is supported; unset it")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        importlib.import_module("torch._dynamo")  # if imported after the process group, it sometimes aborts at exit
    keep_freed()
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # Accelerate passes it
    AcceleratorState._reset_state()  # an earlier call in this process may have set another precision
    return Accelerator(
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=patience()))],
        mixed_precision=mixed_precision or "no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_plugin=TorchDynamoPlugin(backend="inductor" if compiled else "no"),
        **options,
    )


def patience() -> int:
    """Seconds that a process waits for another one; raises UserError if the environment variable is invalid."""
    said = os.environ.get(TIMEOUT, "600")
    if not re.fullmatch("[1-9][0-9]{0,8}", said):
        raise UserError(f"{TIMEOUT} is {shown(said)}; set it to a whole number of seconds, or unset it")
    return int(said)


def keep_freed() -> None:
    """Make glibc, if it is the C library, keep freed memory for the next tensors.

    Every step allocates and frees the same large tensors. If their memory came from the system each time, every page
    would fault on first use, which took up to a seventh of a step on a CPU (docs/speed.md). In return, the process
    stays at its peak size.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        for option, value in ((-1, -1), (-4, 0)):  # M_TRIM_THRESHOLD: never; M_MMAP_MAX: nothing by mmap
            mallopt(option, value)


def make_accelerator(
    folder: Path, mixed_precision: str | None, deterministic: bool, tracker: str | None, compiled: bool = False
) -> Accelerator:
    """An Accelerator for a run in `folder`; raises UserError for anything this machine cannot do."""
    if tracker is not None and tracker not in (known := [str(name) for name in get_available_trackers()]):
        raise UserError(f"tracker {tracker!r} is not installed; choose from {', '.join(known)}, or null for none")
    if mixed_precision == "fp16" and not torch.cuda.is_available():
        raise UserError("mixed_precision fp16 needs a GPU; use bf16 or null")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if compiled:
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    else:  # the same without the compiler, whose import takes more than a second
        torch.set_deterministic_debug_mode("warn" if deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass per tensor
    torch.backends.cudnn.benchmark = not deterministic
    accelerator = accelerator_of(mixed_precision, compiled, log_with=tracker, project_dir=folder)
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise UserError("mixed_precision fp16 needs a GPU, and Accelerate was told to use the CPU; use bf16 or null")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 or (
        os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_PORT" in os.environ and "RANK" not in os.environ
    )
    if several and accelerator.num_processes == 1:  # only one way of `accelerate launch` starts several CPU processes
        raise UserError(
            "launched for several processes, but this is the only one; without GPUs, start them with "
            "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes N, without --cpu"
        )
    if accelerator.device.type == "cpu" and mixed_precision:
        ratio = half_precision_gain()
        advice = "" if ratio > 1 else "; --mixed_precision null is faster here"
        accelerator.print(f"bfloat16 convolutions are {ratio:.1f} times as fast as float32 ones here{advice}")
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if accelerator.device.type == "cpu" and accelerator.num_processes * threads < cores:
        accelerator.print(
            f"using {threads} thread(s) per process on {cores} cores; to use them all: "
            f"accelerate launch --num_cpu_threads_per_process {cores // accelerator.num_processes}"
        )
    return accelerator


@torch.no_grad()
def half_precision_gain() -> float:
    """The speed of a convolution in bfloat16 relative to float32 on this CPU, best of three runs each.

    Processors without bfloat16 instructions are several times slower in bfloat16 than in float32.
    """
    best = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.zeros(16, 32, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last)
        weight, times = torch.zeros(32, 32, 3, 3, dtype=dtype), []
        for _ in range(4):  # the first one is a warm-up
            start = time.perf_counter()
            F.conv2d(x, weight, padding=1)
            times.append(time.perf_counter() - start)
        best.append(min(times[1:]))
    return best[0] / best[1]


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
                self.write("environment.json", json.dumps(self._environment(accelerator), indent=1))
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

    def _environment(self, accelerator: Accelerator) -> list[dict[str, Any]]:
        """What the run was executed with: one record per start."""
        file = self.folder / "environment.json"
        try:
            before = files.read_json(file)
        except UserError:  # none yet, or damaged
            before = []
        return [*(before if isinstance(before, list) else []), environment(accelerator)]


def refuse_other_run(folder: Path, config: str) -> None:
    """Raise UserError if `folder` holds anything but a run of the configuration `config`, YAML text."""
    file = folder / "config.yaml"
    try:
        if file.exists():
            old, new = files.read_yaml(file), load(config)
            longer = [name for name in LENGTHS if _grows(old.get(name), new.get(name))]
            whole = _follows_length(new) if longer else None
            changes = differences(old if whole else old | {name: new[name] for name in longer}, new)
            if changes:
                advice = f" and, to start from its weights, --init_from {folder} ({whole})" if whole else ""
                raise UserError(f"{folder} holds a run with {'; '.join(changes)}; choose another --output{advice}")
        elif folder.is_dir() and not all(files.is_ours(path) for path in folder.iterdir()):
            raise UserError(f"{folder} is neither empty nor a run; choose another --output")
    except OSError as error:
        raise UserError(f"cannot read {folder} ({error.strerror}); choose another --output") from error


def _grows(before: Any, after: Any) -> bool:
    return isinstance(before, int) and isinstance(after, int) and before < after


def _follows_length(config: dict[str, Any]) -> str | None:
    """Why a longer run of this configuration differs from the first step on; None if it continues a shorter one."""
    schedule = config.get("lr_schedule")
    what = f"lr_schedule {schedule}" if schedule in ("linear", "cosine") else "ssl" if config.get("ssl") else None
    return what and f"{what} depends on the length of the run, so a longer one differs from the first step on"


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


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key old, not new` for every option that differs, except those that cannot change a result."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys(), key=str):
        before, after, name = old.get(key), new.get(key), prefix + key
        if isinstance(before, dict) and isinstance(after, dict) and before.get("class_path") == after.get("class_path"):
            found += differences(before, after, prefix if key == "init_args" else f"{name}.")
        elif before != after and name not in HARMLESS:
            found.append(f"{name} {_plain(before)}, not {_plain(after)}")
    return found


def _plain(value: Any) -> Any:
    """A section as text: the name of its class and its options."""
    if not (isinstance(value, dict) and "class_path" in value):
        return value
    options = ", ".join(f"{key} {_plain(option)}" for key, option in (value.get("init_args") or {}).items())
    return f"{str(value['class_path']).rpartition('.')[2]}{options and f' with {options}'}"
