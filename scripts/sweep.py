"""Train a grid of GANs, shared by any number of workers.

    python scripts/sweep.py --config configs/sweeps/figure9.yaml --output runs/figure9

Every call is a worker; start as many as there are devices to train on (CUDA_VISIBLE_DEVICES chooses one), here and on
machines that share the output folder, at any time. The runs of a worker that is killed are resumed by the others.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import classifiers.load  # noqa: F401  # a classifier can be the extractor
from mmgan.engine import cli
from mmgan.engine.checkpoint import last_of
from mmgan.engine.sweep import SweepConfig, Worker, open_study, runs_of, states
from mmgan.errors import UserError
from mmgan.gan.config import GANConfig

SCRIPT = Path(__file__).with_name("train_gan.py")


def main() -> None:
    """Parse, check every run's options, work."""
    arguments = cli.parse(SweepConfig, __doc__ or "")
    config, output = arguments.config, arguments.output
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a worker is one process; start several by themselves")
    runs = runs_of(config)
    for name, options in runs.items():
        try:
            cli.parse(GANConfig, "", [*options, "--output", name], named=sys.argv[1:])
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    url = config.storage or f"sqlite:///{output / 'sweep.db'}"
    if config.dry_run:
        found = states(list(runs), open_study(url, config.timeout, create=False))
        for name, state in found.items():
            print(f"{state:8} {name}  last checkpoint: {Path(last_of(output / name / 'checkpoints')).name}")
        print(_count(found))
        return
    worker = Worker(SCRIPT, runs, output, url, config.timeout)
    found = worker.work()
    print(_count(found))
    if worker.signal:
        print("stopped; the run at hand is back in the queue")
        sys.exit(128 + worker.signal)
    failed = [name for name, state in found.items() if state == "failed"]
    if failed:
        raise UserError(f"{', '.join(failed)} failed; the lines above say why")


def _count(found: dict[str, str]) -> str:
    counts = sorted(Counter(found.values()).items())
    return f"{len(found)} runs: {', '.join(f'{n} {state}' for state, n in counts)}"


if __name__ == "__main__":
    cli.run(main)
