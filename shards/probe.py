"""Nearest neighbours in a generation: which plan answers a query with the promised recall for the least work.

Plans, by cost: `matches` compares the few rows that a filter lets through, one by one; `cells` visits the cells that
can be expected to hold a best row, and under a filter those that the found scores call for in a second round; `exact`
searches every cell. The costs were measured on Milvus Lite (docs/benchmarks.md); a server's differ, and
with it where one plan overtakes the other, not what is found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards.generation import Generation
from shards.matches import Matches
from shards.routing import Expectation, Routing
from shards.vectors import Scored, VectorStore, VersionScope

_SCAN_MS = 0.0009
_FETCH_MS = 0.06
_MOST_FETCHED = 2000
_LEAST_CAP = 8000
_CAP = 0.3
"""A query visits at most this share of the rows, and at least `_LEAST_CAP`: the last percent cost most."""


@dataclass(frozen=True)
class AnnQuery:
    """What is searched: `k` hits in all, of which the best `wanted` are to be found with the recall `target`."""

    vector: NDArray[np.float32]
    k: int
    wanted: int
    target: float
    exact: bool = False
    matches: Matches | None = None


@dataclass(frozen=True)
class AnnHits:
    """What the vector store found, how it was searched, and with what recall: promised by the calibration, predicted
    for this query from its own scores."""

    hits: list[Scored]
    plan: str
    cells_visited: int
    cells_total: int
    rows_scanned: int | None
    promised: float
    predicted: float
    rounds: int = 1
    visited: tuple[int, ...] = ()
    """The cells, where they were chosen."""


async def search(vectors: VectorStore, generation: Generation, query: AnnQuery) -> AnnHits:
    """Search a generation by the plan that costs least."""
    matches, routing = query.matches, generation.routing
    if matches is not None and not len(matches):
        return AnnHits([], "matches", 0, generation.cells, 0, 1.0, 1.0)
    if matches is not None and _fetching_pays(generation, matches):
        return await _matches(vectors, generation, query, matches)
    if routing is None or query.exact or generation.header.calibration is None:
        return await _exact(vectors, generation, query)
    return await _Probe(vectors, generation, routing, query).run()


def _fetching_pays(generation: Generation, matches: Matches) -> bool:
    if len(matches) > _MOST_FETCHED:
        return False
    if generation.routing is None:  # with several cells it was made before micro-cells: where a row lies is not known
        return generation.cells == 1 and len(matches) * _FETCH_MS < _rows(generation) * _SCAN_MS
    return True


def _rows(generation: Generation) -> int:
    return int(generation.micros.rows.sum())


async def _matches(vectors: VectorStore, generation: Generation, query: AnnQuery, matches: Matches) -> AnnHits:
    by_cell: dict[int, list[UUID]] = {}
    for chunk_id, cell in zip(matches.chunk_ids(), generation.cell_of(matches.micros), strict=True):
        by_cell.setdefault(int(cell), []).append(chunk_id)
    rows = await vectors.fetch(generation.collection, by_cell)
    if not rows:
        return AnnHits([], "matches", 0, generation.cells, 0, 1.0, 1.0)
    scores = np.stack([row.vector for row in rows]) @ query.vector
    best = np.argsort(-scores, kind="stable")[: query.k]
    hits = [Scored(rows[at].chunk_id, float(scores[at])) for at in best]
    return AnnHits(hits, "matches", len(by_cell), generation.cells, len(rows), 1.0, 1.0)


async def _exact(vectors: VectorStore, generation: Generation, query: AnnQuery) -> AnnHits:
    scope = None if query.matches is None else query.matches.scope
    hits = await vectors.search(generation.collection, query.vector, k=query.k, cells=None, scope=scope)
    return AnnHits(hits, "exact", generation.cells, generation.cells, _rows(generation), 1.0, 1.0)


@dataclass
class _Probe:
    """One query on its way through the cells. Cells are places in `routing.cells`."""

    vectors: VectorStore
    generation: Generation
    routing: Routing
    query: AnnQuery

    def __post_init__(self) -> None:
        calibration = self.generation.header.calibration
        assert calibration is not None
        self._threshold = calibration.threshold(self.query.target)
        self._counts: NDArray[np.int64] | None = None
        self._matching = self.routing.cell_rows
        if self.query.matches is not None:
            self._counts = self.query.matches.by_micro(len(self.routing.rows))
            self._matching = self.routing.by_cell(self._counts).astype(np.int64)
        self._filled = self._matching > 0

    async def run(self) -> AnnHits:
        """Visit the cells that are worth it, then those that the scores found call for."""
        expected = self._expect(None)
        visited = self._worthwhile(expected, np.zeros(len(self._filled), dtype=np.bool_))
        hits = await self._visit(visited)
        rounds = 1
        if self.query.matches is not None:
            left, expected = self._left(hits, visited, expected)
            if len(left):
                hits = _best(hits, await self._visit(left), self.query.k)
                visited, rounds = np.concatenate([visited, left]), 2
        total = float(expected.hits.sum())
        predicted = self._threshold.predict(float(expected.hits[visited].sum()) / total) if total > 0 else 1.0
        return AnnHits(
            hits,
            "cells",
            len(visited),
            len(self.routing.cells),
            int(self.routing.cell_rows[visited].sum()),
            round(self._threshold.recall, 4),
            round(predicted, 4),
            rounds,
            tuple(self.routing.cells[visited].tolist()),
        )

    def _expect(self, score: float | None) -> Expectation:
        return self.routing.expect(self.query.vector, self.query.wanted, matching=self._counts, score=score)

    def _worthwhile(self, expected: Expectation, seen: NDArray[np.bool_], *, least: int = 1) -> NDArray[np.intp]:
        """Return the cells worth a visit, best first, at least `least` of those that hold anything."""
        worth = np.where(self._filled & ~seen, self.routing.worth(expected), -1.0)
        order = np.argsort(-worth, kind="stable")
        rows = np.cumsum(self.routing.cell_rows[order])
        affordable = rows <= max(_CAP * rows[-1], _LEAST_CAP)
        taken = (worth[order] >= self._threshold.worth) & affordable
        taken[:least] |= worth[order[:least]] >= 0
        chosen: NDArray[np.intp] = order[taken]
        return chosen

    def _left(
        self, hits: Sequence[Scored], visited: NDArray[np.intp], expected: Expectation
    ) -> tuple[NDArray[np.intp], Expectation]:
        """Return the cells to visit in the second round of a filtered search, and what is expected now."""
        seen = np.zeros(len(self._filled), dtype=np.bool_)
        seen[visited] = True
        if len(hits) < self.query.wanted:
            return np.flatnonzero(self._filled & ~seen), expected
        known = self._expect(hits[self.query.wanted - 1].score)
        return self._worthwhile(known, seen, least=0), known

    async def _visit(self, places: NDArray[np.intp]) -> list[Scored]:
        matches = self.query.matches
        if matches is None:
            return await self._search(places, None)
        whole = self._matching[places] == self.routing.cell_rows[places]  # every row matches: no filter is needed
        mixed = places[~whole]
        rows = int(self.routing.cell_rows[mixed].sum())
        scope = matches.within(self.generation.micros.cell, self.routing.cells[mixed], rows)
        found = await asyncio.gather(self._search(places[whole], None), self._search(mixed, scope))
        return _best(*found, self.query.k)

    async def _search(self, places: NDArray[np.intp], scope: VersionScope | None) -> list[Scored]:
        if not len(places):
            return []
        cells = self.routing.cells[places].tolist()
        collection, vector = self.generation.collection, self.query.vector
        return await self.vectors.search(collection, vector, k=self.query.k, cells=cells, scope=scope)


def _best(some: Sequence[Scored], more: Sequence[Scored], k: int) -> list[Scored]:
    """The best k of both, a chunk once: it lies in two cells for the moment in which it moves."""
    merged: dict[UUID, Scored] = {}
    for hit in sorted([*some, *more], key=lambda hit: -hit.score):
        merged.setdefault(hit.chunk_id, hit)
    return list(merged.values())[:k]
