"""Changed options: what a run that is started again may change, and what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmgan.engine import files
from mmgan.engine.values import from_yaml
from mmgan.errors import UserError

HARMLESS = {"data.root", "data.download", "sample_every", "checkpoint_every", "keep_checkpoints", "tracker"}
HARMLESS |= {"score.final", "score.final_metrics", "score.extractor.run", "score.extractor.weights", "data.skip_broken"}
"""Options that may change between two starts of a run because they do not change its result: images and extractor are
compared by content."""
LENGTHS = ("steps", "epochs")
"""Options that may increase if nothing else in a run depends on them."""


def refuse_other_run(folder: Path, config: str) -> None:
    """Raise UserError if `folder` holds anything but a run of the configuration `config`, YAML text."""
    file = folder / "config.yaml"
    try:
        if file.exists():
            old, new = files.read_yaml(file), from_yaml(config)
            longer = [name for name in LENGTHS if _grows(old.get(name), new.get(name))]
            whole = _follows_length(new) if longer else None
            changes = differences(old if whole else old | {name: new[name] for name in longer}, new)
            if changes:
                advice = f" and, to start from its weights, --init_from {folder} ({whole})" if whole else ""
                raise UserError(f"{folder} holds a run with {'; '.join(changes)}; choose another --output{advice}")
        elif folder.is_dir() and not all(files.is_ours(path) for path in folder.iterdir()):
            raise UserError(f"{folder} is neither empty nor a run; choose another --output")
    except OSError as error:
        raise UserError(f"cannot read {folder} ({error.strerror}); choose another --output") from error


def _grows(before: Any, after: Any) -> bool:
    return isinstance(before, int) and isinstance(after, int) and before < after


def _follows_length(config: dict[str, Any]) -> str | None:
    """Why a longer run of this configuration differs from the first step on; None if it continues a shorter one."""
    schedule = config.get("lr_schedule")
    what = f"lr_schedule {schedule}" if schedule in ("linear", "cosine") else "ssl" if config.get("ssl") else None
    return what and f"{what} depends on the length of the run, so a longer one differs from the first step on"


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """`key old, not new` for every option that differs, except those that cannot change a result."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys(), key=str):
        before, after, name = old.get(key), new.get(key), prefix + key
        if isinstance(before, dict) and isinstance(after, dict) and before.get("class_path") == after.get("class_path"):
            found += differences(before, after, prefix if key == "init_args" else f"{name}.")
        elif before != after and name not in HARMLESS:
            found.append(f"{name} {_plain(before)}, not {_plain(after)}")
    return found


def _plain(value: Any) -> Any:
    """A section as text: the name of its class and its options."""
    if not (isinstance(value, dict) and "class_path" in value):
        return value
    options = ", ".join(f"{key} {_plain(option)}" for key, option in (value.get("init_args") or {}).items())
    return f"{str(value['class_path']).rpartition('.')[2]}{options and f' with {options}'}"
