"""Tables as Markdown: one row a line, so that a row stays whole wherever the text is cut."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """`rows` of cells (of any lengths) as a Markdown table whose first row is the header.

    Columns and rows that are blank throughout are left out; an empty table gives "".
    """
    width = max((len(row) for row in rows), default=0)
    grid = [[_cell(row[i]) if i < len(row) else "" for i in range(width)] for row in rows]
    kept = [i for i in range(width) if any(row[i] for row in grid)]
    grid = [[row[i] for i in kept] for row in grid if any(row)]
    if not grid:
        return ""
    lines = [_line(row) for row in grid]
    lines.insert(1, _line(["---"] * len(kept)))
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
