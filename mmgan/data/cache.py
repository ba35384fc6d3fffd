"""Decoded images cached on disk with a checksum, and mapped into memory.

A file holds the images' bytes, a JSON object of facts about them, the length of that object in 8 bytes, and the SHA-256
of everything before it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from mmgan.errors import UserError

Writer = Callable[[Callable[[bytes], object]], dict[str, Any]]
"""Passes images to a function in pieces, row by row, and returns their `shape` and other facts."""


class Cached(NamedTuple):
    """The contents of a file."""

    images: np.ndarray
    """uint8, mapped copy-on-write: changes do not reach the file."""
    facts: dict[str, Any]


def cached(name: str, key: str, write: Writer) -> Cached:
    """The images called `name` in the cache folder; `write` makes them if the file is missing or damaged.

    A file with a key other than `key` is replaced as well. Raises UserError if it cannot be written.
    """
    file = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mmgan" / f"{name}.images"
    with suppress(ValueError):
        if found := _read(file, key):
            return found
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):  # another process may be writing it
            try:
                if found := _read(file, key):
                    return found
            except ValueError as error:
                print(f"{file} is damaged ({error}); the images are decoded again", flush=True)
            _remove_leftovers(file.parent)
            _write(file, key, write)
        found = _read(file, key)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        advice = "free some disk space there, or set XDG_CACHE_HOME to another folder"
        raise UserError(f"cannot cache the decoded images in {file} ({reason}); {advice}") from error
    assert found is not None
    return found


def _read(file: Path, key: str) -> Cached | None:
    """The contents of `file`, or None if it is missing or has another key; raises ValueError if it is damaged."""
    try:
        content = np.memmap(file, np.uint8, "c")
    except OSError:
        return None
    body, digest = content[:-32], content[-32:]
    if hashlib.sha256(body.data).digest() != digest.tobytes():
        raise ValueError("its checksum does not match")
    length = int.from_bytes(body[-8:].tobytes(), "big")
    facts = json.loads(body[-8 - length : -8].tobytes())
    if facts["key"] != key:
        return None
    return Cached(body[: math.prod(facts["shape"])].reshape(facts["shape"]), facts)


def _write(file: Path, key: str, write: Writer) -> None:
    """Write the file atomically, and not through a memory map, so that a full disk raises an error, not a signal."""
    part, digest = file.with_name(f"{file.name}.part"), hashlib.sha256()
    try:
        with part.open("wb") as out:

            def put(piece: bytes) -> None:
                digest.update(piece)
                out.write(piece)

            facts = json.dumps(write(put) | {"key": key}).encode()
            put(facts + len(facts).to_bytes(8, "big"))
            out.write(digest.digest())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _remove_leftovers(folder: Path) -> None:
    """Remove incomplete files left by killed processes: nobody holds their lock."""
    for part in folder.glob("*.part"):
        with suppress(Timeout), FileLock(f"{part.with_suffix('')}.lock", timeout=0):
            part.unlink(missing_ok=True)
