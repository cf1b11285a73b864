"""Cells on a plane, and how much of the truth each of them gives up to a search: what a picture of an index shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shards.calibration import K
from shards.routing import Routing, means_of


def positions(routing: Routing) -> NDArray[np.float32]:
    """Return a place on the plane (cells, 2) for each cell: its mean along the two directions in which means differ
    most (principal components)."""
    means = means_of(routing.cell_sums, routing.cell_rows)
    centred = means - means.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    placed: NDArray[np.float32] = np.zeros((len(means), 2), dtype=np.float32)
    found = centred @ directions[:2].T
    placed[:, : found.shape[1]] = found
    return placed


def recall_by_cell(
    routing: Routing, queries: NDArray[np.float32], truth: Sequence[NDArray[np.int64]], threshold: float
) -> NDArray[np.float64]:
    """Return for each cell (cells,) the share of true best rows in it for whose question it is visited; NaN where no
    question had one there."""
    held, found = np.zeros(len(routing.cells)), np.zeros(len(routing.cells))
    for query, cells in zip(queries, truth, strict=True):
        worth = routing.worth(routing.expect(query, K))
        visited = worth >= threshold
        visited[int(np.argmax(worth))] = True
        np.add.at(held, cells, 1)
        np.add.at(found, cells, visited[cells])
    with np.errstate(invalid="ignore"):
        shares: NDArray[np.float64] = found / held
    return shares
