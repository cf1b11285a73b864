"""Which cells a query visits: those that can be expected to hold one of its best k rows.

A micro-cell is a normal distribution of scores around `mean . query`, as wide as its rows are spread. The score of the
k-th best row of all is the threshold at which these distributions expect k rows above it; the same distributions then
give the rows expected above it in each cell. One round, closed form, no probe before it. The rule, "expected hits", is
our own: on 64,000 chunks it visits 2.8% of the rows for a recall@10 of .98 (docs/decisions/0010-cells.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from shards.cells import Division

_WIDER = 1.5
"""Factor on the standard deviation; flat between 1.25 and 1.75."""
_PRIOR_ROWS = 4.0
"""Weight of the common variance in that of a micro-cell with few rows."""
_CANDIDATES = 512
"""Micro-cells that can matter for the k-th score."""
_STEPS = 14
_ALL_COMPARED = 10_000
"""So many micro-cells are all compared with a query; of more, only those of the nearest cells."""
_CELLS_COMPARED = 128
_DIMENSION_ROWS = 2000
_REFERENCE_K = 10.0
"""The k that thresholds are given for."""


@dataclass(frozen=True, eq=False)
class Expectation:
    """What a query may expect: `score` of its k-th best row, and rows above it in each cell, `hits` (cells,)."""

    score: float
    hits: NDArray[np.float32]
    k: int
    near: NDArray[np.float32]
    """Score of each micro-cell's mean (micros,)."""
    above: NDArray[np.float32]
    """Rows expected above `score` in each micro-cell (micros,); under a filter, of those that match."""


