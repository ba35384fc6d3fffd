"""Modules by name: the files of a package that a name on the command line can mean, or a module of the user's."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from mmgan.errors import UserError


def names(package: ModuleType) -> list[str]:
    """The files of `package` that are no internals of it."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def find(package: ModuleType, name: str, option: str) -> ModuleType:
    """The file `name` of `package`, else the module `name`; raises UserError, naming `option`, when there is none."""
    known = names(package)
    try:
        return importlib.import_module(f"{package.__name__}.{name}" if name in known else name)
    except (ImportError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{option} {name!r} is none of {', '.join(known)}, nor a module that can be imported ({error})"
        ) from error
