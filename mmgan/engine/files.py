"""The files of a run: read only where they are plain files, written whole or not at all."""

from __future__ import annotations

import gc
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mmgan.engine.values import load
from mmgan.errors import UserError

if TYPE_CHECKING:  # it takes a while to import
    from matplotlib.figure import Figure


def read(path: Path) -> bytes:
    """The bytes of a file; raises UserError where it is missing, cannot be read, or is a folder, pipe or device."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is not a file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error


def appears(path: Path, seconds: int) -> bool:
    """Whether a file that another machine has just written is there; a network file system shows it after a while."""
    for _ in range(seconds):
        if path.exists():
            return True
        time.sleep(1)
    return path.exists()


def read_json(path: Path) -> Any:
    """What a JSON file holds; raises UserError like `read`, and for a damaged one."""
    try:
        return json.loads(read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); remove or repair it") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """What a configuration holds; raises UserError like `read`, and for one that is no mapping of names to values."""
    try:
        values = load(read(path).decode())
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}); remove or repair it") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} is damaged (it is no mapping of options to values); remove or repair it")
    return values


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, each a mapping with a step; lines that are torn or damaged are passed over.

    Raises UserError like `read`; a file that is not there has no rows.
    """
    return [row for line in lines(path) if (row := row_of(line)) is not None]


def lines(path: Path) -> list[str]:
    """The whole lines of a text, each with its end; none of a file that is not there. Raises UserError like `read`."""
    if not path.exists():
        return []
    return [line for line in read(path).decode(errors="replace").splitlines(keepends=True) if line.endswith("\n")]


def row_of(line: str) -> dict[str, Any] | None:
    """A line of a metrics.jsonl: a mapping whose step is a whole number from 1 on; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if isinstance(step, int) and step > 0 and not isinstance(step, bool) else None


def write(path: Path, content: str | bytes) -> None:
    """Replace a file, on the disk, whole or not at all; raises OSError, and then leaves no part of it behind."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    except OSError:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BytesIO]:
    """What is written into the buffer becomes the file, as by `write`: a picture, say."""
    buffer = BytesIO()
    yield buffer
    write(path, buffer.getvalue())


def draw(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure of matplotlib as by `write`; `options` are those of its savefig.

    Figures are circles of objects, which only a full collection frees: those of earlier figures, which a long run would
    pile up, are freed here.
    """
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), **options)
    gc.collect()


@contextmanager
def writing(folder: Path, option: str = "--output") -> Iterator[None]:
    """Turn any OSError into a UserError that says what could not be written, and which option would name another."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another {option}") from error


def is_ours(path: Path) -> bool:
    """Whether this is what a run leaves in its folder that was killed, or found no room, before it had begun."""
    return path.name == ".lock" or (path.name.startswith(".") and path.name.endswith(".part"))


def sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
