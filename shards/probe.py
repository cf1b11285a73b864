"""Nearest neighbours in a generation: which plan answers a query with the promised recall for the least work.

Plans, by cost: `matches` compares the few rows that a filter lets through, one by one; `cells` visits the cells that
can be expected to hold a best row, and under a filter those that the found scores call for in a second round; `exact`
visits every cell. `VectorStore.costs` decide where one plan overtakes the other, not what is found.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards.calibration import EVERYTHING
from shards.generation import Generation
from shards.matches import Matches
from shards.routing import Expectation, Routing
from shards.vectors import MAX_K, Scored, VectorStore, VersionScope, chunks_by_cell

_MOST_FETCHED = 2000
_MOST_GROUPS = 32
_LEAST_DEPTH = 30
_SPARE = 1.6
"""Hits fetched for each row that is expected to outscore the best matches."""
_SPARE_KNOWN = 0.6
_MORE_HITS = 3
_WORTH_NAMING = 0.1
_SECOND_ROUND = 1.5
"""What a second round adds to the cost of the first, on average."""
_LEAST_CAP = 8000
_CAP = 1 / 3
"""A query visits at most this share of the rows, or `_LEAST_CAP`: the last percent cost most. Only a filter whose
visited cells hold too few matches has every cell with a match visited."""


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
    rows_scanned: int
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
    if routing is None:
        # With several cells it was made before micro-cells: where a row lies is not known.
        if matches is not None and generation.cells == 1 and _fetching_pays(vectors, generation, matches):
            return await _matches(vectors, generation, query, matches)
        return await _exact(vectors, generation, query)
    return await _Probe(vectors, generation, routing, query).run()


def _fetching_pays(vectors: VectorStore, generation: Generation, matches: Matches) -> bool:
    costs = vectors.costs(generation.space)
    whole = generation.rows * costs.row + min(len(matches) * costs.literal, 1.0)
    return len(matches) <= _MOST_FETCHED and len(matches) * costs.fetch < whole


async def _matches(vectors: VectorStore, generation: Generation, query: AnnQuery, matches: Matches) -> AnnHits:
    by_cell = chunks_by_cell(zip(matches.chunk_ids(), generation.cell_of(matches.micros), strict=True))
    rows = await vectors.fetch(generation.space, by_cell, mark=generation.header.mark)
    if not rows:
        return AnnHits([], "matches", 0, generation.cells, 0, 1.0, 1.0)
    scores = np.stack([row.vector for row in rows]) @ query.vector
    best = np.argsort(-scores, kind="stable")[: query.k]
    hits = [Scored(rows[at].chunk_id, float(scores[at])) for at in best]
    return AnnHits(hits, "matches", len(by_cell), generation.cells, len(rows), 1.0, 1.0)


async def _exact(vectors: VectorStore, generation: Generation, query: AnnQuery) -> AnnHits:
    scope = None if query.matches is None else query.matches.scope
    mark = generation.header.mark
    hits = await vectors.search(generation.space, query.vector, k=query.k, cells=None, scope=scope, mark=mark)
    return AnnHits(hits, "exact", generation.cells, generation.cells, generation.rows, 1.0, 1.0)


@dataclass
class _Probe:
    """One query on its way through the cells. Cells are places in `routing.cells`."""

    vectors: VectorStore
    generation: Generation
    routing: Routing
    query: AnnQuery

    def __post_init__(self) -> None:
        calibration, filtered = self.generation.header.calibration, self.query.matches is not None
        self._costs = self.vectors.costs(self.generation.space)
        self._threshold = EVERYTHING
        if calibration is not None and not self.query.exact:
            self._threshold = calibration.threshold(self.query.target, filtered=filtered)
        self._counts: NDArray[np.int64] | None = None
        self._matching = self.routing.cell_rows
        if self.query.matches is not None:
            self._counts = self.query.matches.by_micro(len(self.routing.rows))
            self._matching = self.routing.by_cell(self._counts).astype(np.int64)
        self._filled = self._matching > 0
        # Under a filter every further hit is dear.
        self._depth = min(self.query.k, max(_LEAST_DEPTH, 3 * self.query.wanted)) if filtered else self.query.k

    async def run(self) -> AnnHits:
        """Visit the cells that are worth it, then those that the scores found call for."""
        if self._threshold is EVERYTHING:
            return await self._everything()
        expected = self._expect(None)
        visited = self._worthwhile(expected, np.zeros(len(self._filled), dtype=np.bool_))
        if self.query.matches is not None:
            self._weigh(expected)
        if self.query.matches is not None and self._fetching_pays(self.query.matches, visited):
            return await _matches(self.vectors, self.generation, self.query, self.query.matches)
        hits = await self._visit(visited)
        rounds = 1
        if self.query.matches is not None:
            left, expected, floor = self._left(hits, visited, expected)
            if len(left):
                self._weigh(expected, floor)
                hits = _best([hits, await self._visit(left, floor)], self._depth)
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

    async def _everything(self) -> AnnHits:
        places = np.flatnonzero(self._filled)
        if self.query.matches is not None:
            self._weigh(self._expect(None))
        hits = await self._visit(places)
        rows, cells = int(self.routing.cell_rows[places].sum()), len(self.routing.cells)
        return AnnHits(hits, "exact", len(places), cells, rows, 1.0, 1.0)

    def _fetching_pays(self, matches: Matches, visited: NDArray[np.intp]) -> bool:
        if len(matches) > _MOST_FETCHED:
            return False
        mixed = visited[self._matching[visited] < self.routing.cell_rows[visited]]
        probing = min(self._pushed_ms(mixed, self._groups(mixed)), self._sifted_ms(mixed, self._among(mixed, None)))
        return len(matches) * self._costs.fetch < _SECOND_ROUND * probing

    def _expect(self, score: float | None) -> Expectation:
        return self.routing.expect(self.query.vector, self.query.wanted, matching=self._counts, score=score)

    def _worthwhile(self, expected: Expectation, seen: NDArray[np.bool_], *, least: int = 1) -> NDArray[np.intp]:
        """Return the cells worth a visit, best first, at least `least` of those that hold anything."""
        worth = np.where(self._filled & ~seen, self.routing.worth(expected), -1.0)
        order = np.argsort(-worth, kind="stable")
        taken = worth[order] >= self._threshold.worth
        rows = np.cumsum(self.routing.cell_rows[order])
        taken &= rows + self.routing.cell_rows[seen].sum() <= max(_CAP * rows[-1], _LEAST_CAP)
        taken[:least] |= worth[order[:least]] >= 0
        chosen: NDArray[np.intp] = order[taken]
        return chosen

    def _left(
        self, hits: Sequence[Scored], visited: NDArray[np.intp], expected: Expectation
    ) -> tuple[NDArray[np.intp], Expectation, float | None]:
        """Return the cells to visit in the second round of a filtered search, what is expected now, and the score that
        a hit must exceed to matter."""
        seen = np.zeros(len(self._filled), dtype=np.bool_)
        seen[visited] = True
        if len(hits) < self.query.wanted:
            return np.flatnonzero(self._filled & ~seen), expected, None
        floor = hits[self.query.wanted - 1].score
        known = self._expect(floor)
        return self._worthwhile(known, seen, least=0), known, floor

    async def _visit(self, places: NDArray[np.intp], floor: float | None = None) -> list[Scored]:
        """Search cells. Of those that hold other rows too, the hits above `floor` are wanted, where it is known."""
        if self.query.matches is None:
            return await self._search(places, None)
        whole = self._matching[places] == self.routing.cell_rows[places]  # every row matches: no filter is needed
        mixed = places[~whole]
        among, groups = self._among(mixed, floor), self._groups(mixed)
        of_whole = await self._search(places[whole], None)
        while self._sifted_ms(mixed, among) < self._pushed_ms(mixed, groups):
            sifted = _best([of_whole, await self._search(mixed, self._scope(mixed, among, floor))], self._depth)
            if floor is not None or len(sifted) >= min(self.query.wanted, int(self._matching[places].sum())):
                return sifted
            among *= _MORE_HITS
        parts = np.array_split(mixed, groups) if len(mixed) else []
        pushed = await asyncio.gather(*(self._search(some, self._scope(some, 0)) for some in parts))
        return _best([of_whole, *pushed], self._depth)

    def _scope(self, places: NDArray[np.intp], among: int, floor: float | None = None) -> VersionScope:
        """Return the filter for some cells: the versions in those of their micro-cells that are worth naming."""
        assert self.query.matches is not None
        named = self._present if among else self._promising
        return self.query.matches.within(np.isin(self.routing.cell_of, places) & named, among, floor)

    def _groups(self, places: NDArray[np.intp]) -> int:
        """Return in how many searches to visit cells of which a part matches: each names the versions of its own cells
        only, so that the filters get shorter as the calls get more."""
        most = max(1, min(len(places), _MOST_GROUPS))
        return min(range(1, most + 1), key=lambda groups: self._pushed_ms(places, groups))

    def _pushed_ms(self, places: NDArray[np.intp], groups: int) -> float:
        costs, named = self._costs, float(self._literals[places].sum())
        return groups * costs.call + named * costs.literal * len(places) / groups + self._scanned_ms(places)

    def _sifted_ms(self, places: NDArray[np.intp], among: int) -> float:
        if among > MAX_K:
            return math.inf
        costs = self._costs
        merged = min(among * len(places), int(self.routing.cell_rows[places].sum()))
        return costs.call + merged * costs.hit + among * costs.returned + self._scanned_ms(places)

    def _scanned_ms(self, places: NDArray[np.intp]) -> float:
        return int(self.routing.cell_rows[places].sum()) * self._costs.row

    def _among(self, places: NDArray[np.intp], floor: float | None) -> int:
        """Return how many hits to fetch so that the best matches are among them. With a floor too few are made up for,
        and the spread of scores is taken widely."""
        spare = _SPARE if floor is None else _SPARE_KNOWN
        return min(MAX_K, math.ceil(spare * float(self._rivals[places].sum())) + self._depth)

    def _weigh(self, expected: Expectation, floor: float | None = None) -> None:
        """Work out what a filter costs: rows that outscore the best matches (those above `floor`, where it is known),
        and matches worth naming.

        A match in a micro-cell that is worth far less than a visit is not named, as if its micro-cell were not visited.
        """
        assert self._counts is not None
        score = self.routing.kth_score(expected, self._depth, self._counts) if floor is None else floor
        self._rivals = self.routing.by_cell(self.routing.rivals(expected, score))
        mean = self.routing.mean_rows * 10 / self.query.wanted
        worth = expected.above / np.maximum(self._counts, 1) * mean
        self._present = self._counts > 0
        self._promising = (worth >= _WORTH_NAMING * self._threshold.worth) & self._present
        self._literals = self.routing.by_cell(np.where(self._promising, self._counts, 0))

    async def _search(self, places: NDArray[np.intp], scope: VersionScope | None) -> list[Scored]:
        if not len(places):
            return []
        cells = self.routing.cells[places].tolist()
        space, vector, mark = self.generation.space, self.query.vector, self.generation.header.mark
        return await self.vectors.search(space, vector, k=self._depth, cells=cells, scope=scope, mark=mark)


def _best(found: Iterable[Sequence[Scored]], k: int) -> list[Scored]:
    """The best k of all, a chunk once: it lies in two cells for the moment in which it moves."""
    merged: dict[UUID, Scored] = {}
    for hit in sorted(chain.from_iterable(found), key=lambda hit: -hit.score):
        merged.setdefault(hit.chunk_id, hit)
    return list(merged.values())[:k]
