"""Classifiers on the mixup core: the paper's supervised and semi-supervised side.

- `train(config, folder)` trains a classifier; its configuration is a `ClassifierConfig`, a dictionary, a YAML file, or
  the name of one that comes with mmgan: `cls/digits`.
- `load_classifier(run)` opens a run: its network, its configuration and the checkpoint.

These names are the public interface. Other modules may change from one version to the next.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classifiers.config import ClassifierConfig
    from classifiers.load import load_classifier
    from classifiers.training import train

__all__ = ["ClassifierConfig", "load_classifier", "train"]
_PLACES = {"ClassifierConfig": "config", "load_classifier": "load", "train": "training"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _PLACES:
        return getattr(import_module(f"classifiers.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'classifiers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
