"""Evaluation of a trained classifier on test images: measures, deformed images, and the protocol that runs them all."""
