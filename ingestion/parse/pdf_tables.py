"""Tables of a PDF: neighbouring lines whose wide gaps stand in the same columns."""

from __future__ import annotations

from collections.abc import Sequence

from ingestion.parse.pdf_lines import Line
from ingestion.parse.tables import markdown_table

_MAX_ROW_GAP = 2.0
_MAX_CELL_CHARS = 80
_MIN_ALIGNED = 0.6


def table_at(lines: Sequence[Line], start: int) -> tuple[str, int]:
    """(Markdown table, number of lines it takes) when a table begins at `lines[start]`, else ("", 0).

    At least two lines with two cells or more, whose cells fall into shared columns. A line with one cell that
    stands under a column other than the first continues the row above it.
    """
    end = _run_end(lines, start)
    rows = [line for line in lines[start:end] if len(line.cells) > 1]
    if len(rows) < 2:
        return "", 0
    columns = _columns(rows)
    if len(columns) < 2:
        return "", 0
    grid: list[list[str]] = []
    for line in lines[start:end]:
        placed = _placed(line, columns)
        if len(line.cells) == 1 and grid:
            grid[-1] = [" ".join(filter(None, pair)) for pair in zip(grid[-1], placed, strict=True)]
        else:
            grid.append(placed)
    aligned = sum(sum(map(bool, row)) > 1 for row in grid)
    if aligned < max(2, _MIN_ALIGNED * len(grid)) or _mean_cell(grid) > _MAX_CELL_CHARS:
        return "", 0
    return markdown_table(grid), end - start


def _run_end(lines: Sequence[Line], start: int) -> int:
    """The end of the neighbouring lines that may be one table."""
    if len(lines[start].cells) < 2:
        return start
    end = start + 1
    while end < len(lines):
        line, last = lines[end], lines[end - 1]
        gap = last.bottom - line.top
        if line.page != last.page or not -line.size < gap < _MAX_ROW_GAP * line.size:
            break
        if len(line.cells) < 2 and not _continues(line, lines[start:end]):
            break
        end += 1
    return end


def _continues(line: Line, above: Sequence[Line]) -> bool:
    """Whether a lone cell stands under a column that is not the first."""
    starts = [cell.left for row in above for cell in row.cells[1:]]
    return any(abs(line.left - left) < 0.5 * line.size for left in starts)


def _columns(rows: Sequence[Line]) -> list[tuple[float, float]]:
    """Horizontal intervals: the union of the cells that overlap, those aside that span columns."""
    fullest = max(rows, key=lambda line: len(line.cells)).cells
    columns: list[tuple[float, float]] = []
    for cell in sorted((cell for line in rows for cell in line.cells), key=lambda cell: cell.left):
        if sum(cell.left < other.right and other.left < cell.right for other in fullest) > 1:
            continue
        if columns and cell.left < columns[-1][1]:
            columns[-1] = (columns[-1][0], max(columns[-1][1], cell.right))
        else:
            columns.append((cell.left, cell.right))
    return columns


def _placed(line: Line, columns: Sequence[tuple[float, float]]) -> list[str]:
    row = [""] * len(columns)
    for cell in line.cells:
        middle = (cell.left + cell.right) / 2
        nearest = min(range(len(columns)), key=lambda i: abs((columns[i][0] + columns[i][1]) / 2 - middle))
        within = [i for i, (left, right) in enumerate(columns) if left <= middle <= right]
        i = within[0] if within else nearest
        row[i] = f"{row[i]} {cell.text}".strip()
    return row


def _mean_cell(grid: Sequence[Sequence[str]]) -> float:
    cells = [len(cell) for row in grid for cell in row if cell]
    return sum(cells) / max(len(cells), 1)
