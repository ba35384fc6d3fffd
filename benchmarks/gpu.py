"""Check what only a machine with a GPU can show, and write it up as one page; scripts/check_gpu.sh calls it."""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image

from mmgan.engine import checkpoint, cli, files

BUDGET = 540
"""Seconds for everything."""
ROOT = Path(__file__).parents[1]
GPUS = torch.cuda.device_count()
TRAIN = """
import sys, torch, mmgan
mmgan.train(sys.argv[1], sys.argv[2])
print("PEAK", torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)
"""
SIZES: dict[str, Any] = {
    "generator": {"width": 256 if GPUS else 8},
    "discriminator": {"width": 128 if GPUS else 8},
    "batch_size": 64 if GPUS else 8,
    "n_dis": 5 if GPUS else 1,
    "steps": 40 if GPUS else 8,
    "log_every": 10 if GPUS else 2,
}
"""The sizes of configs/gan/cifar10.yaml; on a CPU, small ones."""


class Found(NamedTuple):
    """What one check found."""

    name: str
    passed: bool | None
    """None if this machine cannot show it."""
    what: str
    seconds: float = 0


class Checks:
    """Checks that run one after the other in `folder`, while there is time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.end = folder, time.monotonic() + BUDGET
        self.found: list[Found] = []
        images = folder / "images"
        images.mkdir()
        noise = np.random.default_rng(0).integers(0, 256, (2000, 8, 8, 3), dtype=np.uint8)
        for i, pixels in enumerate(noise):  # CIFAR-10's size
            Image.fromarray(pixels).resize((32, 32)).save(images / f"{i}.png")
        self.common = SIZES | {"data": {"name": "folder", "root": str(images), "resolution": 32}, "tracker": None}

    def configured(self, name: str, options: Mapping[str, Any]) -> list[str]:
        """Write a configuration file; return its path and the folder of its run."""
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**self.common, "checkpoint_every": SIZES["steps"] // 2, **options}))
        return [str(file), str(self.folder / name)]

    def run(self, name: str, line: Sequence[str]) -> str:
        """The output of a command, run within the remaining time; if it fails, so does the check."""
        left = max(1, self.end - time.monotonic())
        environment = os.environ | ({} if GPUS else {"ACCELERATE_USE_CPU": "true"})
        pipe = subprocess.PIPE
        with subprocess.Popen(
            line, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        ) as process:
            try:
                out, err = process.communicate(timeout=left)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGTERM)  # a launcher ends the processes that it started
                raise RuntimeError(f"{name} did not finish within the {BUDGET} seconds") from error
        if process.returncode:
            said = [one for one in err.splitlines() if re.match(r"error: |\S*(Error|Exception): ", one)]
            raise RuntimeError(said[0] if said else f"exit code {process.returncode}")
        return out

    def trained(self, name: str, **options: Any) -> str:
        """Train a run; return its speed and the memory that it took."""
        config, folder = self.configured(name, options)
        said = self.run(name, [sys.executable, "-c", TRAIN, config, folder])
        rows = [row for row in files.read_rows(Path(folder) / "metrics.jsonl") if "steps_per_second" in row]
        peak = int(said.rpartition("PEAK ")[2]) / 2**30
        return f"{rows[-1]['steps_per_second']:.2f} steps/s" + (f", {peak:.2f} GiB at most" if peak else "")

    def check(self, name: str, what: Any) -> None:
        """Do one check and keep what it found."""
        print(f"{name} ...", flush=True)
        began = time.monotonic()
        try:
            text, passed = what(), True
        except Exception as error:  # the page reports any error
            text, passed = f"{type(error).__name__}: {error}", False
        self.found.append(Found(name, passed, text, time.monotonic() - began))

    def resumed(self) -> str:
        """A run resumed from its middle ends as the whole one did."""
        self.trained("whole", deterministic=True)
        whole, again = self.folder / "whole", self.folder / "again"
        shutil.copytree(whole, again)
        shutil.rmtree(checkpoint.steps(again / "checkpoints")[-1])
        config = self.folder / "whole.yaml"
        self.run("resume", [sys.executable, "-c", TRAIN, str(config), str(again)])
        one, two = (checkpoint.of_run(folder, "last") for folder in (whole, again))
        unlike = [
            f"{name}: {key}"
            for name in one.weights
            for key, value in one.weights[name].items()
            if not torch.equal(value, two.weights[name][key])
        ]
        if unlike:
            raise RuntimeError(f"{len(unlike)} tensors differ, the first is {unlike[0]}")
        return "every weight the same, to the bit"

    def several(self) -> str:
        """Two processes train."""
        config, folder = self.configured("two", {})
        launch = ["--quiet", "--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
        launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
        script = ["scripts/train_gan.py", "--config", config, "--output", folder]
        self.run("two processes", [sys.executable, "-m", "accelerate.commands.launch", *launch, *script])
        rows = [row for row in files.read_rows(Path(folder) / "metrics.jsonl") if "steps_per_second" in row]
        return f"{rows[-1]['steps_per_second']:.2f} steps/s of the same global batch"

    def timed(self) -> str:
        """The benchmark of a GAN's step."""
        sizes = ["--g_width", "256", "--d_width", "128", "--batch_size", "64"] if GPUS else ["--g_width", "8"]
        sizes += [] if GPUS else ["--d_width", "8", "--batch_size", "8"]
        line = [sys.executable, "benchmarks/gan.py", *sizes, "--rounds", "3"]
        return "<br>".join(self.run("the benchmark", line).strip().splitlines())


def _cell(text: str) -> str:
    """A text as a Markdown table can show it."""
    return text.replace("|", "\\|").replace("\n", " ")


def main(output: Path = Path("gpu.md")) -> None:
    """Check what only a machine with a GPU can show, in at most nine minutes, and write it up as one page.

    Args:
        output: file for the page, in Markdown
    """
    with files.writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        files.write(output, "not done yet\n")
    with tempfile.TemporaryDirectory() as folder:
        checks = Checks(Path(folder))
        checks.check("single precision", lambda: checks.trained("float32"))
        checks.check("bfloat16", lambda: checks.trained("bfloat16", mixed_precision="bf16"))
        if GPUS:
            checks.check("float16", lambda: checks.trained("float16", mixed_precision="fp16"))
        else:
            checks.found.append(Found("float16", None, "needs a GPU"))
        checks.check("resume", checks.resumed)
        if GPUS == 1:
            checks.found.append(Found("two processes", None, "needs two GPUs"))
        else:
            checks.check("two processes", checks.several)
        checks.check("benchmark", checks.timed)
        checks.check("compiled networks", lambda: checks.trained("compiled", compile=True, mixup={"layers": [1]}))
    words = {True: "passed", False: "FAILED", None: "not here"}
    device = ", ".join(torch.cuda.get_device_name(i) for i in range(GPUS)) or f"{platform.processor() or 'CPU'}, no GPU"
    lines = [
        "# What a GPU shows",
        "",
        f"Made by `bash scripts/check_gpu.sh` on {device}; PyTorch {torch.__version__}; {json.dumps(SIZES)}.",
        "",
        "| check | | found | seconds |",
        "| --- | --- | --- | --- |",
        *(f"| {one.name} | {words[one.passed]} | {_cell(one.what)} | {one.seconds:.0f} |" for one in checks.found),
    ]
    print("\n".join(lines))
    files.write(output, "\n".join(lines) + "\n")
    if failed := [one.name for one in checks.found if one.passed is False]:
        raise SystemExit(f"failed: {', '.join(failed)}; {output} says how")


if __name__ == "__main__":
    cli.run(lambda: cli.call(main))
