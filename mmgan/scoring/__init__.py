"""Inception Score, FID, KID, precision and recall from torch-fidelity, each recorded with its protocol."""

from mmgan.scoring.extractors import Extractor, ExtractorConfig, Fidelity, Inception, Torchvision
from mmgan.scoring.protocol import PROTOCOLS, Protocol
from mmgan.scoring.scorer import Scorer

__all__ = [
    "PROTOCOLS",
    "Extractor",
    "ExtractorConfig",
    "Fidelity",
    "Inception",
    "Protocol",
    "Scorer",
    "Torchvision",
]