@dataclass(frozen=True, eq=False)
class Routing:
    """The micro-cells of a generation at one moment.

    `sums` (micros, dim) are the summed unit vectors of each micro-cell's rows, `rows` (micros,) how many they are,
    `cell_of` (micros,) the place in `cells` of the cell that holds them, `cells` (cells,) the numbers of the
    partitions. `dimension` is the effective dimension of rows around their micro-cell's mean; `reference_rows` the
    `mean_rows` of the calibration in force.
    """

    sums: NDArray[np.float32]
    rows: NDArray[np.int64]
    cell_of: NDArray[np.int64]
    cells: NDArray[np.int64]
    dimension: float
    reference_rows: float | None = None

    @property
    def mean_rows(self) -> float:
        """Return the rows of the cell that worth is measured by: those of a mean cell at the calibration, so that a
        threshold keeps its meaning while cells are divided."""
        return self.reference_rows or max(float(self.cell_rows.mean()), 1.0)

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """The micro-cells, cell by cell (micros,)."""
        return np.argsort(self.cell_of, kind="stable")

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """Where each cell begins and ends in `_order`."""
        starts = np.searchsorted(self.cell_of[self._order], np.arange(len(self.cells) + 1)).tolist()
        return list(pairwise(starts))

    @cached_property
    def _means(self) -> NDArray[np.float32]:
        """The mean vectors in `_order` (micros, dim), not normalised; zero for an empty micro-cell."""
        return means_of(self.sums[self._order], self.rows[self._order])

    @cached_property
    def _cells_at(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The mean vector of each cell's rows (cells, dim), and twice the standard deviation of their scores (cells,):
        a cell that is spread widely may have a micro-cell that is near."""
        means = means_of(self.cell_sums, self.cell_rows)
        residual = np.clip(1.0 - np.einsum("cd,cd->c", means, means), 0.0, 1.0)
        return means, (2 * _WIDER * np.sqrt(residual / self.dimension)).astype(np.float32)

    @property
    def residual(self) -> float:
        """Return how far rows lie from the mean of their micro-cell: 1 - the mean squared length of the means."""
        return 1.0 - float((self.rows * self._lengths).sum() / max(int(self.rows.sum()), 1))

    @cached_property
    def _lengths(self) -> NDArray[np.float64]:
        """The squared length of each mean (micros,)."""
        lengths = np.empty(len(self.rows))
        lengths[self._order] = np.einsum("md,md->m", self._means, self._means)
        return lengths

    @cached_property
    def spread(self) -> NDArray[np.float32]:
        """Return the standard deviation of scores around each mean (micros,), for a unit query."""
        counts = self.rows.astype(np.float64)
        residual = np.clip(1.0 - self._lengths, 0.0, 1.0)
        common = float((counts * residual).sum() / max(np.maximum(counts - 1, 0).sum(), 1.0))
        variance = (counts * residual + _PRIOR_ROWS * common) / (np.maximum(counts, 1) - 1 + _PRIOR_ROWS)
        deviation: NDArray[np.float32] = np.maximum(_WIDER * np.sqrt(variance / self.dimension), 1e-6).astype(
            np.float32
        )
        return deviation

    @cached_property
    def cell_rows(self) -> NDArray[np.int64]:
        """Return the rows of each cell (cells,)."""
        return self.by_cell(self.rows).astype(np.int64)

    @cached_property
    def cell_sums(self) -> NDArray[np.float32]:
        """Return the summed vectors of each cell's rows (cells, dim)."""
        rows = self.rows[self._order].astype(np.float32)
        return np.stack([rows[first:last] @ self._means[first:last] for first, last in self._spans])

    def by_cell(self, values: NDArray[np.generic]) -> NDArray[np.float64]:
        """Return the sums of a value of the micro-cells (micros,) over each cell (cells,)."""
        return np.bincount(self.cell_of, weights=values, minlength=len(self.cells)).astype(np.float64)

    def expect(
        self,
        query: NDArray[np.float32],
        k: int,
        *,
        matching: NDArray[np.int64] | None = None,
        score: float | None = None,
    ) -> Expectation:
        """Return what the unit vector `query` (dim,) may expect of its best `k` rows.

        Args:
            matching: rows of each micro-cell (micros,) that a filter lets through; all of them without one.
            score: the k-th score when it is known from a search already.
        """
        counts = (self.rows if matching is None else matching).astype(np.float32)
        if matching is None and len(self.rows) > _ALL_COMPARED and len(self.cells) > _CELLS_COMPARED:
            return self._expect_near(query, k, counts, score)
        near = np.empty(len(self.rows), dtype=np.float32)
        near[self._order] = self._means @ query
        if score is None:
            score = _kth_score(near, self.spread, counts, k)
        above = counts * _above((near - score) / self.spread)
        return Expectation(score, self.by_cell(above).astype(np.float32), k, near, above)

    def _expect_near(
        self, query: NDArray[np.float32], k: int, counts: NDArray[np.float32], score: float | None
    ) -> Expectation:
        """Expect nothing of the micro-cells of all but the nearest cells: to compare every one takes longer than the
        rest of a query, and a query visits far fewer cells."""
        means, reach = self._cells_at
        nearest = np.argpartition(-(means @ query + reach), _CELLS_COMPARED)[:_CELLS_COMPARED]
        spans = [self._spans[cell] for cell in np.sort(nearest)]
        micros = np.concatenate([self._order[first:last] for first, last in spans])
        found = np.concatenate([self._means[first:last] @ query for first, last in spans])
        near, above = np.full(len(counts), -1.0, dtype=np.float32), np.zeros(len(counts), dtype=np.float32)
        near[micros] = found
        counts, spread = counts[micros], self.spread[micros]
        if score is None:
            score = _kth_score(found, spread, counts, k)
        above[micros] = counts * _above((found - score) / spread)
        return Expectation(score, self.by_cell(above).astype(np.float32), k, near, above)

    def kth_score(self, expected: Expectation, k: int, matching: NDArray[np.int64]) -> float:
        """Return the score expected of the k-th best of the rows that match (micros,)."""
        return _kth_score(expected.near, self.spread, matching.astype(np.float32), k)

    def rivals(self, expected: Expectation, score: float) -> NDArray[np.float32]:
        """Return how many rows of each micro-cell (micros,), matching or not, are expected above a score."""
        return self.rows.astype(np.float32) * _above((expected.near - score) / self.spread)

    def worth(self, expected: Expectation) -> NDArray[np.float32]:
        """Return for each cell (cells,) the hits expected for the rows it costs to visit it, scaled to k = 10."""
        cost = np.maximum(self.cell_rows, 1) / self.mean_rows
        scaled: NDArray[np.float32] = (expected.hits / cost).astype(np.float32) * (_REFERENCE_K / expected.k)
        return scaled


def _kth_score(near: NDArray[np.float32], spread: NDArray[np.float32], counts: NDArray[np.float32], k: int) -> float:
    """The score above which micro-cells of so many rows (n,) expect k."""
    filled = np.flatnonzero(counts > 0)
    if not len(filled) or counts.sum() <= k:
        return -1.0
    if len(filled) > _CANDIDATES:
        highest = near[filled] + 2 * spread[filled]
        filled = filled[np.argpartition(-highest, _CANDIDATES)[:_CANDIDATES]]
    near, spread, counts = near[filled], spread[filled], counts[filled]
    low, high = -1.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if float(counts @ _above((near - middle) / spread)) > k:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _above(deviations: NDArray[np.float32]) -> NDArray[np.float32]:
    """The normal distribution function, to 1e-7: Abramowitz and Stegun, 7.1.26."""
    scaled = np.abs(deviations) * np.float32(0.7071067811865476)
    t = 1 / (1 + np.float32(0.3275911) * scaled)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    half: NDArray[np.float32] = 0.5 * tail * np.exp(-scaled * scaled)
    return np.where(deviations > 0, 1 - half, half).astype(np.float32)


def routing_over(vectors: NDArray[np.float32], made: Division, *, seed: int) -> Routing:
    """Return the routing over a division of rows (rows, dim), cells numbered from 0; the effective dimension from some
    of the rows."""
    micros = len(made.centroids)
    sums = np.zeros((micros, vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, made.micro_of, vectors)
    rows = np.bincount(made.micro_of, minlength=micros).astype(np.int64)
    some = np.random.default_rng(seed).permutation(len(vectors))[:_DIMENSION_ROWS]
    dimension = effective_dimension(vectors[some], means_of(sums, rows)[made.micro_of[some]])
    return Routing(sums, rows, made.cell_of, np.arange(int(made.cell_of.max()) + 1), dimension)


def means_of(sums: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean vectors (n, dim) of summed vectors (n, dim) of so many rows (n,); zero for none."""
    divided: NDArray[np.float32] = sums / np.maximum(rows, 1).astype(np.float32)[:, None]
    return divided


def effective_dimension(vectors: NDArray[np.float32], means: NDArray[np.float32]) -> float:
    """Return over how many dimensions rows scatter around their means: trace(C) / mean(x' C x), C the covariance of
    `vectors` - `means` (rows, dim) and x the rows themselves, which stand for queries."""
    around = vectors - means
    covariance = around.T @ around / len(around)
    seen = float(np.einsum("nd,de,ne->n", vectors, covariance, vectors, optimize=True).mean())
    total = float(np.trace(covariance))
    return total / seen if seen > 0 and total > 0 else float(vectors.shape[1])
