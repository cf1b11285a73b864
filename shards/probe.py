"""Which cells a query visits: the nearest ones, until they hold enough of the tenant's rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def probe(
    query: NDArray[np.float32],
    centroids: NDArray[np.float32],
    cell_rows: NDArray[np.int64],
    *,
    share: float,
    rows: int = 0,
) -> list[int]:
    """Return the cells to visit, nearest first, at least one.

    Cells are taken in the order of the cosine between `query` (dim,) and their unit centroids (cells, dim) until those
    taken hold at least `share` of all rows and at least `rows` rows. `cell_rows` (cells,) may lag behind the index: it
    only decides when to stop. Empty cells are passed over unless all are empty.
    """
    order = np.argsort(-(centroids @ query), kind="stable")
    filled = order[cell_rows[order] > 0]
    if not len(filled):
        return [int(cell) for cell in order]
    held = np.cumsum(cell_rows[filled])
    wanted = min(max(share * held[-1], rows), held[-1])
    enough = int(np.searchsorted(held, wanted - 1e-9)) + 1
    return [int(cell) for cell in filled[:enough]]
