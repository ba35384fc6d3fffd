"""What all benchmarks share: variants timed in turn, ratios within a round, and a record of them."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mmgan.engine import files


class Ratio(NamedTuple):
    """One time over another: the median of the rounds' ratios, and their range."""

    name: str
    median: float
    low: float
    high: float

    @classmethod
    def of_one(cls, name: str, value: float) -> Ratio:
        """A ratio that was counted, or measured once."""
        return cls(name, *[round(value, 4)] * 3)


class Times(dict[str, list[float]]):
    """Seconds of every variant in every round."""

    def ratio(self, name: str, a: str, b: str) -> Ratio:
        """The time of variant `a` over that of `b`."""
        ratios = [x / y for x, y in zip(self[a], self[b], strict=True)]
        return Ratio(name, *(round(one(ratios), 4) for one in (statistics.median, min, max)))


def measure(variants: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> Times:
    """Time all variants in turn in every round, so that a drift of the machine's speed affects all of them.

    One more round comes first and is dropped.
    """
    times = Times({name: [] for name in variants})
    for number in range(rounds + 1):
        for name, work in variants.items():
            _synchronise(device)
            start = time.perf_counter()
            work()
            _synchronise(device)
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def each(calls: Sequence[Callable[[], object]]) -> None:
    """Make all calls."""
    for call in calls:
        call()


def operations(work: Callable[[], object]) -> int:
    """Floating point operations of `work`'s convolutions and matrix products, the second time it runs."""
    work()
    with _Counter() as counter:
        work()
    return counter.operations


class _Counter(TorchDispatchMode):
    """Counts operations like torch's FlopCounterMode, whose hooks on modules fail where an input is differentiated."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.operations += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(
    title: str,
    setting: Mapping[str, Any],
    device: torch.device,
    ratios: Sequence[Ratio],
    notes: Sequence[str],
    output: Path | None,
) -> None:
    """Print what was measured; if `output` is given, keep it as a record in JSON, from which a page can be made.

    Raises UserError if that cannot be written.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    machine = f"{device.type} ({name}), {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    print(f"{title}: {', '.join(f'{key} {value}' for key, value in setting.items())}\n{machine}\n")
    print("ratio, median (range over rounds)")
    width = max(len(one.name) for one in ratios)
    for one in ratios:
        print(f"{one.name}:{'':{width - len(one.name)}} {one.median:5.2f}  ({one.low:.2f} to {one.high:.2f})")
    print("", *notes, sep="\n")
    if output:
        record = {
            "title": title,
            "command": shlex.join(["python", *sys.argv]),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine,
            "setting": setting,
            "rows": [one._asdict() for one in ratios],
            "notes": notes,
        }
        with files.writing(output):
            files.write(output, json.dumps(record, indent=1) + "\n")
