"""What `VectorStore` promises of a search: the nearest rows, of the cells and versions that are asked for, exactly."""

from __future__ import annotations

import numpy as np
import pytest

from shards.names import Space
from shards.vectors import VectorStore, VersionScope
from tests.stores.chunk_vectors import Rng, best, chunks, filled, found, ids, scope, unit


async def test_finds_the_nearest_first(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, range(1, 31))
    by_cell = {0: rows[:10], 1: rows[10:20], 3: rows[20:]}
    await store.insert(space, by_cell)
    query = unit(rng)
    hits, expected = await found(store, space, query, 30), best(by_cell, query, 30)
    assert list(hits) == list(expected)
    assert hits == pytest.approx(expected, abs=1e-5)


async def test_returns_no_more_than_k_and_no_more_than_there_are(store: VectorStore, space: Space, rng: Rng) -> None:
    await store.insert(space, {2: chunks(rng, range(1, 8))})
    assert len(await found(store, space, unit(rng), 3)) == 3
    assert len(await found(store, space, unit(rng), 500)) == 7
    for k in (0, -1, 16_385):
        with pytest.raises(ValueError, match="k is"):
            await found(store, space, unit(rng), k)


async def test_an_empty_collection_has_no_hits(store: VectorStore, space: Space, rng: Rng) -> None:
    assert await found(store, space, unit(rng), 5) == {}
    assert await found(store, space, unit(rng), 5, cells=[0, 2], within=scope([1])) == {}
    assert await store.count(space) == 0


async def test_looks_only_into_the_named_cells(store: VectorStore, space: Space, rng: Rng) -> None:
    by_cell = filled(rng, 10)
    await store.insert(space, by_cell)
    assert set(await found(store, space, unit(rng), 40, cells=[1, 3])) == ids(by_cell[1] + by_cell[3])
    assert await found(store, space, unit(rng), 40, cells=[]) == {}


async def test_a_chunk_in_two_cells_is_found_once(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, range(1, 9))
    await store.insert(space, {0: rows, 1: rows, 2: rows[:4]})
    assert len(await found(store, space, rows[0].vector, 6)) == 6
    assert len(await found(store, space, rows[0].vector, 3, cells=[0, 1], within=scope([1, 2, 3, 4]))) == 3


async def test_obeys_any_scope_exactly(store: VectorStore, space: Space, rng: Rng) -> None:
    # Two rows a version, and gaps between the versions, so that a scope is rarely one stretch of numbers.
    known = np.arange(700) * 3 + 1
    rows = chunks(rng, map(int, rng.permutation(np.repeat(known, 2))))
    cell_of = rng.integers(0, 4, len(rows))
    by_cell = {cell: [row for row, at in zip(rows, cell_of, strict=True) if at == cell] for cell in range(4)}
    await store.insert(space, by_cell)
    for trial in range(60):
        allowed = {
            0: lambda: rng.choice(known, rng.integers(1, 9), replace=False),
            1: lambda: rng.choice(known, 300, replace=False),
            2: lambda: rng.choice(known, 600, replace=False),
            3: lambda: known,
            4: lambda: np.arange(400, 900),
            5: lambda: np.concatenate([np.arange(0, 2200, 2), [10**12]]),
        }[trial % 6]()
        versions = set(allowed.tolist())
        cells = None if trial % 3 == 0 else [int(c) for c in rng.choice(4, rng.integers(1, 4), replace=False)]
        k, query = int(rng.choice([1, 5, 20, 60, 400])), unit(rng)
        hits = await found(store, space, query, k, cells=cells, within=scope(versions))
        expected = best(by_cell, query, k, cells=cells, versions=versions)
        assert set(hits) == set(expected), (trial, k, cells)
        assert list(hits.values()) == pytest.approx(list(expected.values()), abs=1e-5)


async def test_with_a_floor_every_hit_in_scope_above_it_is_found(store: VectorStore, space: Space, rng: Rng) -> None:
    by_cell = filled(rng, 150)
    await store.insert(space, by_cell)
    for floor in (0.5, 0.1, -1.0):
        query, allowed = unit(rng), rng.choice(600, 60, replace=False)
        sifted = VersionScope(np.sort(allowed), among=5, floor=floor)
        hits = await found(store, space, query, 100, cells=[0, 2, 3], within=sifted)
        expected = best(by_cell, query, 100, cells=[0, 2, 3], versions=set(allowed.tolist()))
        above = [chunk_id for chunk_id, score in expected.items() if score > floor]
        assert list(hits)[: len(above)] == above


async def test_a_scope_of_nothing_finds_nothing(store: VectorStore, space: Space, rng: Rng) -> None:
    await store.insert(space, {0: chunks(rng, [1, 2])})
    for versions in ([], [7, 10**15]):
        assert await found(store, space, unit(rng), 2, within=scope(versions)) == {}


async def test_replaced_versions_linger_until_they_are_deleted(store: VectorStore, space: Space, rng: Rng) -> None:
    old, new = chunks(rng, [5] * 6), chunks(rng, [9] * 6)
    await store.insert(space, {0: old, 1: new})
    assert len(await found(store, space, old[0].vector, 12)) == 12
    assert set(await found(store, space, old[0].vector, 6, within=scope([9]))) == ids(new)
