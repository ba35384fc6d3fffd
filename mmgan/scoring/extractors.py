"""Networks whose features are used to compare images."""

from __future__ import annotations

import copy
import hashlib
import inspect
import warnings
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmgan.engine.modes import single_precision
from mmgan.errors import UserError

SIMPLE = (bool, int, float, str, tuple)
"""Types of a module's attributes that are included in its hash."""


class Extractor:
    """A network that maps uint8 images [B, C, R, R] to (features [B, d], logits [B, K]), and a description of it.

    The logits are None if the network has no classes or returns only features; IS is then unavailable.

    Examples:
        >>> import torch
        >>> class Means(torch.nn.Module):
        ...     def forward(self, images):
        ...         return images.float().mean((2, 3))
        >>> Extractor("means", Means(), "none")(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))[0].shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        preprocessing: str,
        shape: tuple[int, int, int] | None = None,
        code: str = "",
    ) -> None:
        """`preprocessing` describes how the module first processes the images, in particular any resizing.

        `shape`: the only shape of images it accepts, (C, R, R); None for any. `code`: anything that its features depend
        on besides its layers and weights.
        """
        self.name, self.module, self.preprocessing = name, module.eval().requires_grad_(False), preprocessing
        self.shape, self.code = shape, code

    @cached_property
    def hash(self) -> str:
        """SHA-256 of its layers and weights, regardless of their source."""
        content = hash_of(self.module)
        return hashlib.sha256(f"{content} {self.code}".encode()).hexdigest() if self.code else content

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features and logits of uint8 images [B, C, R, R] on the module's device, float32, computed without TF32."""
        with single_precision():
            found = self.module(images)
        features, logits = found if isinstance(found, tuple) else (found, None)
        for part in (features, logits):
            if part is not None and (part.ndim != 2 or len(part) != len(images)):
                raise UserError(
                    f"the extractor {self.name} returns {list(part.shape)} for {len(images)} images; features must be "
                    "[B, d], and logits [B, K]"
                )
        return features.float(), None if logits is None else logits.float()


def hash_of(module: nn.Module) -> str:
    """SHA-256 of a network's layers, in the form of its `repr`, and weights."""
    digest = hashlib.sha256(repr(module).encode())
    for key, tensor in module.state_dict().items():
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class _Fidelity(nn.Module):
    """One of torch-fidelity's networks; grey images are repeated to three channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """`images`: uint8 [B, 1 or 3, R, R]."""
        found = self.network(images.expand(-1, 3, -1, -1))
        return found[0], found[1] if len(found) > 1 else None


class _Torchvision(nn.Module):
    """A torchvision classifier: the input of its last linear layer, and its logits."""

    def __init__(self, network: nn.Module, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network, self.size = network, size
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])
        (*_, last) = (module for module in network.modules() if isinstance(module, nn.Linear))
        last.register_forward_pre_hook(self._keep)

    def _keep(self, _module: nn.Module, inputs: tuple[Tensor]) -> None:
        self.given = inputs[0].flatten(1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`images`: uint8 [B, 1 or 3, R, R]."""
        x = images.expand(-1, 3, -1, -1).float() / 255
        x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        logits = self.network((x - self.mean) / self.std)
        return self.given, logits


class _ToUnit(nn.Module):
    """Maps bytes to [0, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        """`images`: uint8, any shape."""
        return images / 255


def of_module(module: nn.Module) -> Extractor:
    """A copy of any module that maps images in [0, 1] to features, or to features and logits, as an extractor."""
    network = nn.Sequential(_ToUnit(), copy.deepcopy(module))
    return Extractor(type(module).__name__, network, "pixels to [0, 1], no resizing", code=_code(module))


def _code(module: nn.Module) -> str:
    """What features depend on besides layers and weights: the code of a module's classes and its attributes."""
    found = []
    for part in module.modules():
        with suppress(OSError, TypeError):  # entered interactively, not read from a file
            found.append("" if type(part).__module__.startswith("torch.") else inspect.getsource(type(part)))
        own = ((key, value) for key, value in vars(part).items() if isinstance(value, SIMPLE) and key != "training")
        found += [f"{key}={value!r}" for key, value in own]
    return "\n".join(found)


class ExtractorConfig(ABC):
    """Options of the extractor whose features are compared; `build` makes it."""

    @abstractmethod
    def build(self) -> Extractor:
        """The extractor; raises UserError, saying what to do, if its weights are not available."""


