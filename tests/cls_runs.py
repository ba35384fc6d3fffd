"""What tests of classifier runs share."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmgan.engine import checkpoint


def begun(run: Path, copy: Path) -> Path:
    """A copy of a run as it was at the first of its checkpoints that are kept."""
    shutil.copytree(run, copy)
    for late in checkpoint.steps(copy / "checkpoints")[1:]:
        shutil.rmtree(late)
    return copy
