"""Data sets, one per file, with a function `load(config)` that returns (images uint8 [N, C, H, W], labels int64 [N]).

A file added here is a new data set: its name is a value of `data.name`.
"""
