"""Checkpoints that are whole or not there: written beside, checked by hash, moved into place.

    checkpoints/step-000500/  NAME.safetensors (weights)  state.pt (optimisers and the like)  checksums.json

Nothing is unpickled on the way back.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

from mmgan.errors import UserError

FORMAT = 1


class Checkpoint(NamedTuple):
    """A checkpoint read back, on the CPU."""

    path: Path
    step: int
    """Steps done."""
    weights: dict[str, dict[str, Tensor]]
    state: dict[str, Any]

    def restore(self, name: str, module: nn.Module) -> None:
        """Load the weights called `name` into `module`; raises UserError when they are another network's."""
        try:
            module.load_state_dict(self.weights[name])
        except (KeyError, RuntimeError) as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{self.path} holds another {name} than this configuration makes ({first})") from error


def save(
    folder: Path, step: int, weights: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int
) -> Path:
    """Write the checkpoint of `step` into `folder`, then remove all others but the `keep` - 1 before it.

    Raises UserError for weights that are not finite, and when writing fails (a full disk, say); what was written is
    then removed, and earlier checkpoints stay.
    """
    copies = {name: {key: t.cpu().contiguous() for key, t in tensors.items()} for name, tensors in weights.items()}
    for name, tensors in copies.items():
        for key, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise UserError(
                    f"{name}'s {key} is not finite after step {step}, which was not saved; last good checkpoint: "
                    f"{last_of(folder)}; lower lr or change the loss"
                )
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    contents = {"state.pt": buffer.getvalue()}
    for name, tensors in copies.items():
        contents[f"{name}.safetensors"] = safetensors.torch.save(tensors)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    contents["checksums.json"] = json.dumps({"format": FORMAT, "step": step, "sha256": sums}, indent=1).encode()

    target = at(folder, step)
    part = folder / f".{target.name}.part"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, content in contents.items():
            with (part / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint of step {step} to {folder} ({error.strerror}); earlier ones are untouched: "
            "make room and run the same command again"
        ) from error
    ours = [path for path in steps(folder) if _step(path) <= step]  # later ones were torn, and passed over
    for path in set(steps(folder)) - set(ours[-keep:]):
        shutil.rmtree(path, ignore_errors=True)
    return target


def at(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is, if there is one."""
    return folder / f"step-{step:06d}"


def steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first; whether they are whole is not looked at."""
    return sorted((path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name)), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def of_run(run: Path, which: Literal["best", "last"] | int) -> Checkpoint:
    """The best (by the run's own measure), the last or a certain checkpoint of the run in the folder `run`.

    Raises UserError where there is no such thing.
    """
    if not (run / "config.yaml").exists():
        raise UserError(f"{run} is no run: it has no config.yaml")
    if isinstance(which, int):
        folder = run / "checkpoints"
        if at(folder, which) not in steps(folder):
            there = ", ".join(path.name for path in steps(folder)) or "none"
            raise UserError(f"{run} keeps no checkpoint of step {which}; there is {there}")
        try:
            return read(at(folder, which))
        except ValueError as error:
            raise UserError(f"cannot read the checkpoint of step {which} in {folder}: {error}") from error
    saved = latest(run / ("best" if which == "best" else "checkpoints"))
    if saved is None and which == "best":
        raise UserError(f"{run} kept no best checkpoint, for nothing was measured while it ran; take last")
    if saved is None:
        raise UserError(f"{run} has no whole checkpoint")
    return saved


def source(folder: Path, init_from: str | None) -> Checkpoint | None:
    """The checkpoint whose weights a run in `folder` starts from; None for random ones, or where it has its own.

    Raises UserError where the run `init_from` has none.
    """
    if init_from is None or latest(folder / "checkpoints"):
        return None
    try:
        return of_run(Path(init_from), "last")
    except UserError as error:
        raise UserError(f"init_from: {error}") from error


def last_of(folder: Path) -> str:
    """The name of the last checkpoint in `folder`, or none."""
    return next((str(path) for path in reversed(steps(folder))), "none yet")


def read(path: Path) -> Checkpoint:
    """The checkpoint in the folder `path`; raises ValueError, saying what is wrong, when it is not whole."""
    try:
        sums = json.loads((path / "checksums.json").read_text())
        if sums["format"] != FORMAT:
            raise ValueError(f"its format is {sums['format']}, this version reads {FORMAT}")
        contents = {name: (path / name).read_bytes() for name in sums["sha256"]}
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != sums["sha256"][name]:
                raise ValueError(f"{name} does not match its checksum")
        weights = {
            name.removesuffix(".safetensors"): safetensors.torch.load(content)
            for name, content in contents.items()
            if name.endswith(".safetensors")
        }
        state = torch.load(io.BytesIO(contents["state.pt"]), map_location="cpu", weights_only=True)
        return Checkpoint(path, int(sums["step"]), weights, state)
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"it is not whole ({error})") from error
    except (pickle.UnpicklingError, RuntimeError) as error:
        raise ValueError(f"state.pt holds more than tensors and plain values ({error})") from error


def latest(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint in `folder`, None when there is none; warns of each that is passed over."""
    for path in reversed(steps(folder)):
        try:
            return read(path)
        except ValueError as error:
            warnings.warn(f"passing over the checkpoint {path}: {error}", stacklevel=2)
    return None
