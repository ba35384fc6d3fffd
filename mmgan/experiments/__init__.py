"""Experiments: sweeps of anything; reading, comparing, plotting and reporting runs; claims; published figures.

This package only reads the files in run folders; it imports neither the GAN code nor the classifiers.
"""
