"""Attacks on a classifier's pixels: by gradients, in training, and to measure robustness."""
