"""Options of a GAN run. Defaults are the paper's, or those of Miyato et al. where the paper follows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mmgan.data import DataConfig
from mmgan.engine.config import RunConfig
from mmgan.errors import UserError
from mmgan.gan.augment import DiffAugment
from mmgan.gan.networks import DiscriminatorConfig, GeneratorConfig
from mmgan.gan.networks.resnet import ResNetDiscriminator, ResNetGenerator
from mmgan.mixup import JS, DiscriminatorMixup, DiscriminatorRule, Loss
from mmgan.scoring import PROTOCOLS, ExtractorConfig, Inception
from mmgan.scoring.protocol import Metric, ProtocolName


@dataclass(frozen=True)
class GANData(DataConfig):
    """Images, and how the discriminator sees them."""

    subset: int | None = None
    """Train on this many images, drawn at random with the run's seed; null: all. Scores always compare with all
    images."""
    flip: bool = False
    """Flip images horizontally at random."""
    dequantise: bool = True
    """Add U(0, 1) to 8-bit values before scaling them to [-1, 1) (Miyato et al.)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subset is not None and self.subset < 1:
            raise ValueError(f"data.subset must be positive, not {self.subset}")


@dataclass(frozen=True)
class ScoreConfig:
    """Scores during training, which they do not affect; the checkpoint with the lowest FID is kept in best/."""

    every: int = 1000
    """Steps between scores (IS and FID)."""
    extractor: ExtractorConfig = field(default_factory=Inception)
    """Network whose features are compared: Inception (FID's own), Fidelity (another of torch-fidelity's), Torchvision
    (a classifier trained on ImageNet) or Classifier (a run of mmgan train-cls on the same data)."""
    num_samples: int = 5000
    """Number of images to generate, 10 to 10,000,000."""
    reference: Literal["train", "test"] = "train"
    """Split of the real images to compare with; all of its images are used."""
    final: ProtocolName | None = "train-50k"
    """Protocol (mmgan/scoring/protocol.py) for scoring the last and the best checkpoint at the end; null: do not score
    them."""
    final_metrics: str = "is,fid"
    """Metrics of these final scores, separated by commas: any of is, fid, kid, prc (precision and recall), dc (density
    and coverage) and, for conditional GANs, intra (FID of each class)."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"score.every must be positive, not {self.every}")
        try:
            self.metrics()
        except UserError as error:
            raise ValueError(f"score.final_{error}") from None
        if self.num_samples < 10:
            raise ValueError(f"score.num_samples must be at least 10, not {self.num_samples}")
        if self.num_samples > 10_000_000:
            raise ValueError(f"score.num_samples must be at most 10000000, not {self.num_samples}: all are generated")

    def metrics(self) -> Sequence[Metric]:
        """`final_metrics` as a list."""
        return PROTOCOLS["train-50k"].of(self.final_metrics).metrics


@dataclass(frozen=True)
class BurnIn:
    """R3GAN's schedule (Huang et al. 2024, arXiv:2501.05441): from the run's options to these along half a cosine.

    The half-life of `ema` grows along the same curve, from 0, so an average loaded by `init_from` is discarded. The
    defaults are the authors' for CIFAR-10.

    Examples:
        >>> from mmgan import BurnIn, GANConfig
        >>> config = GANConfig(burn_in=BurnIn(images=640), lr_schedule="constant", r1_gamma=0.05)
        >>> config.burn_in.gamma  # the final value of r1_gamma
        0.005
    """

    images: int = 20_000_000
    """Real images (generator steps times batch size) after which nothing changes any more."""
    lr: float = 5e-5
    """Final learning rate."""
    gamma: float = 0.005
    """Final gamma of R1 and R2, for those that are not 0."""
    beta2: float = 0.99
    """Final value of Adam's second decay rate, in [0, 1)."""

    def __post_init__(self) -> None:
        for name in ("images", "lr", "gamma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"burn_in.{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"burn_in.beta2 must be in [0, 1), not {self.beta2}")


@dataclass(frozen=True)
class GANConfig(RunConfig):
    """Options of a GAN's training run.

    Examples:
        >>> from mmgan import GANConfig, losses, rules
        >>> GANConfig(mixup=rules.DiscriminatorMixup(alpha=0.2), loss=losses.Hinge(), steps=100).loss
        Hinge(saturating=False)
    """

    data: GANData = field(default_factory=GANData)
    """Images to train on."""
    generator: GeneratorConfig = field(default_factory=ResNetGenerator)
    """Class and options of the generator."""
    discriminator: DiscriminatorConfig = field(default_factory=ResNetDiscriminator)
    """Class and options of the discriminator."""
    mixup: DiscriminatorRule | None = field(default_factory=DiscriminatorMixup)
    """Mixup in the discriminator (Eq. 8-11); null for the baseline."""
    loss: Loss = field(default_factory=JS)
    """GAN loss of both networks."""
    r1_gamma: float = 0.0
    """Gamma of the R1 penalty, gamma / 2 times the mean squared norm of the gradient of d at real images (Mescheder et
    al. 2018); 0: none."""
    r2_gamma: float = 0.0
    """Gamma of the R2 penalty, the same at fakes; 0: none."""
    conditional: Literal["uniform", "matched"] | None = None
    """Condition both networks on the images' labels. Labels of fakes are drawn uniformly (uniform) or match the data
    (matched): in training they are the labels of the batch's real rows, in samples and scores they are drawn in
    proportion to the class sizes. Null: unconditional."""
    augment: DiffAugment | None = None
    """Augmentation of the discriminator's input, both real rows and fakes, in both steps, before any mixing; null:
    none."""
    steps: int = 50_000
    """Generator steps."""
    n_dis: int = 5
    """Discriminator steps per generator step, at most 1000."""
    batch_size: int = 64
    """Number of real images, and also of fakes, in a discriminator step, over all processes; at least 2."""
    g_batch_size: int | None = None
    """Number of fakes in a generator step, over all processes; null: batch_size. Miyato et al. use 128."""
    reuse_fakes: bool = False
    """Step the generator first and show the discriminator the fakes of that step, made before the update (as in the
    official code)."""
    lr: float = 2e-4
    """Adam's learning rate for both networks."""
    betas: tuple[float, float] = (0.0, 0.9)
    """Adam's decay rates, both in [0, 1)."""
    lr_schedule: Literal["linear", "constant"] = "linear"
    """Learning rate: linear decay to 0 over all steps, or constant."""
    burn_in: BurnIn | None = None
    """R3GAN's schedule of the learning rate, gammas, Adam's second decay rate and `ema`; null: none."""
    ema: float | None = None
    """Decay, in (0, 1), of a moving average of the generator's weights, from which samples are then made, with separate
    batch norm statistics; null: no average, as in the paper."""
    score: ScoreConfig | None = None
    """Scores during training; null: none."""
    sample_every: int = 1000
    """Steps between sample grids, always from the same latents, and between diagnostics of the discriminator."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive("steps", "n_dis", "sample_every", "lr")
        if self.batch_size < 2 or self.generator_batch < 2:
            raise ValueError("batch_size and g_batch_size must be at least 2")
        if self.n_dis > 1000:
            raise ValueError(f"n_dis must be at most 1000, not {self.n_dis}: a generator step waits for all of them")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must be in (0, 1), not {self.ema}")
        if self.score and "intra" in self.score.metrics() and not self.conditional:
            raise ValueError("score.final_metrics: intra needs classes, which only a conditional GAN has")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), not {list(self.betas)}")
        for name in ("r1_gamma", "r2_gamma"):
            if not (gamma := getattr(self, name)) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {gamma}")
            if gamma and self.compile:
                raise ValueError(f"compile cannot differentiate twice, which {name} needs: use only one of them")
            if gamma and self.mixup and self.mixup.replace:
                raise ValueError(f"{name} needs the plain rows, which mixup.replace drops")
        if self.mixup and self.mixup.replace and self.loss.needs_real:
            raise ValueError("mixup.replace drops the plain rows, which this loss compares with; leave it false")
        if self.burn_in and self.lr_schedule != "constant":
            raise ValueError("burn_in schedules the learning rate too: use lr_schedule constant with it")
        if self.conditional == "uniform" and self.loss.needs_real:
            raise ValueError(
                "conditional uniform: this loss compares real rows with fakes of the same class; use matched"
            )
        if self.conditional and self.reuse_fakes:
            raise ValueError("reuse_fakes: a conditional GAN draws new labels of fakes for each step; leave it false")
        if self.reuse_fakes and self.generator_batch != self.batch_size:
            raise ValueError("reuse_fakes needs g_batch_size to be null or equal to batch_size")

    @property
    def generator_batch(self) -> int:
        """Number of fakes in a generator step, over all processes."""
        return self.batch_size if self.g_batch_size is None else self.g_batch_size
