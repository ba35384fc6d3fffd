"""Pages made again from the records beside them: of runs, studies and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmgan.engine import files
from mmgan.errors import UserError
from mmgan.experiments import page, published, report
from mmgan.experiments.page import Block


def remake(folder: Path) -> list[Path]:
    """Write every page NAME.md whose records are in the folder NAME of `folder`, and of runs NAME/report.html too.

    A folder holds record.json, of runs compared, or one JSON file for each study, or for each benchmark. A page that
    has a place for the paper's published figures gets them. Raises UserError where there are no records.
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
        raise UserError(f"{folder} holds no record: no FOLDER/record.json, and no study's or benchmark's JSON")
    for file in sorted([*folder.glob("*.md"), *folder.parent.glob("*.md")]):
        if published.START in file.read_text(errors="replace"):
            published.update(file)
            made.append(file)
    return made


def studies(records: Sequence[Mapping[str, Any]]) -> list[Block]:
    """The page of the paper's small analyses: what each found, and its picture."""
    blocks = [
        Block("The paper's studies", 1),
        Block(
            'A claim about arms is decided by the paired difference over seeds: "shows" or "the opposite shows" where '
            'its 95 % interval (Student\'s t) excludes 0, else "undecided"; a claim that is several at once shows '
            "where all show. Values are means +- standard deviations over seeds. Times are of busy machines."
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
    """The page of benchmarks: ratios inside one run."""
    blocks = [
        Block("Benchmarks", 1),
        Block(
            "Each figure is the median, over the rounds of a run, of the ratio within a round, with the range of the "
            "rounds: differences below that range are not shown to be real."
        ),
    ]
    for one in records:
        blocks += [Block(one["title"], 2), Block(f"`{one['command']}`, {one['date']}, {one['machine']}.")]
        blocks.append(Block("; ".join(f"{key} {value}" for key, value in one["setting"].items()) + "."))
        rows = [[row["name"], f"{row['median']:.2f}", f"{row['low']:.2f} to {row['high']:.2f}"] for row in one["rows"]]
        blocks.append(Block(table=[["ratio", "median", "range"], *rows]))
        blocks += [Block(text) for text in one.get("notes", [])]
    return blocks
