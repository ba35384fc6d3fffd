"""Makes torch-fidelity compute scores with an extractor of mmgan's, for comparison."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from mmgan.scoring import Extractor


def register(extractor: Extractor) -> None:
    """Register the extractor for `torch_fidelity.calculate_metrics(feature_extractor=extractor.name)`.

    Raises ValueError if torch-fidelity already has one of that name.
    """

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
            return tuple(part for name in self.features_list if (part := both[name]) is not None)

    register_feature_extractor(extractor.name, Registered)
