"""Attack a trained classifier: FGSM, PGD, the unbounded sanity check, transfer, and whether gradients can be trusted.

    python scripts/attack_cls.py runs/fashion-manifold --eps '[0.01,0.025,0.05,0.1]' --transfer runs/fashion-none
    accelerate launch --num_processes 8 scripts/attack_cls.py runs/cifar10-manifold --num_images 10000

Prints a table and writes attack.json into the run's folder, attack.png and attack_examples.png into its plots; with
a norm or space other than linf and pixel, their names say so: attack-l2.json, attack-normalised.json. If it is stopped
midway, the same command continues after the last finished attack, kept in attack.begun.json.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from classifiers.attacks.protocol import attack
from mmgan.engine import cli


def main() -> None:
    """Parse and call."""
    cli.call(attack)


if __name__ == "__main__":
    cli.run(main)
