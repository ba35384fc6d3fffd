"""Pages of runs, studies and benchmarks, regenerated from the records next to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmgan.engine import files
from mmgan.errors import UserError
from mmgan.experiments import page, published, report
from mmgan.experiments.claims import decisions, source
from mmgan.experiments.page import Block


def remake(folder: Path) -> list[Path]:
    """Write every page NAME.md whose records are in the folder NAME of `folder`, and for runs NAME/report.html too.

    A folder holds record.json, from a comparison of runs, or one JSON file per study or benchmark. The tables of
    published figures and of claims are inserted between their markers, in pages of `folder` and of the folder above.
    Raises UserError if there are no records.
    """
    made = []
    planned: list[list[str]] = []
    others: list[list[str]] = []
    for own in sorted(path for path in folder.iterdir() if path.is_dir()):
        name = folder / f"{own.name}.md"
        if (own / "record.json").exists():
            record = files.read_json(own / "record.json")
            report.write(record, own)
            made.append(name)
            (planned if record["plan"].get("planned") else others).extend(_claims(record, name))
            continue
        records = [record for file in sorted(own.glob("*.json")) if isinstance(record := files.read_json(file), dict)]
        for key, blocks_of in (("verdicts", studies), ("rows", benchmarks)):
            if known := [record for record in records if key in record]:
                files.write(name, page.markdown(blocks_of(known), own.name))
                made.append(name)
    if not made:
        raise UserError(f"{folder} holds no records: no FOLDER/record.json, and no JSON file of a study or benchmark")
    head = ["experiment", "claim", "measure", "n", "difference", "verdict", "source"]
    tables = {
        "published": published.table(),
        "claims": page.markdown([Block(table=[head, *planned, *others])], ""),
    }
    for file in sorted([*folder.glob("*.md"), *folder.parent.glob("*.md")]):
        made += [file for name, table in tables.items() if insert(file, name, table)]
    return made


def insert(file: Path, name: str, table: str) -> bool:
    """Replace the text between the markers of `name` in a page with a table; returns whether it has such markers.

    Raises UserError for a page in which the second marker is missing.
    """
    first, last = f"<!-- {name}: made by scripts/pages.py -->", f"<!-- /{name} -->"
    content = files.read(file)
    if first.encode() not in content:
        return False
    before, _, rest = content.decode().partition(first)
    _, end, after = rest.partition(last)
    if not end:
        raise UserError(f"{file} lacks the line {last}")
    files.write(file, f"{before}{first}\n\n{table}\n{last}{after}")
    return True


def _claims(record: report.Record, name: Path) -> list[list[str]]:
    """Rows for the claims of an experiment; only the first row names the experiment."""
    rows = [
        [
            "",
            one.text,
            one.measure.title,
            str(one.found.n),
            one.interval,
            f"**{one.verdict}**",
            source(one.claim),
        ]
        for one in decisions(record["claims"], report.results_of(record))
    ]
    if rows:
        planned = ", planned" if record["plan"].get("planned") else ""
        rows[0][0] = f"[{record['title']}]({name.parent.name}/{name.name}){planned}"
    return rows


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
