"""Inception Score, FID, KID, precision and recall through torch-fidelity, each with the protocol it was measured by."""

from mmgan.scoring.extractors import Extractor, ExtractorConfig, Fidelity, Inception, Torchvision, register
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
    "register",
]
