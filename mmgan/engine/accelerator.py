"""The Accelerator of a run: devices, precision, determinism, and how long processes wait for each other."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import sys
import time
import warnings
from datetime import timedelta
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
    parse_flag_from_env,
)

from mmgan.engine.values import shown
from mmgan.errors import UserError

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
