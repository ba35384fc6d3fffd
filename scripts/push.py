"""Push a trained GAN to the Hugging Face Hub, or write the files into a folder.

    python scripts/push.py runs/digits user/digits --dry_run pushed
    python scripts/push.py runs/digits user/digits --licence cc-by-4.0

huggingface_hub finds the token: HF_TOKEN, or that of `hf auth login`.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

from pathlib import Path
from typing import Literal

import mmgan
from mmgan.engine import cli


def push(
    run: Path,
    repo: str,
    checkpoint: Literal["best", "last"] | int = "last",
    weights: Literal["auto", "raw", "ema"] = "auto",
    dry_run: Path | None = None,
    private: bool = False,
    licence: str = "mit",
    trust: bool = False,
) -> None:
    """Push a trained GAN to the Hugging Face Hub: generator, discriminator and a model card.

    Args:
        run: folder of the run
        repo: user/name on the Hub, created if it does not exist
        checkpoint: last, best (by the run's scores during training), or the step of a saved checkpoint
        weights: the generator's: raw, ema (the average), or auto: ema if the run has one
        dry_run: a new or empty folder to write the files to; nothing is uploaded
        private: create a repository that only you can see
        licence: of the weights, by its name on the Hub: mit, cc-by-4.0, other and so on
        trust: let the run name classes from outside mmgan, which are then imported
    """
    print(mmgan.push(mmgan.load(run, checkpoint, weights, trust=trust), repo, dry_run, private, licence))


def main() -> None:
    """Parse and call."""
    cli.call(push)


if __name__ == "__main__":
    cli.run(main)
