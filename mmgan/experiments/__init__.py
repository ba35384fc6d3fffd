"""Experiments: sweeps of anything; runs read, compared, drawn and written; claims; the paper's published figures.

It reads run folders by their files alone and imports neither the GAN's side nor the classifiers'.
"""
