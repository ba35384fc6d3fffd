"""GAN training with mixup in the discriminator, based on Manifold Mixup (ICLR 2019 submission).

The functions behind the commands:

- `train(config, folder)` trains a GAN; its configuration is a `GANConfig`, a dictionary, a YAML file, or the name of
  one shipped with mmgan, such as `gan/digits`.
- `load(folder)` opens a run, from a folder or the Hugging Face Hub: its generator, discriminator, configuration,
  samples and scores.
- `push(run, "user/name")` uploads its networks to the Hub, with a model card.
- `score(fake, real)` scores images, or those of a generator, by the features of `extractors`.

For your own training loop, from `mmgan.mixup`, which imports only torch:

- `discriminator_loss` and `generator_loss`, Eq. 10-11 of the paper.
- `Staged` and `Mixable`, networks with mixup at their layers.
- `rules`, how pairs are drawn and mixed; `losses`, GAN losses.

`networks` contains the generators and discriminators, `DiffAugment` and `BurnIn` are sections of a configuration, and
`UserError` is raised, with a one-line message, for mistakes that the user can fix.
These names are the public interface. Other modules may change between versions; names that begin with an underscore
may change at any time.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmgan.errors import UserError
    from mmgan.gan import networks
    from mmgan.gan.augment import DiffAugment
    from mmgan.gan.config import BurnIn, GANConfig
    from mmgan.gan.push import push
    from mmgan.gan.run import GANRun, load
    from mmgan.gan.score import score
    from mmgan.gan.train import train
    from mmgan.mixup import Mixable, Staged, discriminator_loss, generator_loss, losses, rules
    from mmgan.scoring import extractors

__all__ = [
    "BurnIn",
    "DiffAugment",
    "GANConfig",
    "GANRun",
    "Mixable",
    "Staged",
    "UserError",
    "discriminator_loss",
    "extractors",
    "generator_loss",
    "load",
    "losses",
    "networks",
    "push",
    "rules",
    "score",
    "train",
]
_PLACES = {
    "mmgan.errors": ("UserError",),
    "mmgan.gan": ("networks",),
    "mmgan.gan.augment": ("DiffAugment",),
    "mmgan.gan.config": ("BurnIn", "GANConfig"),
    "mmgan.gan.score": ("score",),
    "mmgan.gan.push": ("push",),
    "mmgan.gan.run": ("GANRun", "load"),
    "mmgan.gan.train": ("train",),
    "mmgan.mixup": ("Mixable", "Staged", "discriminator_loss", "generator_loss", "losses", "rules"),
    "mmgan.scoring": ("extractors",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `mmgan.mixup` only needs torch."""
    if name == "__version__":
        return version("mmgan")
    for place, public in _PLACES.items():
        if name in public:
            module = import_module(place)
            return getattr(module, name, None) or import_module(f"{place}.{name}")
    raise AttributeError(f"module 'mmgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
