"""Time a whole run, from the start of its process: how much of it is spent outside the two updates.

python benchmarks/run.py --config configs/gan/digits.yaml --output runs/timed
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from timing import Ratio, report

import classifiers.load  # noqa: F401  # an extractor, which score.extractor may name
import mmgan.gan.train as loop
from mmgan.engine import cli
from mmgan.engine.log import Log
from mmgan.gan.config import GANConfig
from mmgan.gan.steps import Steps
from mmgan.gan.watch import Watch

PARTS: list[tuple[Any, str, str]] = [
    (Steps, "both", "the two updates"),
    (Watch, "_score", "scores on the way"),
    (Watch, "_sample", "sample grids and diagnostics"),
    (Watch, "_save", "checkpoints, with the curves drawn"),
    (Log, "add", "log"),
    (loop, "final_scores", "scores at the end, by the final protocol"),
]


def main() -> None:
    """Print the parts of a run's time; options are those of scripts/train_gan.py, and --record FILE saves the parts."""
    record, arguments = None, sys.argv[1:]
    if "--record" in arguments:
        i = arguments.index("--record")
        record, arguments = Path(arguments[i + 1]), arguments[:i] + arguments[i + 2 :]
    parsed = cli.parse(GANConfig, __doc__ or "", arguments)
    spent: dict[str, float] = defaultdict(float)
    began = psutil.Process().create_time()
    first: list[float] = []
    for kind, name, part in PARTS:
        setattr(kind, name, timed(getattr(kind, name), part, spent, first))
    loop.train(parsed.config, parsed.output)
    whole = time.time() - began
    spent["from the start of the process to the first step"] = first[0] - began
    spent["the rest"] = whole - sum(spent.values())
    shares = sorted(spent.items(), key=lambda item: -item[1])
    ratios = [Ratio.of_one(f"{part} / the whole run", seconds / whole) for part, seconds in shares]
    notes = [f"the whole run: {whole:.1f} s; to the first step {first[0] - began:.1f} s"]
    import torch  # noqa: PLC0415

    setting = {"data": parsed.config.data.name, "steps": parsed.config.steps}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report(f"A whole run of {parsed.config.data.name}", setting, device, ratios, notes, record)


def timed(function: Callable[..., Any], part: str, spent: dict[str, float], first: list[float]) -> Callable[..., Any]:
    """`function`, wrapped so that the seconds of its calls are added to `part`, and their starts to `first`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.time()
        first.append(start)
        try:
            return function(*args, **kwargs)
        finally:
            spent[part] += time.time() - start

    return call


if __name__ == "__main__":
    cli.run(main)
