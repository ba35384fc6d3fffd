"""Which package may import which."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

MAY = {
    "mixup": {"torch"},
    "data": {"torch", "torchvision", "numpy", "PIL", "filelock", "sklearn", "tqdm"}
    | {"mmgan.data", "mmgan.errors", "mmgan.memory", "mmgan.modules"},
    "engine": {"torch", "accelerate", "safetensors", "jsonargparse", "yaml", "filelock", "tqdm", "matplotlib"}
    | {"mmgan.engine", "mmgan.errors", "mmgan.modules"},
    "experiments": {
        "numpy",
        "scipy",
        "matplotlib",
        "jinja2",
        "markupsafe",
        "yaml",
        "filelock",
        "optuna",
        "psutil",
        "sqlalchemy",
        "tqdm",
    }
    | {"mmgan.experiments", "mmgan.engine", "mmgan.errors", "mmgan.modules"},
    "scoring": {"torch", "torch_fidelity", "torchvision", "accelerate", "safetensors", "scipy", "tqdm"}
    | {f"mmgan.{name}" for name in ("scoring", "data", "engine", "errors", "modules")},
    "gan": {"torch", "torchvision", "accelerate", "huggingface_hub", "jinja2", "matplotlib", "numpy", "yaml"}
    | {
        f"mmgan.{name}"
        for name in ("gan", "mixup", "data", "engine", "scoring", "experiments", "errors", "modules", "memory")
    },
}
"""What each package of mmgan may import besides the standard library."""
CLASSIFIERS = {"torch", "accelerate", "matplotlib", "numpy", "PIL", "scipy", "sklearn", "tqdm", "yaml", "pyautoattack"}
CLASSIFIERS |= {"classifiers"}
CLASSIFIERS |= {
    f"mmgan.{name}" for name in ("mixup", "data", "engine", "scoring", "experiments", "errors", "modules", "memory")
}


def imported(file: Path) -> set[str]:
    """Top-level packages a file imports; of mmgan, the package below it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # in mixup alone, so that it can be copied under another name
                levels = {"mixup": 1, "rules": 2, "losses": 2}
                assert node.level <= levels.get(file.parent.name, 0), f"{file} imports relatively"
                continue
            names |= {
                f"{node.module}.{alias.name}" if node.module == "mmgan" else str(node.module) for alias in node.names
            }
    parts = [name.split(".") for name in names]
    return {".".join(part[:2]) if part[0] == "mmgan" else part[0] for part in parts} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("package", MAY)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    files = list((ROOT / "mmgan" / package).rglob("*.py"))
    assert files
    for file in files:
        assert imported(file) <= MAY[package], file


def test_classifiers_never_import_the_gan() -> None:
    files = list((ROOT / "classifiers").rglob("*.py"))
    assert {file.parent.name for file in files} == {
        *("classifiers", "attacks", "evaluation", "methods", "networks", "studies")
    }
    for file in files:
        assert imported(file) <= CLASSIFIERS, file


def test_every_package_has_its_line_here() -> None:
    assert {path.parent.name for path in (ROOT / "mmgan").glob("*/__init__.py")} == set(MAY)
