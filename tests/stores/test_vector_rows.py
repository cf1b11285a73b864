"""What `VectorStore` promises of its rows: written once, read as they were written, removed where they lie."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import numpy as np
import pytest

from shards.names import Space
from shards.vectors import ChunkVector, HeldRow, VectorStore
from tests.stores.chunk_vectors import Rng, chunks, dealt, filled, found, ids, listed, unit


async def test_the_same_chunk_again_replaces_its_row(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, range(1, 6))
    await store.insert(space, {1: rows})
    moved = ChunkVector(rows[0].chunk_id, 1, unit(rng))
    await store.insert(space, {1: [moved, *rows[1:]]})
    await store.insert(space, {1: [moved]})
    assert await store.count(space) == 5
    hits = await found(store, space, moved.vector, 10)
    assert next(iter(hits.items())) == (moved.chunk_id, pytest.approx(1.0, abs=1e-5))
    assert len(hits) == 5


async def test_overlapping_writers_of_one_process_lose_nothing(store: VectorStore, space: Space, rng: Rng) -> None:
    await asyncio.gather(
        *(store.insert(space, dealt(chunks(rng, [number] * 20))) for number in range(1, 13)),
        *(store.delete_versions(space, [1000 + number]) for number in range(4)),
    )
    assert await store.count(space) == 240


async def test_lists_and_removes_rows_where_they_lie(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, [5, 5, 6, 7])
    by_cell = {0: rows[:2], 2: rows[1:]}
    await store.insert(space, by_cell)
    held = await listed(store.held_rows(space, batch=2), 2)
    assert len(held) == 5
    assert set(held) == {
        HeldRow(space.key(row.chunk_id, cell), f"c{cell}", row.chunk_id, row.version_no)
        for cell, placed in by_cell.items()
        for row in placed
    }
    some = await listed(store.held_rows(space, partitions=["c2", "c3"]))
    assert sorted(row.key for row in some) == sorted(row.key for row in held if row.partition == "c2")
    first = next(row for row in held if row.partition == "c0")
    elsewhere = HeldRow(first.key, "c1", first.chunk_id, first.version_no)
    nowhere = HeldRow(first.key, "c99", first.chunk_id, first.version_no)
    assert await store.still_held(space, [first, elsewhere, nowhere]) == {first}
    assert await store.count_versions(space, [5, 6, 99]) == 4
    await store.delete_rows(space, [first, elsewhere])
    await store.delete_rows(space, [first])
    assert await store.still_held(space, held) == set(held) - {first}
    assert await store.count_versions(space, [5]) == 2


async def test_deletes_versions_and_counts_them(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, [1, 1, 1, 2, 2, 3])
    await store.insert(space, {0: rows[:2], 1: rows[2:4], 3: rows[4:]})
    assert await store.delete_versions(space, [1, 3, 99]) == 4
    assert await store.delete_versions(space, [1, 3]) == 0
    assert await store.delete_versions(space, []) == 0
    assert set(await found(store, space, rows[0].vector, 10)) == ids(rows[3:5])
    assert await store.count(space) == 2


async def test_a_deleted_chunk_can_come_back(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, [1, 1])
    await store.insert(space, {0: rows})
    await store.delete_versions(space, [1])
    await store.insert(space, {0: rows})
    assert await store.count(space) == 2
    assert len(await found(store, space, rows[0].vector, 5, cells=[0])) == 2


async def test_deletes_thousands_of_versions(store: VectorStore, space: Space, rng: Rng) -> None:
    await store.insert(space, {0: chunks(rng, range(1, 1301))})
    assert await store.delete_versions(space, range(1, 1202)) == 1201
    assert await store.count(space) == 99


async def test_deletes_chunks_from_one_cell_alone(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, range(8))
    await store.insert(space, {0: rows, 1: rows})
    await store.delete_chunks(space, {1: [row.chunk_id for row in rows[:5]], 2: [rows[7].chunk_id, uuid4()]})
    assert set(await listed(store.keys(space, cells=[0]))) == ids(rows)
    assert set(await listed(store.keys(space, cells=[1]))) == ids(rows[5:])
    await store.delete_chunks(space, {})


async def test_scans_every_row_once(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, range(1, 254))
    await store.insert(space, dealt(rows))
    scanned = await listed(store.scan(space, batch=50), 50)
    seen = {row.chunk_id: row for row in scanned}
    assert len(scanned) == len(seen) == 253
    for row in rows:
        assert seen[row.chunk_id].version_no == row.version_no
        assert seen[row.chunk_id].vector.dtype == np.float32
        assert np.array_equal(seen[row.chunk_id].vector, row.vector)


async def test_scans_the_rows_of_some_versions(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, [version for version in range(1, 61) for _ in range(5)])
    await store.insert(space, dealt(rows))
    wanted = [3, 17, 18, 19, 60, 999]
    seen = await listed(store.scan(space, versions=wanted, batch=10), 10)
    assert sorted(row.chunk_id for row in seen) == sorted(row.chunk_id for row in rows if row.version_no in wanted)
    assert await listed(store.scan(space, versions=[])) == []


async def test_scans_the_rows_of_some_cells(store: VectorStore, space: Space, rng: Rng) -> None:
    by_cell = filled(rng, 25)
    await store.insert(space, by_cell)
    seen = await listed(store.scan(space, cells=[1, 3], batch=10), 10)
    assert sorted(row.chunk_id for row in seen) == sorted(ids(by_cell[1] + by_cell[3]))
    with pytest.raises(ValueError, match="cells"):
        await anext(store.scan(space, cells=[4]))


async def test_a_scan_of_nothing_is_empty_and_one_may_stop_early(store: VectorStore, space: Space, rng: Rng) -> None:
    assert await listed(store.scan(space)) == []
    await store.insert(space, {0: chunks(rng, range(1, 40))})
    pages = store.scan(space, batch=10)
    assert len(await anext(pages)) == 10
    await pages.aclose()  # type: ignore[attr-defined]


async def test_fetches_rows_by_chunk_and_cell(store: VectorStore, space: Space, rng: Rng) -> None:
    by_cell = filled(rng, 8)
    await store.insert(space, by_cell)
    rows = by_cell[0][:3] + by_cell[2][:3]
    wanted = {cell: [row.chunk_id for row in by_cell[cell][:3]] for cell in (0, 2)}
    elsewhere = {1: [by_cell[3][0].chunk_id, uuid4()]}
    fetched = {row.chunk_id: row for row in await store.fetch(space, wanted | elsewhere)}
    assert set(fetched) == ids(rows)
    for row in rows:
        assert fetched[row.chunk_id].version_no == row.version_no
        assert np.array_equal(fetched[row.chunk_id].vector, row.vector)
    assert await store.fetch(space, {}) == []
    assert ids(await store.fetch(space, wanted, mark=await store.mark(space))) == ids(rows)
