"""Atomic checkpoints: written to a temporary folder, moved into place, verified by checksum when read.

    checkpoints/step-000500/  NAME.safetensors (weights)  state.pt (optimisers and the like)  checksums.json

No pickled code runs when one is read. A folder that `mmgan.push` wrote is read like a run with one checkpoint:

    FOLDER/  generator.safetensors  discriminator.safetensors  mmgan.json (facts and checksums)  config.yaml
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
from typing import Any, Literal, NamedTuple, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mmgan.engine import files
from mmgan.errors import UserError

FORMAT = 1
PUSHED = "mmgan.json"
"""The file that marks a folder written by `mmgan.push`; `mmgan/gan/push.py` says what it contains."""
PUSHED_WEIGHTS = {"generator.safetensors", "discriminator.safetensors"}
OTHER = "beside the weights"
"""Key in state.pt for the parts of a network's state that safetensors cannot hold: complex tensors, extra state."""
LARGEST = 2**16
"""Upper bound of the whole numbers in a checkpoint (classes, pixels, processes)."""
T = TypeVar("T")


class Checkpoint(NamedTuple):
    """A loaded checkpoint, on the CPU."""

    path: Path
    step: int
    """Steps completed."""
    weights: dict[str, dict[str, Any]]
    state: dict[str, Any]
    source: str = "state.pt"
    """The file that `state` was read from."""

    def restore(self, name: str, module: nn.Module) -> None:
        """Load the weights called `name` into `module`; raises UserError if they belong to another network."""
        try:
            module.load_state_dict(self.weights[name])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            first = str(error).strip().splitlines()[-1].strip()
            raise UserError(
                f"{self.path} holds a different {name} from the one this configuration builds ({first})"
            ) from error

    def restore_optimiser(self, name: str, optimiser: Optimizer, kept: set[str]) -> None:
        """Load the state called `name` into `optimiser`, whose options stay; `kept`: what it stores for a parameter.

        Raises UserError if names, shapes or types differ, which would crash a fused step.
        """
        parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        saved = self.fact(name, dict).get("state")

        def fits(i: Any, part: Any) -> bool:
            if not (isinstance(i, int) and 0 <= i < len(parameters) and isinstance(part, dict) and set(part) == kept):
                return False
            likes = {key: torch.tensor(0.0) if key == "step" else parameters[i] for key in kept}
            return all(isinstance(part[key], Tensor) and _form(part[key]) == _form(likes[key]) for key in kept)

        if not isinstance(saved, dict) or not all(fits(i, part) for i, part in saved.items()):
            raise UserError(f"{self.path / 'state.pt'} holds a different {name} from the one this configuration builds")
        options = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": saved, "param_groups": options})

    def fact(self, name: str, kind: type[T]) -> T:
        """The checkpoint's value of `name`; raises UserError if it is missing, of another type, or out of range."""
        value = self.state.get(name)
        if isinstance(value, kind) and not (isinstance(value, int) and not 0 < value <= LARGEST):
            return value
        raise UserError(f"{self.path / self.source} is damaged: its {name} is {str(value)[:40]}")


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.dtype, tensor.layout


def save(folder: Path, step: int, networks: Mapping[str, nn.Module], state: Mapping[str, Any], keep: int) -> Path:
    """Write the checkpoint of `step` into `folder`, then remove all others except the `keep` - 1 before it.

    Returns its folder. Raises UserError for parameters that are not finite, for a network whose state cannot be saved,
    and if writing fails (on a full disk, for example); the partial checkpoint is then removed, and earlier ones stay.
    """
    for name, network in networks.items():
        for key, parameter in network.named_parameters():
            if not parameter.isfinite().all():
                raise UserError(
                    f"{name}'s {key} is not finite after step {step}, which was not saved; last good checkpoint: "
                    f"{last_of(folder)}; lower lr or change the loss"
                )
    contents = _contents(networks, state)
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
        _remove(target)
        part.rename(target)
        files.sync(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint of step {step} to {folder} ({error.strerror}); earlier ones are untouched: "
            "free some disk space and run the same command again"
        ) from error
    tidy(folder, step, keep)
    return target


