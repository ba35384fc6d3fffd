"""Tests of `mmgan.mixup`, one subject a file."""
