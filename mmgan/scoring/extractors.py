"""Networks whose features images are compared by."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from mmgan.errors import UserError


class Extractor:
    """A network that maps uint8 images [B, C, R, R] to (features [B, d], logits [B, K]), and its stamp."""

    def __init__(
        self, name: str, module: nn.Module, preprocessing: str, shape: tuple[int, int, int] | None = None
    ) -> None:
        """`preprocessing` says in words what the module does to the images first: resizing above all.

        `shape`: the only images it takes, (C, R, R); None for any.
        """
        self.name, self.module, self.preprocessing = name, module.eval().requires_grad_(False), preprocessing
        self.shape = shape

    @cached_property
    def hash(self) -> str:
        """SHA-256 of its layers and weights, wherever they come from."""
        digest = hashlib.sha256(repr(self.module).encode())
        for key, tensor in self.module.state_dict().items():
            digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of uint8 images [B, C, R, R] on the module's device, float32."""
        features, logits = self.module(images)
        return features.float(), logits.float()


class _Inception(nn.Module):
    """torch-fidelity's Inception, grey images repeated to three channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`images` uint8 [B, 1 or 3, R, R]."""
        return self.network(images.expand(-1, 3, -1, -1))


class ExtractorConfig(ABC):
    """What images are compared by: options of an extractor, which `build` makes."""

    @abstractmethod
    def build(self) -> Extractor:
        """The extractor; raises UserError, saying what to do, where its weights cannot be had."""


@dataclass(frozen=True)
class Inception(ExtractorConfig):
    """torch-fidelity's `inception-v3-compat`: FID's 2,048 features and the logits, without bias, IS is made of."""

    weights: str | None = None
    """Local file of its weights; null: torch-fidelity's own, which it fetches once."""

    def build(self) -> Extractor:
        """The extractor; raises UserError, saying what to fetch and where to put it, where there are no weights."""
        from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415  # takes a second to import
            URL_INCEPTION_V3,
            FeatureExtractorInceptionV3,
        )

        name = URL_INCEPTION_V3.rsplit("/", 1)[1]
        place = Path(torch.hub.get_dir()) / "checkpoints" / name
        advice = f"fetch {URL_INCEPTION_V3} and put it at {place}, or give its path by extractor.weights"
        file = self.weights or (str(place) if place.exists() else None)
        layers = ["2048", "logits_unbiased"]
        try:
            if file and not Path(file).is_file():
                raise FileNotFoundError(f"no file {file}")
            with warnings.catch_warnings(action="ignore"):  # of pickles that are none of torch's
                if file:  # torch-fidelity would unpickle whatever is there
                    torch.load(file, map_location="cpu", weights_only=True)
            network = FeatureExtractorInceptionV3("inception-v3-compat", layers, file, verbose=False)
        except (OSError, URLError) as error:
            raise UserError(f"no Inception weights ({error}): {advice}") from error
        except Exception as error:  # the reader of a damaged file may raise anything
            raise UserError(
                f"{file or URL_INCEPTION_V3} does not hold torch-fidelity's Inception weights: {advice}"
            ) from error
        preprocessing = "bilinear to 299x299 as in TensorFlow 1, grey to RGB"
        return Extractor("inception-v3-compat", _Inception(network), preprocessing)


def register(extractor: Extractor) -> None:
    """Make the extractor known to `torch_fidelity.calculate_metrics(feature_extractor=extractor.name)`.

    Raises ValueError when torch-fidelity has one of that name already.
    """
    from torch_fidelity import register_feature_extractor  # noqa: PLC0415  # takes a second to import
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase  # noqa: PLC0415

    class Registered(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)
            self.module = extractor.module

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        @staticmethod
        def get_dummy_input_for_compile() -> None:
            return None

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            both = dict(zip(("features", "logits"), extractor(images), strict=True))
            return tuple(both[name] for name in self.features_list)

    register_feature_extractor(extractor.name, Registered)
