"""Options that every run has, whatever it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RunConfig:
    """Options of a run that do not depend on what it trains."""

    init_from: str | None = None
    """Another run's folder; training starts from its last weights (and from their average, or the scale of the pixels,
    if both runs keep one). Null: random weights. Optimisers and steps start anew, and the other run is not needed after
    the first checkpoint."""
    seed: int = 0
    """The run's seed; every random number is derived from it."""
    mixed_precision: Literal["bf16", "fp16"] | None = None
    """Half precision for convolutions and matrix products, also for samples and scores during training (except those of
    an average of the weights), but not for final scores; null: float32, though a GPU may use TF32 in convolutions."""
    compile: bool = False
    """Compile networks with torch.compile in the first steps, a minute or more each: for long runs on a GPU."""
    deterministic: bool = True
    """Use algorithms that give the same bits every time (a warning names any that cannot); false: the fastest."""
    log_every: int = 50
    """Steps between rows of metrics.jsonl; each row is a mean over these steps."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints to keep; the best one, if any, is kept as well."""
    tracker: str | None = "tensorboard"
    """A tracker supported by Accelerate (tensorboard, wandb, ...), for metrics, options and GANs' sample grids; null:
    none."""

    def __post_init__(self) -> None:
        self.check_positive("log_every", "checkpoint_every", "keep_checkpoints")

    def check_positive(self, *names: str) -> None:
        """Raise ValueError, naming the option, if one is not positive."""
        for name in names:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