def tidy(folder: Path, step: int, keep: int) -> None:
    """Keep only the checkpoint of `step`, which is complete, and the `keep` - 1 before it.

    Removes older ones, later ones (which are incomplete), and the partial files of a process that was killed.
    """
    ours = [path for path in steps(folder) if _step(path) <= step]
    for path in set(steps(folder)) - set(ours[-keep:]):
        _remove(path)
    for path in folder.glob(".step-*.part"):
        shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    """Remove a checkpoint; if killed midway, this leaves nothing that looks like one."""
    part = path.with_name(f".{path.name}.old.part")
    shutil.rmtree(part, ignore_errors=True)
    if path.exists():
        path.rename(part)
    shutil.rmtree(part, ignore_errors=True)


def rehearse(networks: Mapping[str, nn.Module]) -> None:
    """Raise UserError, naming the network, for a state that no checkpoint can hold; called before the first step."""
    contents = _contents(networks, {})
    try:
        weights, _ = _parsed(contents)
    except ValueError as error:
        raise UserError(f"the networks' state cannot be saved in a checkpoint: {error}") from error
    for name, network in networks.items():
        Checkpoint(Path("a checkpoint"), 0, weights, {}).restore(name, network)


def _contents(networks: Mapping[str, nn.Module], state: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of a checkpoint, by name; a tensor that has several keys in a network is written once for each."""
    contents: dict[str, bytes] = {}
    other: dict[str, dict[str, Any]] = {}
    for name, network in networks.items():
        contents[f"{name}.safetensors"], beside = as_safetensors(name, network)
        if beside:
            other[name] = beside
    buffer = io.BytesIO()
    try:
        torch.save({**state, **({OTHER: other} if other else {})}, buffer)
    except Exception as error:  # an object's pickling can raise anything
        raise UserError(f"the networks' extra state cannot be saved in a checkpoint: {error}") from error
    return {"state.pt": buffer.getvalue()} | contents


def as_safetensors(name: str, network: nn.Module) -> tuple[bytes, dict[str, Any]]:
    """The state of the network called `name` as a safetensors file, and the rest, which such a file cannot hold.

    Raises UserError for tensors that fit neither, for example sparse ones.
    """
    values = network.state_dict()
    plain = {key: value for key, value in values.items() if isinstance(value, Tensor) and not value.is_complex()}
    copies = {key: value.cpu().clone(memory_format=torch.contiguous_format) for key, value in plain.items()}
    try:
        return safetensors.torch.save(copies), {key: value for key, value in values.items() if key not in plain}
    except (ValueError, RuntimeError, KeyError) as error:  # sparse or quantised tensors, for example
        raise UserError(f"the {name}'s state cannot be saved in a checkpoint: {error}") from error


def at(folder: Path, step: int) -> Path:
    """The path of the checkpoint of `step`, whether or not it exists."""
    return folder / f"step-{step:06d}"


def steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first, without checking that they are complete."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{6,18}", path.name, re.ASCII)]
    return sorted((path for path in found if path == at(folder, _step(path))), key=_step)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def of_run(run: Path, which: Literal["best", "last"] | int) -> Checkpoint:
    """The best (by the run's measure), the last, or the given checkpoint of the run in the folder `run`.

    A folder that `mmgan.push` wrote has one checkpoint, the last. Raises UserError if there is none.
    """
    if not (run / "config.yaml").exists():
        raise UserError(f"{run} is not a run: it has no config.yaml")
    if (run / PUSHED).exists():
        return _pushed(run, which)
    if isinstance(which, int):
        folder = run / "checkpoints"
        if at(folder, which) not in steps(folder):
            there = ", ".join(path.name for path in steps(folder)) or "none"
            raise UserError(f"{run} has no checkpoint of step {which}; it has {there}")
        try:
            return read(at(folder, which))
        except ValueError as error:
            raise UserError(f"cannot read the checkpoint of step {which} in {folder}: {error}") from error
    saved = latest(run / ("best" if which == "best" else "checkpoints"))
    if saved is None and which == "best" and steps(run / "best"):
        raise UserError(f"the best checkpoint in {run / 'best'} is damaged; use last")
    if saved is None and which == "best":
        raise UserError(f"{run} has no best checkpoint, because nothing was measured during training; use last")
    if saved is None:
        raise UserError(f"{run} has no intact checkpoint")
    return saved


def _pushed(folder: Path, which: Literal["best", "last"] | int) -> Checkpoint:
    """The checkpoint in a folder that `mmgan.push` wrote; raises UserError if it is damaged, or not `which`."""
    facts = files.read_json(folder / PUSHED)
    if isinstance(facts, dict) and facts.get("format", FORMAT) != FORMAT:
        raise UserError(f"{folder} is of format {facts['format']}; this version of mmgan reads {FORMAT}")
    try:
        step, kind, sums = facts["step"], facts["generator"], facts["sha256"]
        if type(step) is not int or kind not in ("raw", "ema") or sums.keys() != PUSHED_WEIGHTS:
            raise ValueError(f"{PUSHED} lacks required entries")
        if which not in ("last", step):
            raise UserError(f"{folder} has one checkpoint, of step {step}, and not {which}; use last")
        weights = _weights(_summed(folder, sums))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{folder} is damaged ({error}); fetch or push it again") from error
    if kind == "ema":
        weights["ema"] = weights["generator"]
    return Checkpoint(folder, step, weights, facts, PUSHED)


def source(folder: Path, init_from: str | None) -> Checkpoint | None:
    """The checkpoint whose weights a run in `folder` starts from; None for random weights, or if it has checkpoints.

    Raises UserError if the run `init_from` has none.
    """
    if init_from is None or latest(folder / "checkpoints"):
        return None
    try:
        return of_run(Path(init_from).expanduser(), "last")
    except UserError as error:
        raise UserError(f"init_from: {error}") from error


def last_of(folder: Path) -> str:
    """The name of the last checkpoint in `folder`, or "none yet"."""
    return next((str(path) for path in reversed(steps(folder))), "none yet")


def read(path: Path) -> Checkpoint:
    """The checkpoint in the folder `path`; raises ValueError, saying what is wrong, if it is not intact."""
    try:
        sums = files.read_json(path / "checksums.json")
        if not isinstance(sums, dict) or not isinstance(sums.get("sha256"), dict):
            raise ValueError("checksums.json is damaged")
        if sums.get("format") != FORMAT:
            raise ValueError(f"its format is {sums.get('format')}, but this version reads {FORMAT}")
        step, names = sums.get("step"), sums["sha256"]
        if type(step) is not int or path.name != f"step-{step:06d}":
            raise ValueError(f"checksums.json says it is of step {step}")
        if "state.pt" not in names or not all(re.fullmatch(r"state\.pt|\w+\.safetensors", name) for name in names):
            raise ValueError("checksums.json lists files that are not those of a checkpoint")
        contents = _summed(path, names)
    except UserError as error:
        raise ValueError(f"it is incomplete ({error})") from error
    return Checkpoint(path, step, *_parsed(contents))


def _summed(folder: Path, sums: Mapping[str, str]) -> dict[str, bytes]:
    """The contents of files, by name; raises UserError if one cannot be read, ValueError if its SHA-256 differs."""
    contents = {name: files.read(folder / name) for name in sums}
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sums[name]:
            raise ValueError(f"{name} does not match its checksum")
    return contents


def _weights(contents: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """The contents of a checkpoint's safetensors files, by network; raises ValueError if they are damaged."""
    try:
        return {
            name.removesuffix(".safetensors"): safetensors.torch.load(content)
            for name, content in contents.items()
            if name.endswith(".safetensors")
        }
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"its weights are damaged ({error})") from error


def _parsed(contents: Mapping[str, bytes]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Weights and state from a checkpoint's files; raises ValueError unless they are of the form that `save` writes."""
    weights = _weights(contents)
    try:
        state = torch.load(io.BytesIO(contents["state.pt"]), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"state.pt holds more than tensors and plain values ({error})") from error
    except Exception as error:  # torch.load does not document what it raises for a damaged file
        raise ValueError(f"state.pt is damaged ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError("state.pt is damaged")
    other = state.pop(OTHER, {})
    if not isinstance(other, dict) or not all(isinstance(values, dict) for values in other.values()):
        raise ValueError("state.pt is damaged")
    for name, values in other.items():
        weights.setdefault(name, {}).update(values)
    return weights, state


def latest(folder: Path) -> Checkpoint | None:
    """The last intact checkpoint in `folder`, or None; warns about each one that is skipped."""
    for path in reversed(steps(folder)):
        try:
            return read(path)
        except ValueError as error:
            warnings.warn(f"skipping the checkpoint {path}: {error}", stacklevel=2)
    return None
