"""What tests share: one thread a process, and scripts run as users run them."""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, settings

from mmgan.engine import checkpoint
from tests.forks import Forks

torch.set_num_threads(1)
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
FORKS = Forks(ROOT, ENVIRONMENT)
SMALL = ["--generator.width", "8", "--generator.z_dim", "4", "--discriminator.width", "8", "--batch_size", "8"]
"""Options that make a GAN run small."""


def options_of(config: type, prefix: str = "") -> Iterator[str]:
    """Every option of a configuration: `loss` and `loss.saturating`, and of the classes that a section may name besides
    its default one, `loss[Hinge]` and `loss[Hinge].saturating`.
    """
    hints = get_type_hints(config)
    for field in fields(config):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        kinds = [kind for kind in get_args(hint) or [hint] if isinstance(kind, type) and kind is not type(None)]
        nullable = type(None) in get_args(hint)
        default: object = field.default_factory  # the class itself, where a section has one
        if not kinds:
            yield name
        elif inspect.isabstract(kinds[0]):
            if nullable or default is MISSING:
                yield name
            for kind in _classes(kinds[0]):
                if kind is not default:
                    yield f"{name}[{kind.__name__}]"
                yield from options_of(kind, f"{name}." if kind is default else f"{name}[{kind.__name__}].")
        elif is_dataclass(kinds[0]):
            if nullable:
                yield name
            yield from options_of(kinds[0], f"{name}.")
        else:
            yield name


def _classes(base: type) -> Iterator[type]:
    """The package's own classes below `base`; tests define more."""
    kind: type
    for kind in base.__subclasses__():
        if not inspect.isabstract(kind) and kind.__module__.startswith(("mmgan.", "classifiers.")):
            yield kind
        yield from _classes(kind)


ALONE = ("--num_machines", "1", "--main_process_port", "0")


def command(script: str, *options: str, processes: int = 1, machines: Sequence[str] = ALONE) -> list[str]:
    """The command line of a script; several processes through `accelerate launch`, on these `machines`."""
    if processes == 1:
        return [sys.executable, f"scripts/{script}.py", *options]
    launch = ["--quiet", "--multi_gpu", "--num_processes", str(processes), *machines]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [sys.executable, "-m", "accelerate.commands.launch", *launch, f"scripts/{script}.py", *options]


def run(script: str, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a script to its end in a process of its own, or several."""
    return FORKS.run(command(script, *options)[1:], ENVIRONMENT, timeout=300, processes=processes)


def pytest_collection_finish() -> None:
    """Let no collection of garbage look again at what importing and collecting the tests has made."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _forks_end() -> Iterator[None]:
    """End the process that `run` forks scripts from."""
    yield
    FORKS.stop()


def train(output: Path, *options: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Train a small GAN on the digits, successfully."""
    done = run("train_gan", *digits(output), *options, processes=processes)
    assert done.returncode == 0, done.stderr
    return done


def with_state(path: Path, weights: dict[str, torch.Tensor] | None = None, **changes: Any) -> None:
    """Change what the state.pt of a checkpoint says (None: say nothing of it), and its network's weights."""
    state = torch.load(path / "state.pt", weights_only=True) | changes
    torch.save({key: value for key, value in state.items() if value is not None}, path / "state.pt")
    if weights:
        safetensors.torch.save_file(weights, path / "network.safetensors")
    sums = json.loads((path / "checksums.json").read_text())
    sums["sha256"] = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in sums["sha256"]}
    (path / "checksums.json").write_text(json.dumps(sums))


def digits(output: Path) -> list[str]:
    """Options of a small GAN on the digits."""
    return ["--config", "configs/gan/digits.yaml", "--output", str(output), *SMALL, "--tracker", "null"]


def begin(script: str, *options: str, processes: int = 1) -> subprocess.Popen[str]:
    """Start a script in a process of its own."""
    line = command(script, *options, processes=processes)
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def result(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Everything a run ends with: its last checkpoint and its metrics, without speeds."""
    last = checkpoint.latest(folder / "checkpoints")
    assert last
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {"step": last.step, **last.weights, **last.state}, [
        {k: v for k, v in row.items() if k != "steps_per_second"} for row in rows
    ]


def same(a: Any, b: Any) -> bool:
    """Equality to the last bit, through nested states."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read on to the line with these words; what comes after is left to be read."""
    assert process.stdout
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}")


def wait_for_step(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    for line in process.stdout:
        if line.startswith("step "):
            return


def stop(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send the signal after the first step that is logged; what the process still had to say."""
    wait_for_step(process)
    process.send_signal(number)
    assert process.stdout
    return process.stdout.read()
