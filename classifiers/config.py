"""The options of a classifier run. Defaults are the paper's for CIFAR-10 (section 5.1 and appendix C)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from classifiers.attacks.adversarial import AdversarialTraining
from classifiers.fortified import Fortified
from classifiers.methods import SemiSupervised
from classifiers.networks import NetworkConfig
from classifiers.networks.preactresnet import PreActResNet
from classifiers.preprocess import Preprocess
from classifiers.supervised import ClassifierLoss, CrossEntropy
from mmgan.data import DataConfig
from mmgan.engine.config import RunConfig
from mmgan.mixup import ClassifierMixup, ClassifierRule


@dataclass(frozen=True)
class ClassifierData(DataConfig):
    """Images: which ones, and how they are augmented."""

    validation: int = 0
    """Number of images, drawn at random, held out to choose the best checkpoint with; 0: none, as in the paper."""
    labels_per_class: int | None = None
    """Train on this many images of every class, drawn from those not used for validation; null: on all of them."""
    subset_seed: int = 0
    """Seed for drawing the images of validation and labels_per_class."""
    preprocess: Preprocess = "standardise"
    """standardise: zero mean and unit variance per channel over the training images; symmetric: pixels to [-1, 1];
    gcn-zca: contrast normalised and whitened (Oliver et al.) before any augmentation, fitted on all images not used
    for validation."""
    pad: int = 4
    """Shift images at random by up to this many pixels (a crop after padding with black); the authors' code uses 2."""
    flip: bool = True
    """Mirror images at random."""
    border: Literal["black", "reflect"] = "black"
    """Padding of shifted images: black pads with 0 (with gcn-zca, the mean), reflect mirrors them (Oliver et al.)."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise on every pixel, in the units of layer 0: [0, 1], or those of gcn-zca."""
    cutout: int = 0
    """Side of a square at a random place in every image (DeVries & Taylor), filled with the mean colour, or with
    mid-grey if preprocess is symmetric; 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("validation", "pad", "cutout", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"data.{name} must be 0 or more, not {getattr(self, name)}")
        if self.labels_per_class is not None and self.labels_per_class < 1:
            raise ValueError(f"data.labels_per_class must be positive, not {self.labels_per_class}")
        if self.border == "reflect" and not self.pad:
            raise ValueError("data.border reflect needs data.pad")


@dataclass(frozen=True)
class ClassifierConfig(RunConfig):
    """Options of a classifier's training run.

    Examples:
        >>> from classifiers import ClassifierConfig
        >>> ClassifierConfig(epochs=30, milestones=(10, 20)).network
        PreActResNet(width=1.0, final_norm=True, dropout=0.0, depth=18)
    """

    data: ClassifierData = field(default_factory=ClassifierData)
    """The images, their split and augmentation."""
    network: NetworkConfig = field(default_factory=PreActResNet)
    """The network's architecture."""
    mixup: ClassifierRule | None = field(default_factory=ClassifierMixup)
    """Mixup (Eq. 1); null for none."""
    adversarial: AdversarialTraining | None = None
    """Adversarial training; null for none."""
    fortified: Fortified | None = None
    """A denoising autoencoder in the network; null for none."""
    ssl: SemiSupervised | None = None
    """Semi-supervised learning from unlabelled images; null: labelled images only."""
    loss: ClassifierLoss = field(default_factory=CrossEntropy)
    """Loss (classifiers/supervised.py)."""
    label_smoothing: float = 0.0
    """Share of a target's probability that is moved to the other classes, in equal parts; in [0, 1)."""
    epochs: int = 1200
    """Passes over the training images (the labelled ones)."""
    batch_size: int = 128
    """Labelled images per step, over all processes."""
    lr: float = 0.1
    """Learning rate of SGD."""
    momentum: float = 0.9
    """Momentum of SGD, in [0, 1)."""
    nesterov: bool = False
    """Use Nesterov momentum, as in the authors' code."""
    weight_decay: float = 1e-4
    """L2 regularisation of every parameter, added to the gradient."""
    l1: float = 0.0
    """L1 regularisation: factor on the sum of the absolute values of weights, excluding biases and norms."""
    l1_on: Literal["all", "first"] = "all"
    """Weights that l1 applies to: all (appendix E), or only those of the first convolution, as in the authors' code."""
    lr_schedule: Literal["step", "cosine", "constant"] = "step"
    """step: divide lr by 10 at `milestones`; cosine: decay it to 0 along half a cosine; constant: keep it."""
    milestones: Sequence[int] = (400, 800)
    """Epochs after which lr_schedule step divides lr by 10."""
    cosine_epochs: int | None = None
    """Epochs after which lr_schedule cosine reaches 0, no earlier than the end of the run; null: at its end."""
    seed: int = 0
    """The run's seed: every random number follows from it, except those of data.subset_seed."""
    validate_every: int = 1
    """Epochs between evaluations on the validation images."""
    checkpoint_every: int = 10
    """Epochs between checkpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("epochs", "batch_size", "validate_every", "lr")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), not {self.momentum}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum")
        for name in ("weight_decay", "l1"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if self.l1_on == "first" and not self.l1:
            raise ValueError("l1_on first needs l1")
        if self.lr_schedule == "step" and not all(0 < epoch < self.epochs for epoch in self.milestones):
            raise ValueError(f"milestones {list(self.milestones)} must lie within the {self.epochs} epochs; set both")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {self.label_smoothing}")
        if self.cosine_epochs is not None and (self.lr_schedule != "cosine" or self.cosine_epochs < self.epochs):
            raise ValueError(f"cosine_epochs needs lr_schedule cosine, and at least the {self.epochs} epochs")
        if self.adversarial:
            self._check_attack(self.adversarial)
        if self.fortified and self.mixup and self.mixup.detach:
            raise ValueError("mixup.detach leaves layers without a gradient, and fortified gives them one; drop one")
        if self.fortified and self.mixup and self.mixup.learns:
            raise ValueError(f"fortified and mixup {type(self.mixup).__name__} do not go together; leave one out")
        if self.fortified and self.fortified.cross and not (self.adversarial and self.adversarial.clean):
            raise ValueError("fortified.cross compares attacked images with clean ones: set adversarial.clean true")
        if self.ssl:
            if self.mixup and self.mixup.learns:
                raise ValueError(f"mixup {type(self.mixup).__name__} learns from labelled images; leave out it or ssl")
            if self.ssl.rule and self.ssl.rule.learns:
                raise ValueError(f"ssl.mixup {type(self.ssl.rule).__name__} learns from labels; use another rule")
            if self.mixup and self.mixup.detach:
                raise ValueError("mixup.detach is an ablation of supervised learning; leave it out with ssl")
            self.ssl.check(self)

    @property
    def unlabelled_batch(self) -> int:
        """Unlabelled images per step, over all processes."""
        return (self.ssl and self.ssl.batch_size) or self.batch_size

    @property
    def rules(self) -> dict[str, ClassifierRule]:
        """The run's mixup rules, by section."""
        rules = {"mixup": self.mixup, "ssl.mixup": self.ssl.rule if self.ssl else None}
        return {name: rule for name, rule in rules.items() if rule}

    def _check_attack(self, adversarial: AdversarialTraining) -> None:
        """Raise ValueError for options of other sections that are incompatible with adversarial training."""
        if self.mixed_precision == "fp16":
            raise ValueError("adversarial needs mixed_precision bf16 or null: gradients of pixels underflow in fp16")
        if adversarial.order == "mix-attack" and self.mixup and self.mixup.detach:
            raise ValueError("adversarial.order mix-attack needs the gradient that mixup.detach blocks")
        if adversarial.order == "mix-attack" and self.mixup and self.mixup.learns:
            raise ValueError("adversarial.order mix-attack would cut the gradient mixup learns from; use attack-mix")
        if self.data.preprocess == "gcn-zca":
            raise ValueError("adversarial.eps is in pixels, but data.preprocess gcn-zca whitens images before a step")
        if self.data.noise:
            raise ValueError("adversarial clamps images to [0, 1], but data.noise takes them outside; set data.noise 0")
        if self.ssl:
            raise ValueError("adversarial and ssl do not go together; leave one of them out")
