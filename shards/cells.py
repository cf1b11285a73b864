"""A tenant's cells: how many, where their centroids lie, and which cell a vector belongs to."""

from __future__ import annotations

import asyncio

import faiss
import numpy as np
from numpy.typing import NDArray

from shards.settings import ShardSettings

_ITERATIONS = 25
_POINTS_PER_CENTROID = 256
"""More points do not move the centroids (Faiss's own default)."""
_BLOCK = 16_384


def cell_count(rows: int, settings: ShardSettings) -> int:
    """Return how many cells `rows` chunks are divided into: one until cells pay, then by the wanted size of a cell."""
    if rows < settings.threshold:
        return 1
    return min(settings.max_cells, max(2, round(rows / settings.rows_per_cell)))


def train(vectors: NDArray[np.float32], cells: int, seed: int) -> NDArray[np.float32]:
    """Return unit centroids (cells, dim) of unit vectors (rows, dim) by spherical k-means. The same input and seed
    give the same centroids.

    Source: I. S. Dhillon, D. S. Modha, "Concept decompositions for large sparse text data using clustering", 2001.

    Raises:
        ValueError: fewer rows than cells.
    """
    rows, dim = vectors.shape
    if not 1 <= cells <= rows:
        raise ValueError(f"{cells} cells of {rows} rows")
    kmeans = faiss.Kmeans(
        dim,
        cells,
        niter=_ITERATIONS,
        seed=seed,
        spherical=True,
        max_points_per_centroid=_POINTS_PER_CENTROID,
        min_points_per_centroid=1,
    )
    kmeans.train(np.ascontiguousarray(vectors, dtype=np.float32))
    return np.asarray(kmeans.centroids, dtype=np.float32).reshape(cells, dim)


def assign(vectors: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return for each unit vector (rows, dim) the cell whose centroid (cells, dim) is nearest by cosine: (rows,)."""
    nearest = np.empty(len(vectors), dtype=np.int64)
    for start in range(0, len(vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        nearest[block] = np.argmax(vectors[block] @ centroids.T, axis=1)
    return nearest


async def train_async(
    vectors: NDArray[np.float32], cells: int, *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the centroids and each row's cell, computed in a thread. See `train`."""

    def work() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        centroids = train(vectors, cells, seed)
        return centroids, assign(vectors, centroids)

    return await asyncio.to_thread(work)
