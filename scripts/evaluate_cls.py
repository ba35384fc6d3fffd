"""Evaluate a trained classifier: error, likelihood, calibration, neighbours, interpolations, deformed images.

    python scripts/evaluate_cls.py runs/fashion-manifold

Writes evaluation.json into the run's folder, reliability.png and interpolation.png into its plots, and prints a table.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from classifiers.evaluation.protocol import evaluate
from mmgan.engine import cli


def main() -> None:
    """Parse and call."""
    cli.call(evaluate)


if __name__ == "__main__":
    cli.run(main)
