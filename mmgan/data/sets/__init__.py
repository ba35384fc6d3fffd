"""Data sets, one file each, with a function `load(config)` that returns (images uint8 [N, C, H, W], labels int64 [N]).

A file added here is a data set: its name is a value of `data.name`.
"""
