"""Micro-cells grouped into balanced cells.

A micro-cell is the unit that queries are routed by, a cell the partition that holds the rows of some of them. Fine
micro-cells tell rows apart, few cells keep the engine's partitions few; grouping neighbours under a capacity keeps the
cells of one size (`docs/decisions/0010-cells.md` has the figures).
"""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

CAPACITY = 1.25
"""The largest cell, in multiples of the mean: a tighter bound tears neighbours apart."""
_ROUNDS = 4
_ITERATIONS = 20


def group(centroids: NDArray[np.float32], rows: NDArray[np.int64], cells: int, *, seed: int) -> NDArray[np.int64]:
    """Return the cell (micros,) of each micro-cell: neighbours together, no cell above `CAPACITY` times the mean rows.

    Spherical k-means over the unit `centroids` (micros, dim) weighted by `rows` (micros,), then assignment under the
    capacity, those that would lose most by a second choice first. A micro-cell larger than the capacity has a cell to
    itself or with little else. The same input and seed give the same cells; every cell has a micro-cell.

    Raises:
        ValueError: more cells than micro-cells, or none.
    """
    micros = len(centroids)
    if not 1 <= cells <= micros:
        raise ValueError(f"{cells} cells of {micros} micro-cells")
    if cells == 1:
        return np.zeros(micros, dtype=np.int64)
    weights = np.maximum(rows, 1).astype(np.float32)
    room = max(CAPACITY * float(weights.sum()) / cells, float(weights.max()))
    centres = _centres(centroids, weights, cells, seed)
    assigned = np.zeros(micros, dtype=np.int64)
    for _ in range(_ROUNDS):
        assigned = _fill(centroids @ centres.T, weights, room)
        centres = _means(centroids, weights, assigned, centres)
    return _without_empty(assigned, weights, cells)


def _centres(
    centroids: NDArray[np.float32], weights: NDArray[np.float32], cells: int, seed: int
) -> NDArray[np.float32]:
    kmeans = faiss.Kmeans(
        centroids.shape[1], cells, niter=_ITERATIONS, seed=seed, spherical=True, min_points_per_centroid=1
    )
    faiss.omp_set_num_threads(1)  # as in `cells.train`: there is little to share
    kmeans.train(np.ascontiguousarray(centroids, dtype=np.float32), weights=weights)
    return np.asarray(kmeans.centroids, dtype=np.float32).reshape(cells, -1)


def _fill(near: NDArray[np.float32], weights: NDArray[np.float32], room: float) -> NDArray[np.int64]:
    """Assign micro-cells to cells with room by nearness (micros, cells)."""
    micros, cells = near.shape
    choices = np.argsort(-near, axis=1, kind="stable")
    best = np.take_along_axis(near, choices[:, : min(2, cells)], axis=1)
    order = np.argsort(best[:, -1] - best[:, 0], kind="stable")
    held = np.zeros(cells, dtype=np.float64)
    assigned = np.empty(micros, dtype=np.int64)
    for micro in order:
        weight = float(weights[micro])
        fits = np.flatnonzero(held[choices[micro]] + weight <= room)
        cell = int(choices[micro][fits[0]]) if len(fits) else int(np.argmin(held))
        assigned[micro] = cell
        held[cell] += weight
    return assigned


def _means(
    centroids: NDArray[np.float32],
    weights: NDArray[np.float32],
    assigned: NDArray[np.int64],
    before: NDArray[np.float32],
) -> NDArray[np.float32]:
    sums = np.zeros_like(before)
    np.add.at(sums, assigned, centroids * weights[:, None])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), before).astype(np.float32)


def _without_empty(assigned: NDArray[np.int64], weights: NDArray[np.float32], cells: int) -> NDArray[np.int64]:
    """Give each empty cell the smallest micro-cell of the cell that has most of them."""
    for cell in range(cells):
        if not (assigned == cell).any():
            largest = int(np.argmax(np.bincount(assigned, minlength=cells)))
            members = np.flatnonzero(assigned == largest)
            assigned[members[np.argmin(weights[members])]] = cell
    return assigned
