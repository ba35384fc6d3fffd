"""Image sets as uint8 tensors, and their conversion to a network's input on its device."""

from mmgan.data.config import DataChange, DataConfig
from mmgan.data.images import Images, class_names, data_sets, fingerprint, load
from mmgan.data.pipeline import Feed, to_network, to_uint8

__all__ = [
    "DataChange",
    "DataConfig",
    "Feed",
    "Images",
    "class_names",
    "data_sets",
    "fingerprint",
    "load",
    "to_network",
    "to_uint8",
]
