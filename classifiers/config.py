"""What a classifier run can be told. Defaults are the paper's for CIFAR-10 (sections 5.1 and appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from classifiers.adversarial import AdversarialTraining
from classifiers.networks import NetworkConfig
from classifiers.supervised import LOSSES
from mmgan.data import DataConfig
from mmgan.mixup import ClassifierMixup


@dataclass(frozen=True)
class ClassifierData(DataConfig):
    """Images: which of them, and how they are augmented."""

    validation: int = 0
    """Images, drawn at random, that are kept from training to choose the best checkpoint by; 0: none, as the paper."""
    labels_per_class: int | None = None
    """Train on so many images of every class, drawn from what validation leaves; null: on all of them."""
    subset_seed: int = 0
    """Seed of both draws."""
    pad: int = 4
    """Shift images at random by up to so many pixels (a crop after padding with black); the authors' code takes 2."""
    flip: bool = True
    """Mirror images at random."""
    cutout: int = 0
    """Side of a square to fill with the mean colour, at a random place of every image (DeVries & Taylor); 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("validation", "pad", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} must be 0 or more, not {getattr(self, name)}")
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise ValueError(f"data.labels_per_class must be positive, not {self.labels_per_class}")


@dataclass(frozen=True)
class ClassifierConfig:
    """Training."""

    data: ClassifierData = field(default_factory=ClassifierData)
    """Data."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Network."""
    mixup: ClassifierMixup | None = field(default_factory=ClassifierMixup)
    """Mixup (Eq. 1); null for none."""
    adversarial: AdversarialTraining | None = None
    """Adversarial training; null for none."""
    loss: str = "ce"
    """ce, or bce_softmax of the authors' code (classifiers/supervised.py)."""
    epochs: int = 1200
    """Passes over the training images."""
    batch_size: int = 128
    """Images of a step, over all processes."""
    lr: float = 0.1
    """Learning rate of SGD."""
    momentum: float = 0.9
    """Its momentum."""
    nesterov: bool = False
    """Nesterov's form of it, as in the authors' code."""
    weight_decay: float = 1e-4
    """L2 regularisation of every parameter, in the gradient."""
    lr_schedule: Literal["step", "cosine", "constant"] = "step"
    """Divide lr by 10 at `milestones`, let it fall to 0 as half a cosine, or keep it."""
    milestones: Sequence[int] = (400, 800)
    """Epochs after which lr_schedule step divides by 10."""
    seed: int = 0
    """Every random number follows from it, but for data.subset_seed's."""
    mixed_precision: Literal["bf16", "fp16"] | None = None
    """Half precision for convolutions and matrix products; null: none, though a GPU may use TF32 in convolutions."""
    deterministic: bool = True
    """Ask for algorithms that give the same bits every time (a warning names one that cannot); false: the fastest."""
    log_every: int = 50
    """Steps between rows of metrics.jsonl, each a mean over them."""
    validate_every: int = 1
    """Epochs between evaluations on the validation images."""
    checkpoint_every: int = 10
    """Epochs between checkpoints."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints to keep; the best one is kept beside them."""
    tracker: str | None = "tensorboard"
    """A tracker Accelerate knows (tensorboard, wandb, ...) that gets every row of metrics.jsonl too; null: none."""

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, not {self.loss!r}")
        positive = ("epochs", "batch_size", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "lr")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay must be 0 or more, not {self.weight_decay}")
        if self.lr_schedule == "step" and not all(0 < epoch < self.epochs for epoch in self.milestones):
            raise ValueError(f"milestones {list(self.milestones)} must lie within the {self.epochs} epochs")
        if self.mixup and self.batch_size % self.mixup.blocks:
            raise ValueError(f"mixup.blocks {self.mixup.blocks} must divide batch_size {self.batch_size}")
        if self.adversarial and self.mixed_precision == "fp16":
            raise ValueError("adversarial needs mixed_precision bf16 or null: gradients of pixels underflow in fp16")
        if self.adversarial and self.adversarial.order == "mix-attack" and self.mixup and self.mixup.detach:
            raise ValueError("adversarial.order mix-attack needs the gradient that mixup.detach blocks")
