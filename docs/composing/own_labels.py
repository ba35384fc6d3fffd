"""How many samples of a conditional GAN of the digits are the digit asked for, by the digits' classifier, as JSON.

PYTHONPATH=. python docs/composing/own_labels.py runs/digits-conditional runs/digits-classifier
"""

import json
import sys

import torch

import mmgan
from classifiers.load import Classifier

SAMPLES = 10_000


@torch.no_grad()
def main(gan: str, classifier: str) -> None:
    """Print the record: the share of all samples, and of each digit's."""
    run = mmgan.load(gan)
    labels = run.inputs.labels(0, 0, SAMPLES)
    _, logits = Classifier(run=classifier).build()(run.sample(SAMPLES))
    assert logits is not None
    right = (logits.argmax(1) == labels).double()
    record = {"command": f"{' '.join(sys.argv)}", "samples": SAMPLES, "sampling seed": 0}
    record |= {
        "training seed": run.config.seed,
        "step": run.step,
        "weights": run.weights,
        "own label": right.mean().item(),
    }
    record |= {"by digit": [right[labels == digit].mean().item() for digit in range(len(run.inputs.names))]}
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
