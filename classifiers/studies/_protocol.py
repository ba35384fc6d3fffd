"""How a study is run, and its record."""

from __future__ import annotations

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
from classifiers.studies import Setting, Verdict
from mmgan import modules
from mmgan.data import DataChange
from mmgan.engine import files
from mmgan.engine.changes import differences
from mmgan.engine.run import environment
from mmgan.errors import UserError

KEYS = ("study", "title", "about", "settings", "seconds", "environment", "verdicts", "notes")
"""What a record holds besides the numbers. Notes are paragraphs on what was seen, written by hand; they are kept."""


def study(
    name: str,
    seeds: int | None = None,
    output: Path = Path("runs/studies"),
    fast: bool = False,
    runs: Path | None = None,
    data: DataChange = DataChange(),  # noqa: B008
) -> None:
    """Run one of the paper's small analyses: its numbers, its picture, and what they say about the paper's claims.

    Args:
        name: name of the study, a file in classifiers/studies
        seeds: number of seeds, from 0; default: the study's
        output: folder to write NAME.json and NAME.png to
        fast: run a form that takes seconds, to see that it works; its numbers mean nothing, so there are no verdicts
        runs: folder of saved classifiers, for a study that reads them
        data: their images, if they have moved since: --data.root FOLDER
    """
    module = _find(name)
    if (runs or data != DataChange()) and not module.READS_RUNS:
        raise UserError(f"study {name} reads no saved classifiers; leave out --runs and --data")
    count = module.SEEDS if seeds is None else seeds
    if not 1 <= count <= 1000:
        raise UserError(f"seeds must be 1 to 1000, not {count}")
    settings = {"seeds": count, "fast": fast, "runs": str(runs) if runs else None}
    file = output / f"{name}.json"
    record = _read(file, settings)
    if record:
        print(f"{file} holds this study already; only its picture is redrawn")
    else:
        with files.writing(output):
            output.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with tqdm(desc=name, disable=None, leave=False) as bar:

            def progress(text: str) -> None:
                bar.set_postfix_str(text, refresh=False)
                bar.update()

            setting = Setting(range(count), fast, progress, runs, data)
            bar.total = module.units(setting)
            numbers = module.run(setting)
        record = {"study": name, "settings": settings, "seconds": round(time.perf_counter() - started, 1)}
        record |= {"environment": environment(Accelerator(cpu=True)), "numbers": numbers}
    found = [] if fast else module.verdicts(record["numbers"])
    record |= _words(module) | {"verdicts": [one._asdict() for one in found]}
    with files.writing(output):
        files.write(file, _lines(record))
        module.plot(record["numbers"], output / f"{name}.png")
    print(f"{file}, {output / f'{name}.png'}: {count} seed(s), {record['seconds']} s")
    print("--fast: these numbers mean nothing, so there are no verdicts" if fast else _table(found))


def _find(name: str) -> ModuleType:
    known = modules.names(studies)
    if name not in known:
        raise UserError(f"unknown study {name!r}; choose one of {', '.join(known)}")
    return importlib.import_module(f"{studies.__name__}.{name}")


def _read(file: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a study run with these settings, or None if there is none; raises UserError for other settings."""
    if not file.exists():
        return None
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        changes = differences(record["settings"], settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged or not a study's; remove it, or choose another --output") from error
    if changes:
        raise UserError(f"{file} was made with {'; '.join(changes)}; choose another --output")
    return record


def _words(module: ModuleType) -> dict[str, str]:
    """A study's title and description, from its docstring: the first line, and the paragraphs after it."""
    title, *about = inspect.cleandoc(module.__doc__ or "").split("\n\n")
    return {"title": title.removesuffix("."), "about": "\n\n".join(" ".join(part.split()) for part in about)}


def _lines(record: dict[str, Any]) -> str:
    """A record as JSON: one line for each key of KEYS, and for each key of the numbers."""

    def lines(values: dict[str, Any]) -> str:
        return ",\n".join(f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in values.items())

    head = lines({key: record[key] for key in KEYS if key in record})
    return f'{{\n{head},\n"numbers": {{\n{lines(record["numbers"])}\n}}}}\n'


def _table(found: list[Verdict]) -> str:
    wide = max(len(one.found) for one in found)
    rows = []
    for one in found:
        lines = textwrap.wrap(one.claim, 118 - wide) + textwrap.wrap(one.because, 118 - wide)
        rows += [f"{one.found if i == 0 else '':<{wide}}  {line}" for i, line in enumerate(lines)]
    return "\n".join(rows)
