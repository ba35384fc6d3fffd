"""Mixup of hidden states in any network. Imports only torch, so the folder can be copied into other projects."""

import importlib
import pkgutil

from . import losses, rules
from .losses import JS, Hinge, LeastSquares, Loss, Relativistic, Wasserstein
from .named import Mixable
from .objective import discriminator_loss, generator_loss
from .plans import Plan, Plans
from .rules import (
    AdaMixUp,
    ClassifierCutMix,
    ClassifierMixup,
    ClassifierNoisyMixup,
    ClassifierRule,
    DiscriminatorCutMix,
    DiscriminatorMixup,
    DiscriminatorNoisyMixup,
    DiscriminatorRule,
)
from .staged import Staged

__all__ = [
    "JS",
    "AdaMixUp",
    "ClassifierCutMix",
    "ClassifierMixup",
    "ClassifierNoisyMixup",
    "ClassifierRule",
    "DiscriminatorCutMix",
    "DiscriminatorMixup",
    "DiscriminatorNoisyMixup",
    "DiscriminatorRule",
    "Hinge",
    "LeastSquares",
    "Loss",
    "Mixable",
    "Plan",
    "Plans",
    "Relativistic",
    "Staged",
    "Wasserstein",
    "discriminator_loss",
    "generator_loss",
]

for _package in (losses, rules):  # new files with rules or losses need no entry here
    for _module in pkgutil.iter_modules(_package.__path__, f"{_package.__name__}."):
        importlib.import_module(_module.name)
