"""A page of headings, text, tables and pictures, written as Markdown and as one self-contained HTML file."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from mmgan.engine import files
from mmgan.errors import UserError


@dataclass
class Block:
    """A part of a page: a heading (level 1 to 3), a paragraph, a list, a table or a picture."""

    text: str = ""
    """For a picture, its caption; for a folded list, its summary. `code` and **bold** are marked as in Markdown."""
    level: int = 0
    table: list[list[str]] = field(default_factory=list)
    """Rows of cells; the first row is the head."""
    items: list[str] = field(default_factory=list)
    folded: bool = False
    picture: str = ""
    """A file in the page's folder."""


def write(blocks: Sequence[Block], page: Path, folder: Path) -> None:
    """Write `page`, Markdown that links the pictures in `folder`, and `folder`/report.html, which embeds them."""
    files.write(page, markdown(blocks, folder.name))
    files.write(folder / "report.html", html(blocks, folder))


def markdown(blocks: Sequence[Block], folder: str) -> str:
    """The page in GitHub-flavoured Markdown."""
    parts = []
    for block in blocks:
        if block.table:
            rows = [block.table[0], ["---"] * len(block.table[0]), *block.table[1:]]
            cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in cells))
        elif block.picture:
            parts.append(f"![{block.text}]({quote(f'{folder}/{block.picture}')})\n\n*{block.text}*")
        elif block.items:
            items = "\n".join(f"- {item}" for item in block.items)
            folded = f"<details>\n<summary>{block.text}</summary>\n\n{items}\n\n</details>"
            parts.append(folded if block.folded else items)
        else:
            parts.append(f"{'#' * block.level} {block.text}".strip())
    return "\n\n".join(parts) + "\n"


def html(blocks: Sequence[Block], folder: Path) -> str:
    """The page with embedded pictures, a table of contents, and tables that can be sorted by clicking on a head."""
    names = [block.picture for block in blocks if block.picture]
    if strange := [name for name in names if Path(name).name != name]:
        raise UserError(f"a page can only show pictures in its folder, not {strange[0]}")
    pictures = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in names}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["inline"] = _inline
    template = environment.from_string((Path(__file__).parent / "page.html").read_text())
    return template.render(blocks=blocks, pictures=pictures)


def _inline(text: str) -> Markup:
    """A text as HTML: code and bold are kept, links to other pages are reduced to their text."""
    safe = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", str(escape(text)))
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe))
