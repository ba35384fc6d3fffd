"""Run one of the paper's small analyses: its numbers, its picture, and what they say of the paper's claims.

    python scripts/run_study.py spirals

Writes OUTPUT/NAME.json and OUTPUT/NAME.png. The same command again only draws the picture anew.
"""

from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while importing ends without a traceback

import importlib
import inspect
import json
import textwrap
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from classifiers import studies
from classifiers.studies import Verdict
from mmgan import modules
from mmgan.data import DataChange
from mmgan.engine import cli, files
from mmgan.engine.run import differences, environment
from mmgan.errors import UserError


def study(
    name: str,
    seeds: int | None = None,
    output: Path = Path("runs/studies"),
    fast: bool = False,
    runs: Path | None = None,
    data: DataChange = DataChange(),  # noqa: B008
) -> None:
    """Run one of the paper's small analyses: its numbers, its picture, and what they say of the paper's claims.

    Args:
        name: which, a file of classifiers/studies or gan2d
        seeds: how many seeds, from 0; default: the study's
        output: folder to write NAME.json and NAME.png to
        fast: a few seconds' form of it, to see that it runs; its numbers mean nothing, so there are no verdicts
        runs: folder of saved classifiers, for a study that reads them
        data: their images, where they have moved since: --data.root FOLDER
    """
    module = _find(name)
    reads = "runs" in inspect.signature(module.run).parameters
    if (runs or data != DataChange()) and not reads:
        raise UserError(f"study {name} reads no saved classifiers; leave out --runs and --data")
    count = module.SEEDS if seeds is None else seeds
    if not 1 <= count <= 1000:
        raise UserError(f"seeds must be 1 to 1000, not {count}")
    settings = {"seeds": count, "fast": fast, "runs": str(runs) if runs else None}
    file = output / f"{name}.json"
    record = _read(file, settings)
    if record:
        print(f"{file} has this study already; only its picture is drawn anew")
    else:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {output} ({error.strerror}); choose another --output") from error
        started = time.perf_counter()
        with tqdm(total=module.units(count, fast), desc=name, disable=None, leave=False) as bar:

            def progress(text: str) -> None:
                bar.set_postfix_str(text, refresh=False)
                bar.update()

            numbers = module.run(range(count), fast, progress, **({"runs": runs, "data": data} if reads else {}))
        record = {"study": name, "settings": settings, "seconds": round(time.perf_counter() - started, 1)}
        record |= {"environment": environment(Accelerator(cpu=True)), "verdicts": [], "numbers": numbers}
    found = [] if fast else [Verdict(*row) for row in module.verdicts(record["numbers"])]
    record["verdicts"] = [one._asdict() for one in found]
    try:
        _write(file, record)
        module.plot(record["numbers"], output / f"{name}.png")
    except OSError as error:
        raise UserError(f"cannot write to {output} ({error.strerror}); choose another --output") from error
    print(f"{file}, {output / f'{name}.png'}: {count} seed(s), {record['seconds']} s")
    print("--fast: these numbers mean nothing, so there are no verdicts" if fast else _table(found))


def _find(name: str) -> ModuleType:
    places = {known: f"{studies.__name__}.{known}" for known in modules.names(studies)}
    places["gan2d"] = "mmgan.gan.gan2d"
    if name not in places:
        raise UserError(f"there is no study {name!r}; there are {', '.join(sorted(places))}")
    return importlib.import_module(places[name])


def _read(file: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a study that was run with these settings, None where there is none; raises UserError for others."""
    if not file.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        changes = differences(record["settings"], settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged or no study's; remove it, or choose another --output") from error
    if changes:
        raise UserError(f"{file} was made with {'; '.join(changes)}; choose another --output")
    return record


def _write(file: Path, record: dict[str, Any]) -> None:
    """A line for every key, and for every key of the numbers."""

    def lines(values: dict[str, Any]) -> str:
        return ",\n".join(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in values.items())

    head = lines({key: value for key, value in record.items() if key != "numbers"})
    files.write(file, f'{{\n{head},\n"numbers": {{\n{lines(record["numbers"])}\n}}}}\n')


def _table(found: list[Verdict]) -> str:
    wide = max(len(one.found) for one in found)
    rows = []
    for one in found:
        lines = textwrap.wrap(one.claim, 118 - wide) + textwrap.wrap(one.because, 118 - wide)
        rows += [f"{one.found if i == 0 else '':<{wide}}  {line}" for i, line in enumerate(lines)]
    return "\n".join(rows)


if __name__ == "__main__":
    cli.run(lambda: cli.call(study))