@dataclass(frozen=True)
class Inception(ExtractorConfig):
    """torch-fidelity's `inception-v3-compat`: the 2,048 features for FID and the logits, without bias, for IS."""

    weights: str | None = None
    """Local file of its weights; null: torch-fidelity's, which it downloads once."""

    def build(self) -> Extractor:
        """The extractor; raises UserError, saying what to download and where to put it, if there are no weights."""
        from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415  # takes a second to import
            URL_INCEPTION_V3,
            FeatureExtractorInceptionV3,
        )

        name = URL_INCEPTION_V3.rsplit("/", 1)[1]
        place = Path(torch.hub.get_dir()) / "checkpoints" / name
        advice = f"download {URL_INCEPTION_V3} to {place}, or set extractor.weights to its path"
        file = self.weights or (str(place) if place.exists() else None)
        layers = ["2048", "logits_unbiased"]
        try:
            if file and not Path(file).is_file():
                raise FileNotFoundError(f"no file {file}")
            with warnings.catch_warnings(action="ignore"):  # about pickles not made by torch
                if file:  # torch-fidelity would unpickle anything in it
                    torch.load(file, map_location="cpu", weights_only=True)
            network = FeatureExtractorInceptionV3("inception-v3-compat", layers, file, verbose=False)
        except (OSError, URLError) as error:
            raise UserError(f"no Inception weights ({error}): {advice}") from error
        except Exception as error:  # reading a damaged file may raise anything
            raise UserError(
                f"{file or URL_INCEPTION_V3} does not contain torch-fidelity's Inception weights: {advice}"
            ) from error
        preprocessing = "bilinear to 299x299 as in TensorFlow 1, grey to RGB"
        return Extractor("inception-v3-compat", _Fidelity(network), preprocessing)


@dataclass(frozen=True)
class Fidelity(ExtractorConfig):
    """Another torch-fidelity network: vgg16, clip-vit-b-32, dinov2-vit-b-14 and more."""

    name: str
    """torch-fidelity's name of the network."""
    weights: str | None = None
    """Local file of its weights; null: torch-fidelity downloads them once. Not for DINOv2 networks."""

    def build(self) -> Extractor:
        """The extractor, with torch-fidelity's default layer for FID; raises UserError if it is unavailable."""
        from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY  # noqa: PLC0415  # takes a second to import

        if self.name not in FEATURE_EXTRACTORS_REGISTRY:
            raise UserError(f"extractor.name {self.name!r} is not one of {', '.join(FEATURE_EXTRACTORS_REGISTRY)}")
        kind = FEATURE_EXTRACTORS_REGISTRY[self.name]
        layer = kind.get_default_feature_layer_for_metric("fid")
        try:
            with warnings.catch_warnings(action="ignore"):  # about deprecated features used by torch-fidelity
                if self.weights and not _is_script(self.weights):  # it would unpickle anything in it
                    torch.load(self.weights, map_location="cpu", weights_only=True)
                network = kind(self.name, [layer], feature_extractor_weights_path=self.weights, verbose=False)
        except NotImplementedError as error:
            raise UserError(
                f"{self.name} does not support extractor.weights: torch.hub loads it from TORCH_HOME"
            ) from error
        except Exception as error:  # reading a damaged file, or a download, may raise anything
            raise UserError(
                f"{self.weights or 'the download of torch-fidelity'} does not contain the weights of {self.name} "
                f"({_first_line(error)}); set extractor.weights to a file of them"
            ) from error
        size = getattr(network, "resolution", None) or kind.INPUT_IMAGE_SIZE
        preprocessing = f"bilinear to {size}x{size} as in TensorFlow 1, not antialiased; grey to RGB; {layer}"
        return Extractor(self.name, _Fidelity(network), preprocessing)


@dataclass(frozen=True)
class Torchvision(ExtractorConfig):
    """A torchvision classifier, with a file of weights."""

    weights: str
    """Local file of its weights, a state_dict as published by torchvision."""
    name: str = "resnet50"
    """torchvision's name of the network."""

    def build(self) -> Extractor:
        """The extractor: features are the input of the last linear layer. Raises UserError if it is unavailable."""
        from torchvision import models  # noqa: PLC0415  # takes a second to import

        try:
            preset = models.get_model_weights(self.name).DEFAULT.transforms()
            size, mean, std = preset.crop_size[0], preset.mean, preset.std
        except (ValueError, AttributeError) as error:  # a detector has no such preset
            raise UserError(f"extractor.name {self.name!r} is not an image classifier in torchvision") from error
        try:
            state = torch.load(self.weights, map_location="cpu", weights_only=True)
            extra = (
                {"init_weights": False, "transform_input": True} if self.name in ("googlenet", "inception_v3") else {}
            )
            network = models.get_model(self.name, num_classes=next(reversed(state.values())).shape[0], **extra)
            network.load_state_dict(state)
        except Exception as error:  # reading a damaged file may raise anything
            raise UserError(
                f"extractor.weights: {self.weights} does not contain the weights of {self.name} ({_first_line(error)})"
            ) from error
        if not any(isinstance(module, nn.Linear) for module in network.modules()):
            raise UserError(f"{self.name} has no linear layer, whose input would be its features")
        preprocessing = f"bilinear to {size}x{size}, antialiased; grey to RGB; less {mean} over {std}"
        return Extractor(self.name, _Torchvision(network, size, mean, std), preprocessing)


def _is_script(file: str) -> bool:
    """Whether a file is TorchScript, which holds no pickled Python."""
    return zipfile.is_zipfile(file) and any("/code/" in name for name in zipfile.ZipFile(file).namelist())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
