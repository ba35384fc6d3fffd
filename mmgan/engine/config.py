"""What every run can be told, whatever it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RunConfig:
    """Options of a run that are not about what it trains."""

    init_from: str | None = None
    """Another run, from whose last weights (with an average of them, or the scale of the pixels, where both keep one)
    this one starts; null: random ones. Optimisers and steps start anew, and the other run is not needed after the first
    checkpoint."""
    seed: int = 0
    """Every random number follows from it."""
    mixed_precision: Literal["bf16", "fp16"] | None = None
    """Half precision for convolutions and matrix products; null: none, though a GPU may use TF32 in convolutions."""
    compile: bool = False
    """Compile networks by torch.compile in the first steps, a minute or more each: for long runs on a GPU."""
    deterministic: bool = True
    """Ask for algorithms that give the same bits every time (a warning names one that cannot); false: the fastest."""
    log_every: int = 50
    """Steps between rows of metrics.jsonl, each a mean over them."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints to keep; the best one, where there is one, is kept beside them."""
    tracker: str | None = "tensorboard"
    """A tracker Accelerate knows (tensorboard, wandb, ...) for metrics, options and GANs' sample grids; null: none."""

    def __post_init__(self) -> None:
        self.check_positive("log_every", "checkpoint_every", "keep_checkpoints")

    def check_positive(self, *names: str) -> None:
        """Raise ValueError, naming the option, for one that is not positive."""
        for name in names:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
