"""The code that a name may import: a file in one of our packages, or code that the user trusts."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Any

import jsonargparse

from mmgan.errors import UserError

OWN = ["mmgan", "classifiers"]
"""Packages whose classes any configuration may name."""
jsonargparse.set_parsing_settings(
    import_path_denylist=["*"], import_path_allowlist=OWN, instantiate_subclass_spec_in_any=False
)
_trusted: set[str] = set()


def trust(names: Iterable[str]) -> None:
    """Allow this process to import these names: the user gave them on the command line or trusts their file."""
    wanted = {name for name in names if name.partition(".")[0] not in (*OWN, "jsonargparse") and "<" not in name}
    _trusted.update(wanted)
    jsonargparse.set_parsing_settings(import_path_allowlist=sorted(name for name in wanted if "." in name))


def names_in(value: Any) -> Iterator[str]:
    """The names of code in a configuration: any words joined by dots, and data sets."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from [one] if key == "name" and isinstance(one, str) else names_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from names_in(one)
    elif isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value):
        yield value


def classes_in(value: Any) -> Iterator[str]:
    """The classes in a configuration made of objects, whose code has already run."""
    if is_dataclass(value):
        yield path_of(type(value))
        for field in fields(value):
            yield from classes_in(getattr(value, field.name))


def path_of(one: type) -> str:
    """The dotted name of a class."""
    return f"{one.__module__}.{one.__qualname__}"


def names(package: ModuleType) -> list[str]:
    """The modules in `package`, except internal ones."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def import_all(package: str) -> None:
    """Import the modules of a package, so that their classes are known by their short names."""
    for name in names(sys.modules[package]):
        importlib.import_module(f"{package}.{name}")


def find(package: ModuleType, name: str) -> ModuleType:
    """The data set `name` in `package`, or the trusted module `name`; otherwise raises UserError."""
    known = names(package)
    if name not in known and name not in _trusted:
        raise UserError(
            f"data.name {name!r} is not one of {', '.join(known)}; name your own module on the command line "
            f"(--data.name {name}), because a file may not choose code"
        )
    try:
        return importlib.import_module(f"{package.__name__}.{name}" if name in known else name)
    except (ImportError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"data.name {name!r} is neither one of {', '.join(known)} nor a module that can be imported ({error})"
        ) from error
