"""Rows in topics, divided into cells as a generation is, for the tests of routing, calibration and probing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.cells import Division, divide
from shards.routing import Routing, effective_dimension, means_of

DIM = 32


@dataclass(frozen=True, eq=False)
class Clustered:
    """`vectors` (rows, dim) with their division and the routing over it."""

    vectors: NDArray[np.float32]
    division: Division
    routing: Routing

    def queries(self, count: int, seed: int) -> NDArray[np.float32]:
        """Unit vectors near rows that they do not equal."""
        rng = np.random.default_rng(seed)
        near = self.vectors[rng.integers(0, len(self.vectors), count)]
        return unit(near + 0.6 * rng.standard_normal(near.shape) / np.sqrt(DIM))

    def best(self, query: NDArray[np.float32], k: int) -> NDArray[np.intp]:
        """The true best rows."""
        return np.argsort(-(self.vectors @ query), kind="stable")[:k]


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def clustered(rows: int, cells: int, *, seed: int = 1, topics: int = 60) -> Clustered:
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((topics, DIM)))
    vectors = unit(centres[rng.integers(0, topics, rows)] + 0.9 * rng.standard_normal((rows, DIM)) / np.sqrt(DIM))
    division = divide(vectors, cells, 16, seed=seed)
    micros = len(division.centroids)
    sums = np.zeros((micros, DIM), dtype=np.float32)
    np.add.at(sums, division.micro_of, vectors)
    counts = np.bincount(division.micro_of, minlength=micros).astype(np.int64)
    dimension = effective_dimension(vectors, means_of(sums, counts)[division.micro_of])
    return Clustered(vectors, division, Routing(sums, counts, division.cell_of, np.arange(cells), dimension))
