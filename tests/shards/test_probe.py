"""Plans of a search: the promised recall without a filter, and under every filter the best matches there are."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.calibration import calibrate, calibrate_filtered, true_cells
from shards.generation import Generation
from shards.matches import Matches
from shards.memory_vectors import MemoryVectors
from shards.probe import AnnHits, AnnQuery, search
from shards.vectors import ChunkVector
from tests.shards.clustered import Clustered, clustered
from tests.shards.generations import generation_of

CELLS = 40
ROWS = 12_000


class Corpus:
    """A generation in a store; row `i` is chunk `ids[i]` of version `i`."""

    def __init__(self, made: Clustered, store: MemoryVectors, generation: Generation, ids: list[UUID]) -> None:
        self.made, self.store, self.generation, self.ids = made, store, generation, ids

    def matches(self, rows: NDArray[np.intp]) -> Matches:
        ids = b"".join(self.ids[row].bytes for row in rows)
        return Matches(rows.astype(np.int64), self.made.division.micro_of[rows], ids)

    async def ask(self, vector: NDArray[np.float32], rows: NDArray[np.intp] | None = None, **more: object) -> AnnHits:
        matches = None if rows is None else self.matches(rows)
        query = AnnQuery(vector, **{"k": 50, "wanted": 10, "target": 0.97, "matches": matches, **more})  # type: ignore[arg-type]
        return await search(self.store, self.generation, query)

    def recall(self, found: AnnHits, vector: NDArray[np.float32], rows: NDArray[np.intp] | None = None) -> float:
        among = np.arange(len(self.ids)) if rows is None else rows
        best = among[np.argsort(-(self.made.vectors[among] @ vector), kind="stable")[:10]]
        hits = {hit.chunk_id for hit in found.hits[:10]}
        return sum(self.ids[row] in hits for row in best) / max(len(best), 1)


@pytest.fixture(scope="module")
async def corpus() -> Corpus:
    made = clustered(ROWS, CELLS, topics=150)
    store = MemoryVectors()
    routing, cell_of = made.routing, made.division.cell_of
    truth = true_cells(made.vectors, cell_of[made.division.micro_of], made.queries(300, seed=9))
    queries = made.queries(300, seed=9)
    filtered = calibrate_filtered(routing, made.vectors, made.division.micro_of, queries, seed=1)
    curve = replace(calibrate(routing, queries, truth, source="sentences"), filtered=filtered)
    generation = generation_of(made, curve)
    await store.create(generation.space, cells=CELLS)
    ids = [uuid4() for _ in range(ROWS)]
    by_cell: dict[int, list[ChunkVector]] = {}
    for row, micro in enumerate(made.division.micro_of):
        by_cell.setdefault(int(cell_of[micro]), []).append(ChunkVector(ids[row], row, made.vectors[row]))
    await store.insert(generation.space, by_cell)
    header = replace(generation.header, mark=await store.mark(generation.space))
    return Corpus(made, store, replace(generation, header=header), ids)


async def test_the_promised_recall_is_kept_for_part_of_the_rows(corpus: Corpus) -> None:
    recalls, shares, predicted = [], [], []
    for vector in corpus.made.queries(150, seed=2):
        found = await corpus.ask(vector)
        recalls.append(corpus.recall(found, vector))
        shares.append(found.rows_scanned / ROWS)
        predicted.append(found.predicted)
        assert found.plan == "cells"
        assert found.promised >= 0.97
        assert found.cells_total == CELLS
    assert np.mean(recalls) >= 0.955
    assert np.mean(shares) < 0.5
    assert np.mean(predicted) == pytest.approx(np.mean(recalls), abs=0.05)


async def test_exact_visits_everything(corpus: Corpus) -> None:
    [vector] = corpus.made.queries(1, seed=3)
    found = await corpus.ask(vector, exact=True)
    assert (found.plan, found.cells_visited, found.rows_scanned) == ("exact", CELLS, ROWS)
    assert corpus.recall(found, vector) == 1.0


@pytest.mark.parametrize("share", [0.0001, 0.001, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("topical", [False, True])
async def test_recall_holds_under_a_filter(corpus: Corpus, share: float, topical: bool) -> None:
    rng = np.random.default_rng(4)
    count = max(1, int(share * ROWS))
    recalls = []
    for vector in corpus.made.queries(40, seed=5):
        if topical:  # what lies around some other row, mostly far from the question
            centre = corpus.made.vectors[rng.integers(ROWS)]
            rows = np.sort(np.argsort(-(corpus.made.vectors @ centre))[:count])
        else:
            rows = np.sort(rng.permutation(ROWS)[:count])
        found = await corpus.ask(vector, rows)
        allowed = {corpus.ids[row] for row in rows}
        assert all(hit.chunk_id in allowed for hit in found.hits)
        assert len(found.hits) >= min(count, 10)
        assert found.plan in ("matches", "cells")
        recalls.append(corpus.recall(found, vector, rows))
    assert np.mean(recalls) >= 0.955


async def test_fewer_matches_than_wanted_are_all_found_in_cells_too(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shards.probe._MOST_FETCHED", 0)
    rows = np.array([5, 700, 9000])
    [vector] = corpus.made.queries(1, seed=6)
    found = await corpus.ask(vector, rows)
    assert found.plan == "cells"
    assert {hit.chunk_id for hit in found.hits} == {corpus.ids[row] for row in rows}


@pytest.mark.parametrize("share", [0.01, 0.3])
async def test_exact_under_a_filter_finds_every_best_match(corpus: Corpus, share: float) -> None:
    rows = np.sort(np.random.default_rng(8).permutation(ROWS)[: int(share * ROWS)])
    for vector in corpus.made.queries(20, seed=9):
        found = await corpus.ask(vector, rows, exact=True)
        assert found.plan == "exact"
        assert corpus.recall(found, vector, rows) == 1.0


async def test_no_match_is_no_search(corpus: Corpus) -> None:
    [vector] = corpus.made.queries(1, seed=7)
    found = await corpus.ask(vector, np.array([], dtype=np.intp))
    assert (found.hits, found.plan, found.cells_visited) == ([], "matches", 0)
