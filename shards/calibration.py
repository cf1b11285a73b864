"""The threshold of a tenant's cells: found on questions whose best rows are known, so that a promised recall holds.

A cell is visited when what it is worth (`Routing.worth`) reaches the threshold. The curve keeps recall and rows visited
over a grid of thresholds, so that another target needs no new measurement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.routing import Routing

K = 10
"""Recall is that of the best ten."""
_CURVES = ("worth", "recall", "error", "rows", "coverage")
_SELECTIVITIES = (0.002, 0.01, 0.05, 0.2)
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


EVERYTHING = Threshold(0.0, 1.0, 1.0, 1.0)
"""Every cell is visited: nothing is known, or nothing less keeps the target."""


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
    filtered: Calibration | None = None
    """The same under filters of many selectivities."""
    mean_rows: float | None = None
    """`Routing.mean_rows` at the time."""

    def threshold(self, target: float, *, filtered: bool = False) -> Threshold:
        """Return the highest threshold whose mean recall is at least `target`, with a margin for chance where the
        questions are real: sentences err on the safe side by themselves. Under a filter the lower of both."""
        if filtered and self.filtered is not None:
            return min(self.threshold(target), self.filtered.threshold(target), key=lambda found: found.worth)
        margin = _margin(self.source, self.questions)
        for at, recall in enumerate(self.recall):
            if recall - margin * self.error[at] >= target:
                return Threshold(self.worth[at], recall, self.rows[at], self.coverage[at])
        return EVERYTHING

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads, with six decimals."""
        shorter = {name: [round(x, 6) for x in getattr(self, name)] for name in _CURVES}
        filtered = {} if self.filtered is None else {"filtered": self.filtered.to_json()}
        known = {"source": self.source, "questions": self.questions, "mean_rows": self.mean_rows}
        return {**known, **shorter, **filtered}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Calibration:
        """Return the calibration that `to_json` wrote."""
        curves = {name: tuple(stored[name]) for name in _CURVES}
        filtered = cls.from_json(stored["filtered"]) if "filtered" in stored else None
        known = {name: stored.get(name) for name in ("source", "questions", "mean_rows")}
        return cls(**known, **curves, filtered=filtered)  # type: ignore[arg-type]  # as `to_json` wrote them


def _margin(source: str, questions: int) -> float:
    if source == "sentences":
        return 0.0
    return 1.64 if questions < 1000 else 1.0


@dataclass(frozen=True, eq=False)
class Filtered:
    """A filter that a calibration tries: rows that match in each micro-cell (micros,), and the true k-th score."""

    matching: NDArray[np.int64]
    score: float


def calibrate(
    routing: Routing,
    queries: NDArray[np.float32],
    truth: Sequence[NDArray[np.int64]],
    *,
    source: str,
    filters: Sequence[Filtered] | None = None,
) -> Calibration:
    """Measure the curve.

    Args:
        queries: unit vectors (q, dim).
        truth: for each query the places in `routing.cells` of the cells that hold its true best rows, one each; those
            of a query without any are left out.
        filters: one for each query; then `truth` is that of the rows that match, and the curve that of a second round.
    """
    found: list[NDArray[np.float64]] = []
    visited, covered = np.zeros(len(_GRID)), np.zeros(len(_GRID))
    share = routing.cell_rows / max(int(routing.rows.sum()), 1)
    falling = _GRID[::-1]
    trials: Sequence[Filtered | None] = filters or [None] * len(queries)
    for query, cells, tried in zip(queries, truth, trials, strict=True):
        if not len(cells):
            continue
        expected = routing.expect(query, K)
        if tried is not None:
            expected = routing.expect(query, K, matching=tried.matching, score=tried.score)
        worth = routing.worth(expected)
        best = int(np.argmax(worth))
        worth[best] = np.inf
        found.append((worth[cells][:, None] >= falling).mean(axis=0))
        visited += share @ (worth[:, None] >= falling)
        covered += (expected.hits / max(float(expected.hits.sum()), 1e-9)) @ (worth[:, None] >= falling)
    if not found:
        return Calibration(source, 0, (), (), (), (), ())
    recalls, count = np.stack(found), len(found)
    error = recalls.std(axis=0) / np.sqrt(count)
    return Calibration(
        source,
        count,
        worth=_floats(falling),
        recall=_floats(recalls.mean(axis=0)),
        error=_floats(error),
        rows=_floats(visited / count),
        coverage=_floats(covered / count),
        mean_rows=routing.mean_rows,
    )


def _floats(curve: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(x) for x in curve)


def true_cells(
    vectors: NDArray[np.float32], cell_of: NDArray[np.int64], queries: NDArray[np.float32], *, k: int = K
) -> list[NDArray[np.int64]]:
    """Return the cells of the true best `k` rows of each query: `vectors` (rows, dim), `cell_of` (rows,)."""
    return list(cell_of[true_rows(vectors, queries, k=k)]) if len(queries) else []


def true_rows(vectors: NDArray[np.float32], queries: NDArray[np.float32], *, k: int = K) -> NDArray[np.int64]:
    """Return the true best `k` rows of each query (queries, k), in no order, of `vectors` (rows, dim)."""
    k = min(k, len(vectors))
    blocks = (queries[start : start + 64] @ vectors.T for start in range(0, len(queries), 64))
    return np.concatenate([np.argpartition(-scores, k - 1, axis=1)[:, :k] for scores in blocks])


def calibrate_on_sentences(
    routing: Routing, vectors: NDArray[np.float32], micro_of: NDArray[np.int64], queries: NDArray[np.float32], seed: int
) -> Calibration:
    """Measure both curves, without and under filters, on sentences out of the rows themselves.

    Args:
        vectors: the rows (rows, dim), `micro_of` (rows,) the micro-cell of each.
    """
    truth = true_cells(vectors, routing.cell_of[micro_of], queries)
    filtered = calibrate_filtered(routing, vectors, micro_of, queries, seed)
    return replace(calibrate(routing, queries, truth, source="sentences"), filtered=filtered)


def calibrate_filtered(
    routing: Routing, vectors: NDArray[np.float32], micro_of: NDArray[np.int64], queries: NDArray[np.float32], seed: int
) -> Calibration:
    """Measure the curve under random filters, of 0.2% to 20% of the rows in turn.

    Args:
        vectors: the rows (rows, dim), `micro_of` (rows,) the micro-cell of each.
    """
    rng = np.random.default_rng(seed)
    truth: list[NDArray[np.int64]] = []
    filters: list[Filtered] = []
    for number, query in enumerate(queries):
        matching = np.flatnonzero(rng.random(len(vectors)) < _SELECTIVITIES[number % len(_SELECTIVITIES)])
        scores = vectors[matching] @ query
        best = np.argsort(-scores)[:K]
        score = float(scores[best[-1]]) if len(best) == K else -1.0
        counts = np.bincount(micro_of[matching], minlength=len(routing.rows)).astype(np.int64)
        truth.append(routing.cell_of[micro_of[matching[best]]])
        filters.append(Filtered(counts, score))
    return calibrate(routing, queries, truth, source="sentences", filters=filters)
