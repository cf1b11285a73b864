"""Which cells are to be divided or joined, so that they keep the size that pays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.routing import Routing
from shards.settings import ShardSettings
from shards.vectors import MAX_CELLS

SPLIT_AT = 2.0
"""A cell of more rows, in multiples of the wanted size, is divided."""
MERGE_AT = 0.25
HOT = 8.0
"""A cell is hot when it takes so many times its share of the visits."""
_LEAST_VISITS = 1000.0
_SPARE_CELLS = 24
"""Partitions kept free: what was divided before is dropped a little later, and joined cells are copied first."""
_MERGED = 1.25
"""The most rows of a joined cell."""


@dataclass(frozen=True)
class Wish:
    """Cells (their numbers) that should become so many others."""

    kind: str
    parents: tuple[int, ...]
    children: int


def wishes(
    routing: Routing, settings: ShardSettings, *, heat: Mapping[int, float] | None = None, most: int = 8
) -> list[Wish]:
    """Return the changes that are due, the largest cells first; no cell is in two of them.

    What cannot be told apart, rows of one micro-cell, is not divided: it would be tried for ever.
    A cell of more than the wanted size that takes `HOT` times its share of all visits (`heat`, by cell) is divided too.
    The wanted size grows with the tenant once it has as many cells as it may have. Nothing is divided when the
    collection has no room for the copies.
    """
    rows, apart = routing.cell_rows, routing.by_cell(routing.rows > 0)
    wanted = max(float(settings.rows_per_cell), float(rows.sum()) / settings.max_cells)
    room = MAX_CELLS - _SPARE_CELLS - len(rows)
    found: list[Wish] = []
    for cell in np.argsort(-rows, kind="stable"):
        if rows[cell] <= wanted or len(found) == most:
            break
        if apart[cell] < 2:
            continue
        if rows[cell] <= SPLIT_AT * wanted and not _is_hot(int(routing.cells[cell]), len(rows), heat or {}):
            continue
        children = max(2, round(float(rows[cell]) / wanted))
        if children <= room:
            found.append(Wish("split", (int(routing.cells[cell]),), children))
            room -= children
    return found + _merges(routing, wanted, most - len(found))


def _is_hot(cell: int, cells: int, heat: Mapping[int, float]) -> bool:
    total = sum(heat.values())
    return total >= _LEAST_VISITS and heat.get(cell, 0.0) > HOT * total / cells


def _merges(routing: Routing, wanted: float, most: int) -> list[Wish]:
    rows = routing.cell_rows
    small = [int(cell) for cell in np.argsort(rows, kind="stable") if rows[cell] < MERGE_AT * wanted]
    taken: set[int] = set()
    found: list[Wish] = []
    centres = _centres(routing)
    for cell in small:
        if cell in taken or len(found) >= most:
            continue
        for other in np.argsort(-(centres @ centres[cell]), kind="stable"):
            joined = int(other)
            if joined != cell and joined not in taken and 0 < rows[cell] + rows[joined] <= _MERGED * wanted:
                found.append(Wish("merge", (int(routing.cells[cell]), int(routing.cells[joined])), 1))
                taken |= {cell, joined}
                break
    return found


def _centres(routing: Routing) -> NDArray[np.float32]:
    sums = routing.cell_sums
    centres: NDArray[np.float32] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
    return centres
