"""Pages of runs, studies and benchmarks, regenerated from the records next to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmgan.engine import files
from mmgan.errors import UserError
from mmgan.experiments import page, published, report
from mmgan.experiments.page import Block


def remake(folder: Path) -> list[Path]:
    """Write every page NAME.md whose records are in the folder NAME of `folder`, and for runs NAME/report.html too.

    A folder holds record.json, from a comparison of runs, or one JSON file per study or benchmark. Pages with markers
    for the paper's published figures are updated. Raises UserError if there are no records.
    """
    made = []
    for own in sorted(path for path in folder.iterdir() if path.is_dir()):
        name = folder / f"{own.name}.md"
        if (own / "record.json").exists():
            report.write(files.read_json(own / "record.json"), own)
            made.append(name)
            continue
        records = [record for file in sorted(own.glob("*.json")) if isinstance(record := files.read_json(file), dict)]
        for key, blocks_of in (("verdicts", studies), ("rows", benchmarks)):
            if known := [record for record in records if key in record]:
                files.write(name, page.markdown(blocks_of(known), own.name))
                made.append(name)
    if not made:
        raise UserError(f"{folder} holds no records: no FOLDER/record.json, and no JSON file of a study or benchmark")
    for file in sorted([*folder.glob("*.md"), *folder.parent.glob("*.md")]):
        if published.START in file.read_text(errors="replace"):
            published.update(file)
            made.append(file)
    return made


def studies(records: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The page of the paper's small analyses: the findings of each, and its picture."""
    blocks = [
        Block("The paper's studies", 1),
        Block(
            'A claim about arms is decided by the paired difference over seeds: "shows" or "the opposite shows" if its '
            '95 % interval (Student\'s t) excludes 0, otherwise "undecided"; a claim with several parts shows if all '
            "of them do. Values are means +- standard deviations over seeds. Times were measured on busy machines."
        ),
    ]
    for one in records:
        blocks += [Block(one["title"], 2)]
        blocks += [Block(text) for text in one["about"].split("\n\n") if text]
        blocks.append(
            Block(
                f"`python scripts/run_study.py {one['study']}`: {one['settings']['seeds']} seeds, "
                f"{one['seconds'] / 60:.1f} minutes, {one['environment']['time'][:10]}."
            )
        )
        rows = [[verdict["claim"], f"**{verdict['found']}**", verdict["because"]] for verdict in one["verdicts"]]
        blocks.append(Block(table=[["claim", "found", "because"], *rows]))
        blocks += [Block(text) for text in one.get("notes", [])]
        blocks.append(Block(one["title"], picture=f"{one['study']}.png"))
    return blocks


def benchmarks(records: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The page of benchmarks: ratios within one run."""
    blocks = [
        Block("Benchmarks", 1),
        Block(
            "Each figure is the median, over the rounds of a run, of the ratio within a round, with the range over the "
            "rounds: differences smaller than that range may not be real."
        ),
    ]
    for one in records:
        blocks += [Block(one["title"], 2), Block(f"`{one['command']}`, {one['date']}, {one['machine']}.")]
        blocks.append(Block("; ".join(f"{key} {value}" for key, value in one["setting"].items()) + "."))
        rows = [[row["name"], f"{row['median']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"] for row in one["rows"]]
        blocks.append(Block(table=[["ratio", "median", "range"], *rows]))
        blocks += [Block(text) for text in one.get("notes", [])]
    return blocks
