"""What tests share: one thread a process, and scripts run as users run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
SMALL = ["--generator.width", "8", "--generator.z_dim", "4", "--discriminator.width", "8", "--batch_size", "8"]
"""Options that make a GAN run small."""


def command(script: str, *options: str, processes: int = 1) -> list[str]:
    """The command line of a script; several processes through `accelerate launch`."""
    if processes == 1:
        return [sys.executable, f"scripts/{script}.py", *options]
    launch = ["--quiet", "--multi_gpu", "--num_processes", str(processes), "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [sys.executable, "-m", "accelerate.commands.launch", *launch, f"scripts/{script}.py", *options]


def run(script: str, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a script to its end in a process of its own."""
    line = command(script, *options, processes=processes)
    return subprocess.run(line, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)


def train(output: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Train a small GAN on the digits, successfully."""
    done = run("train_gan", *digits(output), *options, processes=processes)
    assert done.returncode == 0, done.stderr
    return done


def digits(output: Path) -> list[str]:
    """Options of a small GAN on the digits."""
    return ["--config", "configs/gan/digits.yaml", "--output", str(output), *SMALL, "--tracker", "null"]
