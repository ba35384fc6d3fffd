"""Run an experiment: its arms and seeds, and the steps that follow each run, shared by any number of workers.

    python scripts/sweep.py --config configs/sweeps/figure9.yaml --output runs/figure9

Every call is a worker; start one per device to train on (CUDA_VISIBLE_DEVICES chooses it), here and on machines that
share the output folder, at any time. The runs of a worker that is killed are resumed by the others.
--options.KEY VALUE sets an option of all runs and overrides the file. --trust allows the file to name scripts and
functions from outside mmgan.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import os
import re
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import classifiers.training
import mmgan.gan.train
from classifiers.attacks.protocol import attack
from classifiers.config import ClassifierConfig
from classifiers.evaluation.protocol import evaluate
from mmgan.engine import cli
from mmgan.engine.checkpoint import last_of
from mmgan.errors import UserError
from mmgan.experiments.experiment import Experiment, Job, begin, jobs_of
from mmgan.experiments.sweep import GONE, Worker, errors_of, open_study, states
from mmgan.gan.config import GANConfig
from mmgan.gan.score import score_and_print

SCRIPTS = Path(__file__).parent
RUNS: Mapping[str, Any] = {
    "train_gan": (GANConfig, mmgan.gan.train.check),
    "train_cls": (ClassifierConfig, classifiers.training.check),
}
STEPS: Mapping[str, Any] = {"evaluate_cls": evaluate, "attack_cls": attack, "score": score_and_print}
"""Configuration and check of a run, and function of a step, by script: all are checked before any starts."""


def main() -> None:
    """Parse, check every run, work."""
    own, common = _split(sys.argv[1:])
    trust, own = _trust(own)
    arguments = cli.parse(Experiment, __doc__ or "", args=own)
    config, output = arguments.config, arguments.output
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a worker is one process; start several separately")
    jobs = jobs_of(config, common)
    storage = config.storage or output / "sweep.db"
    if config.dry_run:
        with errors_of(storage):
            found = states(jobs, open_study(storage, output, create=False), output)
        for name, state in found.items():
            last = f"  last checkpoint: {Path(last_of(output / jobs[name].folder / 'checkpoints')).name}"
            print(f"{state:8} {name}{last if jobs[name].first else ''}")
        print(_count(found))
    check(jobs.values(), trust)
    if config.dry_run:
        return
    worker = Worker(jobs, output, storage, config.timeout, SCRIPTS, partial(begin, config, output, common))
    try:
        found = worker.work()
    except UserError as error:
        if not worker.signal:
            raise
        print(f"error: {error}", file=sys.stderr)  # storage unreachable: others take over the run after --timeout
        sys.exit(128 + worker.signal)
    print(_count(found))
    if worker.signal:
        print("stopped; the current run is back in the queue")
        sys.exit(128 + worker.signal)
    failed = [name for name, state in found.items() if state == "failed"]
    if failed:
        raise UserError(f"{', '.join(failed)} failed; the lines above say why")
    gone = [name for name, state in found.items() if state == GONE]
    if gone:
        raise UserError(f"the results of {', '.join(gone)} are gone; the same command makes them again")


def check(jobs: Iterable[Job], trust: bool) -> None:
    """Raise UserError, naming the job, for anything that can be known to fail before the first one starts."""
    checked: list[Any] = []
    for job in jobs:
        try:
            ours = job.script.isidentifier() and (SCRIPTS / f"{job.script}.py").is_file()
            if not ours and not trust and job.script not in sys.argv:
                raise UserError(f"{job.script} is not a script of mmgan's; allow the file to name it with --trust")
            if job.first and job.script in RUNS:
                kind, check_run = RUNS[job.script]
                made = cli.parse(kind, "", [*job.options, "--output", job.name], named=sys.argv[1:]).config
                if (unseeded := replace(made, seed=0)) not in checked:
                    checked.append(unseeded)
                    check_run(made)
                score = getattr(made, "score", None)
                if score and score.extractor not in checked:
                    checked.append(score.extractor)
                    score.extractor.build()
            elif not job.first and job.script in STEPS and (job.script, job.options) not in checked:
                checked.append((job.script, job.options))
                cli.arguments_of(STEPS[job.script], [job.folder, *job.options], named=sys.argv[1:])
        except UserError as error:
            words = re.sub(r"(?<!\w)--(?!trust)(?=[a-z])", "--options.", str(error)) if job.first else str(error)
            raise UserError(f"{job.name}: {words}") from error


def _trust(arguments: list[str]) -> tuple[bool, list[str]]:
    """Whether --trust is among the arguments, and the other arguments; no file can set it."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--trust", nargs="?", const="true", default="false", choices=["true", "false"])
    found, others = parser.parse_known_args(arguments)
    return found.trust == "true", others


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sweep's arguments and, from `--options.KEY VALUE`, those of its runs, whose parser merges sections."""
    own: list[str] = []
    common: list[str] = []
    words = [*arguments]
    while words:
        word = words.pop(0)
        if word.partition("=")[0] == "--options.seed":
            raise UserError("every run takes its seed from the experiment; choose seeds with --seeds '[0,1]'")
        if word.startswith("--options."):
            common.append(f"--{word.removeprefix('--options.')}")
            if "=" not in word and words and not words[0].startswith("--"):
                common.append(words.pop(0))
        else:
            own.append(word)
    return own, common


def _count(found: Mapping[str, str]) -> str:
    counts = sorted(Counter(found.values()).items())
    return f"{len(found)} jobs: {', '.join(f'{n} {state}' for state, n in counts)}"


if __name__ == "__main__":
    cli.run(main)
