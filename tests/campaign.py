"""Runs that are killed again and again, and a long one; both take too long for the test command.

    python -m tests.campaign kills --kills 100     runs killed at random moments, compared to the bit with whole ones
    python -m tests.campaign soak --steps 20000    memory, open files and threads of one long run

Each prints a table in Markdown; docs/reliability.md has what they printed.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from mmgan.engine import cli, files
from tests.conftest import ENVIRONMENT, ROOT, SMALL, command, result, same

CLASSIFIER = ["--config", "configs/cls/digits.yaml", "--data.labels_per_class", "20", "--data.validation", "50"]
CLASSIFIER += ["--network", "WideResNet", "--network.depth", "10", "--network.width", "0.25", "--batch_size", "20"]
CLASSIFIER += ["--epochs", "8", "--milestones", "[4]", "--log_every", "3", "--checkpoint_every", "1"]
SSL = ["--ssl", "MeanTeacher", "--ssl.batch_size", "20", "--network.dropout", "0.1"]
SCORED = ["--score.num_samples", "200", "--score.every", "20", "--score.final", "null"]
GAN = ["--config", "configs/gan/digits.yaml", *SMALL, "--steps", "80", "--log_every", "3", "--checkpoint_every", "7"]
GAN += ["--sample_every", "10", "--ema", "0.9", "--n_dis", "2", *SCORED, "--score.extractor", "Classifier"]
RUNS: Mapping[str, tuple[str, list[str], int]] = {
    "GAN": ("train_gan", GAN, 1),
    "classifier": ("train_cls", CLASSIFIER, 1),
    "semi-supervised": ("train_cls", [*CLASSIFIER, *SSL], 1),
    "GAN, two processes": ("train_gan", GAN, 2),
}
"""Script, options and number of processes."""
WRITTEN = {"a checkpoint": "checkpoints/.*.part", "a plot": "plots/.*.part", "samples": "samples/.*.part"}
"""What is there while something is being written, and only then."""
BEFORE_SCORES = {18, 39, 57, 78}
"""The last steps of a GAN that are logged before one that is scored."""
MOMENTS = ("any", *WRITTEN, "a score")


def extractor(folder: Path) -> list[str]:
    """The options that name the classifier of digits whose archive the repository has."""
    shutil.unpack_archive(ROOT / "docs/results/extractors.tar.xz", folder, filter="data")
    return ["--score.extractor.run", str(folder / "digits-classifier")]


def start(kind: str, output: Path, more: Sequence[str]) -> subprocess.Popen[str]:
    script, options, processes = RUNS[kind]
    line = command(script, *options, *more, "--output", str(output), processes=processes)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        line, cwd=ROOT, env=ENVIRONMENT, stdout=pipe, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def kill(process: subprocess.Popen[str]) -> bool:
    """Kill a run with all its processes; whether it was still going."""
    going = process.poll() is None
    for one in [*psutil.Process(process.pid).children(recursive=True), process] if going else []:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.communicate()
    return going


def wait_for(moment: str, process: subprocess.Popen[str], folder: Path, length: float, chance: random.Random) -> None:
    """Wait for such a moment in a run that takes `length` seconds, or for its end."""
    if moment == "any":
        time.sleep(chance.uniform(0, length))
        return
    time.sleep(chance.uniform(0.2, 0.8) * length)
    while process.poll() is None:
        if moment == "a score":
            rows = files.read_rows(folder / "metrics.jsonl")
            if rows and rows[-1]["step"] in BEFORE_SCORES:
                time.sleep(chance.uniform(0, 0.3))
                return
        elif any(folder.glob(WRITTEN[moment])):
            return
        time.sleep(1e-4)


def kills(kills: int = 100, output: Path | None = None) -> None:
    """Kill runs at random moments, two thirds of them while something is written, and compare their ends to the bit.

    Args:
        kills: How many, over all kinds of run.
        output: A folder to work in; by default a temporary one.
    """
    chance = random.Random(time.time_ns())
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = output or Path(made)
        chosen = extractor(folder)
        bar = tqdm(total=kills, unit="kill")
        for i, kind in enumerate(RUNS):
            more = chosen if "score.every" in str(RUNS[kind]) else []
            began = time.monotonic()
            whole = start(kind, folder / kind / "whole", more)
            said, _ = whole.communicate()
            if whole.returncode:
                raise RuntimeError(said)
            length = time.monotonic() - began
            wanted = (i + 1) * kills // len(RUNS) - i * kills // len(RUNS)
            where: Counter[str] = Counter()
            ends = 0
            while where.total() < wanted:
                ends += 1
                broken = folder / kind / f"broken-{ends}"
                for _ in range(min(5, wanted - where.total())):
                    process = start(kind, broken, more)
                    moment = chance.choice([*MOMENTS, "any"] if more else [*WRITTEN, "any"])
                    wait_for(moment, process, broken, length, chance)
                    if kill(process):
                        where[moment] += 1
                        bar.update()
                    else:  # it ends sooner than the whole one did
                        length *= 0.8
                end = start(kind, broken, more)
                said, _ = end.communicate()
                if end.returncode or not same(result(folder / kind / "whole"), result(broken)):
                    raise RuntimeError(f"{broken} does not end as the whole run does: {said[-2000:]}")
            rows.append([kind, where.total(), f"{ends} of {ends}", *(where[name] for name in MOMENTS)])
    table(["run", "kills", "ended as the whole one", "at any moment", *(f"in {name}" for name in MOMENTS[1:])], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(map(str, row))} |")


def _limits(process: psutil.Process) -> tuple[int, int, int]:
    """Resident bytes, open files and threads."""
    with process.oneshot():
        return process.memory_info().rss, process.num_fds(), process.num_threads()


def soak(steps: int = 20_000, output: Path | None = None) -> None:
    """Train on the digits with scores and samples; print how memory, open files and threads change.

    Args:
        steps: Of the generator. What is used after the first tenth of them is compared with what is later.
        output: The run's folder; by default a temporary one.
    """
    options = [
        "--config",
        "configs/gan/digits.yaml",
        *SMALL,
        "--steps",
        str(steps),
        "--n_dis",
        "1",
        "--log_every",
        "100",
    ]
    options += ["--checkpoint_every", "500", "--sample_every", "500", "--score.every", "500", "--score.final", "null"]
    options += ["--score.num_samples", "1000", "--score.extractor", "Classifier"]
    with tempfile.TemporaryDirectory() as made:
        run = output or Path(made) / "run"
        line = command("train_gan", *options, *extractor(Path(made)), "--output", str(run))
        seen: dict[int, tuple[int, int, int]] = {}
        with subprocess.Popen(line, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for text in process.stdout:
                if text.startswith("step "):
                    step = int(text.split()[1].partition("/")[0])
                    if step % (steps // 10) == 0 and step < steps:
                        seen[step] = _limits(psutil.Process(process.pid))
        if process.returncode:
            raise RuntimeError("the run failed")
    first = seen[steps // 10][0]
    rows = [
        [step, f"{size / 2**20:.0f}", f"{size / first - 1:+.1%}", *counts] for step, (size, *counts) in seen.items()
    ]
    table(["step", "resident MiB", "against the first", "open files", "threads"], rows)


if __name__ == "__main__":
    cli.run(lambda: cli.call({"kills": kills, "soak": soak}[sys.argv.pop(1)]))
