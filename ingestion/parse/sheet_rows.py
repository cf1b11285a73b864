"""The rows of a sheet as blocks: a section under its name, blank rows part tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ingestion.parse.builder import DocumentBuilder, too_long
from ingestion.parse.document import TextLimits
from ingestion.parse.tables import markdown_table

_CELL_MARKS = 3


def add_sheet(builder: DocumentBuilder, name: str, rows: Iterable[list[str]], limits: TextLimits) -> None:
    """Add a sheet that holds anything. Raises DocumentRejected(document_too_long)."""
    headed = False
    for region in _regions(rows, limits):
        if not headed:
            builder.add("heading", name, level=1)
            headed = True
        columns = {i for row in region for i, cell in enumerate(row) if cell}
        if len(columns) > 1 and len(region) > 1:
            builder.add("table", markdown_table(region))
        else:
            builder.add("paragraph", "\n".join(" ".join(filter(None, row)) for row in region))


def _regions(rows: Iterable[list[str]], limits: TextLimits) -> Iterator[list[list[str]]]:
    """Runs of rows that hold something."""
    region: list[list[str]] = []
    characters = 0
    for cells in rows:
        if any(cells):
            characters += sum(len(cell) + _CELL_MARKS for cell in cells if cell)
            region.append(cells)
            if characters > limits.max_text_chars:
                raise too_long(limits)  # before millions of short rows fill the memory
        elif region:
            yield region
            region = []
    if region:
        yield region
