"""Statistics of real images, cached on disk under a hash of everything they depend on."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = 1


def folder() -> Path:
    """`mmgan/scores` in XDG_CACHE_HOME, or in ~/.cache if that is not set."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "mmgan" / "scores"


def content_hash(images: Tensor) -> str:
    """SHA-256 of the shape and bytes of a tensor [N, ...]: images (uint8) or labels (int64)."""
    digest = hashlib.sha256(repr(list(images.shape)).encode())
    for part in images.split(4096):
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()


def path(facts: Mapping[str, Any]) -> Path:
    """The file of the tensors that `facts` determine."""
    key = json.dumps({"format": FORMAT, **facts}, sort_keys=True)
    return folder() / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def read(file: Path) -> dict[str, Tensor] | None:
    """The tensors in `file`; None if it is missing or, with a warning, damaged."""
    try:
        return safetensors.torch.load(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        warnings.warn(f"computing the statistics in {file} again, because the file is damaged ({error})", stacklevel=2)
        return None


def write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Save the tensors atomically; if they cannot be written, warn and continue."""
    part = file.with_name(f"{uuid.uuid4().hex}.part")  # others may be writing the same file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()}))
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        advice = "set XDG_CACHE_HOME to another folder"
        warnings.warn(f"cannot cache statistics in {file.parent} ({error.strerror}); {advice}", stacklevel=2)
