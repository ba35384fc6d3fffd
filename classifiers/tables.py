"""Tables of a report, in Markdown."""

from __future__ import annotations


def head(*cells: str) -> list[str]:
    """The first two lines of a table."""
    return [row(*cells), row(*["---"] * len(cells))]


def row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"
