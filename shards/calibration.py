"""The threshold of a tenant's cells: found on questions whose best rows are known, so that a promised recall holds.

A cell is visited when what it is worth (`Routing.worth`) reaches the threshold. The curve keeps recall and rows visited
over a grid of thresholds, so that another target needs no new measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.routing import Routing

K = 10
"""Recall is that of the best ten."""
_CURVES = ("worth", "recall", "error", "rows", "coverage")
_GRID = np.geomspace(0.0005, 5.0, 120)


@dataclass(frozen=True)
class Threshold:
    """From what worth on a cell is visited, and what is expected of that: mean recall, share of the rows, and share of
    the expected hits that lie in visited cells."""

    worth: float
    recall: float
    rows: float
    coverage: float

    def predict(self, coverage: float) -> float:
        """Return the recall predicted for a query whose visited cells hold this share of its expected hits.

        The spread of scores is taken widely, so the shares left out are too large: they are scaled so that their mean
        becomes the recall that was measured.
        """
        left = (1 - self.recall) / max(1 - self.coverage, 1e-6)
        return min(1.0, max(0.0, 1 - (1 - coverage) * left))


@dataclass(frozen=True)
class Calibration:
    """A curve over falling thresholds: mean recall@10, its standard error, the mean share of rows visited, and the mean
    share of expected hits in visited cells.

    `source` says what the questions were: `sentences` out of the tenant's own chunks, or `questions` that were asked.
    """

    source: str
    questions: int
    worth: tuple[float, ...]
    recall: tuple[float, ...]
    error: tuple[float, ...]
    rows: tuple[float, ...]
    coverage: tuple[float, ...]

    def threshold(self, target: float) -> Threshold:
        """Return the highest threshold whose mean recall is at least `target`, with a margin for chance where the
        questions are real: sentences err on the safe side by themselves."""
        margin = _margin(self.source, self.questions)
        for at, recall in enumerate(self.recall):
            if recall - margin * self.error[at] >= target:
                return Threshold(self.worth[at], recall, self.rows[at], self.coverage[at])
        return Threshold(0.0, 1.0, 1.0, 1.0)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads, with six decimals."""
        shorter = {name: [round(x, 6) for x in getattr(self, name)] for name in _CURVES}
        return {"source": self.source, "questions": self.questions, **shorter}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Calibration:
        """Return the calibration that `to_json` wrote."""
        curves = {name: tuple(stored[name]) for name in _CURVES}
        return cls(source=stored["source"], questions=stored["questions"], **curves)


def _margin(source: str, questions: int) -> float:
    if source == "sentences":
        return 0.0
    return 1.64 if questions < 1000 else 1.0


def calibrate(
    routing: Routing, queries: NDArray[np.float32], truth: Sequence[NDArray[np.int64]], *, source: str
) -> Calibration:
    """Measure the curve.

    Args:
        queries: unit vectors (q, dim).
        truth: for each query the places in `routing.cells` of the cells that hold its true best rows, one each; those
            of a query without any are left out.
    """
    found: list[NDArray[np.float64]] = []
    visited, covered = np.zeros(len(_GRID)), np.zeros(len(_GRID))
    share = routing.cell_rows / max(int(routing.rows.sum()), 1)
    falling = _GRID[::-1]
    for query, cells in zip(queries, truth, strict=True):
        if not len(cells):
            continue
        expected = routing.expect(query, K)
        worth = routing.worth(expected)
        best = int(np.argmax(worth))
        worth[best] = np.inf
        found.append((worth[cells][:, None] >= falling).mean(axis=0))
        visited += share @ (worth[:, None] >= falling)
        covered += (expected.hits / max(float(expected.hits.sum()), 1e-9)) @ (worth[:, None] >= falling)
    if not found:
        return Calibration(source, 0, *([()] * len(_CURVES)))
    recalls = np.stack(found)
    error = recalls.std(axis=0) / np.sqrt(len(recalls))
    curves = (falling, recalls.mean(axis=0), error, visited / len(recalls), covered / len(recalls))
    return Calibration(source, len(recalls), *(tuple(float(x) for x in curve) for curve in curves))


def true_cells(
    vectors: NDArray[np.float32], cell_of: NDArray[np.int64], queries: NDArray[np.float32], *, k: int = K
) -> list[NDArray[np.int64]]:
    """Return the cells of the true best `k` rows of each query: `vectors` (rows, dim), `cell_of` (rows,)."""
    k = min(k, len(vectors))
    nearest = []
    for start in range(0, len(queries), 64):
        scores = queries[start : start + 64] @ vectors.T
        nearest += list(cell_of[np.argpartition(-scores, k - 1, axis=1)[:, :k]])
    return nearest
