"""Train a grid of GANs, shared by any number of workers.

    python scripts/sweep.py --config configs/sweeps/figure9.yaml --output runs/figure9

Every call is a worker; start as many as there are devices to train on (CUDA_VISIBLE_DEVICES chooses one), here and on
machines that share the output folder, at any time. The runs of a worker that is killed are resumed by the others.
--options.KEY VALUE is an option of all runs, over those of the file.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import classifiers.load  # noqa: F401  # a classifier can be the extractor
from mmgan.engine import cli
from mmgan.engine.checkpoint import last_of
from mmgan.errors import UserError
from mmgan.experiments.sweep import GONE, SweepConfig, Worker, errors_of, open_study, runs_of, states
from mmgan.gan.config import GANConfig
from mmgan.gan.train import check
from mmgan.scoring import ExtractorConfig

SCRIPT = Path(__file__).with_name("train_gan.py")


def main() -> None:
    """Parse, check every run, work."""
    own, common = _split(sys.argv[1:])
    arguments = cli.parse(SweepConfig, __doc__ or "", args=own)
    config, output = arguments.config, arguments.output
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a worker is one process; start several by themselves")
    runs = runs_of(config, common)
    checked: list[GANConfig] = []
    extractors: list[ExtractorConfig] = []
    for name, options in runs.items():
        try:
            made = cli.parse(GANConfig, "", [*options, "--output", name], named=sys.argv[1:]).config
            unseeded = replace(made, seed=0)
            if unseeded not in checked:
                check(made)
                checked.append(unseeded)
            if made.score and made.score.extractor not in extractors:
                made.score.extractor.build()
                extractors.append(made.score.extractor)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    storage = config.storage or output / "sweep.db"
    if config.dry_run:
        with errors_of(storage):
            found = states(list(runs), open_study(storage, output, create=False), output)
        for name, state in found.items():
            print(f"{state:8} {name}  last checkpoint: {Path(last_of(output / name / 'checkpoints')).name}")
        print(_count(found))
        return
    worker = Worker(SCRIPT, runs, output, storage, config.timeout)
    found = worker.work()
    print(_count(found))
    if worker.signal:
        print("stopped; the run at hand is back in the queue")
        sys.exit(128 + worker.signal)
    failed = [name for name, state in found.items() if state == "failed"]
    if failed:
        raise UserError(f"{', '.join(failed)} failed; the lines above say why")
    gone = [name for name, state in found.items() if state == GONE]
    if gone:
        raise UserError(f"the checkpoints of {', '.join(gone)} are gone; the same command trains them again")


def _split(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """A sweep's own arguments, and, of `--options.KEY VALUE`, those of its runs, whose parser merges sections."""
    own: list[str] = []
    common: list[str] = []
    words = iter(arguments)
    for word in words:
        if word.startswith("--options."):
            common += [f"--{word.removeprefix('--options.')}", *([] if "=" in word else [next(words, "")])]
        else:
            own.append(word)
    return own, common


def _count(found: dict[str, str]) -> str:
    counts = sorted(Counter(found.values()).items())
    return f"{len(found)} runs: {', '.join(f'{n} {state}' for state, n in counts)}"


if __name__ == "__main__":
    cli.run(main)
