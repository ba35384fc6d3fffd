"""The files of a run: read only if they are regular files, written atomically."""

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

from mmgan.engine.values import from_yaml
from mmgan.errors import UserError

if TYPE_CHECKING:  # slow to import
    from matplotlib.figure import Figure


def read(path: Path) -> bytes:
    """The bytes of a file; raises UserError if it is missing, unreadable, or a folder, pipe or device."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is not a file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror})") from error


def appears(path: Path, seconds: int) -> bool:
    """Whether a file just written by another machine appears within `seconds`; network file systems show it late."""
    for _ in range(seconds):
        if path.exists():
            return True
        time.sleep(1)
    return path.exists()


def read_json(path: Path) -> Any:
    """The contents of a JSON file; raises UserError like `read`, and if it is damaged."""
    try:
        return json.loads(read(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); remove or repair it") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The contents of a configuration; raises UserError like `read`, and if it is not a mapping of names to values."""
    try:
        values = from_yaml(read(path).decode())
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}); remove or repair it") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} is damaged (it is not a mapping of options to values); remove or repair it")
    return values


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, each a mapping with a step; incomplete or damaged lines are skipped.

    Raises UserError like `read`; a missing file has no rows.
    """
    return [row for line in lines(path) if (row := row_of(line)) is not None]


def lines(path: Path) -> list[str]:
    """The complete lines of a text file, with line ends; none if it is missing. Raises UserError like `read`."""
    if not path.exists():
        return []
    return [line for line in read(path).decode(errors="replace").splitlines(keepends=True) if line.endswith("\n")]


def row_of(line: str) -> dict[str, Any] | None:
    """A line of a metrics.jsonl: a mapping whose step is a positive whole number; None for anything else."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    step = row.get("step") if isinstance(row, dict) else None
    return row if isinstance(step, int) and step > 0 and not isinstance(step, bool) else None


def write(path: Path, content: str | bytes) -> None:
    """Replace a file atomically and sync it to disk; if it raises OSError, it leaves no partial file behind."""
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
    """Whatever is written to the buffer (a picture, for example) becomes the file, as with `write`."""
    buffer = BytesIO()
    yield buffer
    write(path, buffer.getvalue())


def draw(figure: Figure, path: Path, **options: Any) -> None:
    """Write a matplotlib figure as with `write`; `options` are those of savefig.

    Figures contain reference cycles, which only a full garbage collection frees: it runs here, so that a long run does
    not accumulate earlier figures.
    """
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."), **options)
    gc.collect()


@contextmanager
def writing(folder: Path, option: str = "--output") -> Iterator[None]:
    """Turn any OSError into a UserError that says what could not be written and which option to change."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}); choose another {option}") from error


def is_ours(path: Path) -> bool:
    """Whether this file was left by a run that was killed, or ran out of disk space, before it began."""
    return path.name == ".lock" or (path.name.startswith(".") and path.name.endswith(".part"))


def sync(folder: Path) -> None:
    """Sync a folder's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
