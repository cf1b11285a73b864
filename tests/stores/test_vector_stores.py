from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.memory import MemoryVectors
from shards.milvus import MilvusVectors
from shards.names import TIERS, Space, Tier
from shards.vectors import (
    MAX_CELLS,
    ChunkVector,
    HeldRow,
    MissingCollection,
    StorePlace,
    VectorStore,
    VersionScope,
)

DIM = 16


def unit(rng: np.random.Generator, rows: int, dim: int = DIM) -> NDArray[np.float32]:
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def scope(versions: Sequence[int]) -> VersionScope:
    return VersionScope(np.array(sorted(set(versions)), dtype=np.int64))


def chunks(rng: np.random.Generator, versions: Sequence[int]) -> list[ChunkVector]:
    vectors = unit(rng, len(versions))
    return [ChunkVector(uuid4(), version, vector) for version, vector in zip(versions, vectors, strict=True)]


def best(
    rows: Sequence[tuple[int, ChunkVector]],
    query: NDArray[np.float32],
    k: int,
    cells: Sequence[int] | None,
    allowed: set[int] | None,
) -> list[tuple[UUID, float]]:
    """The answer by definition: one row at a time."""
    scored = [
        (float(row.vector @ query), row.chunk_id)
        for cell, row in rows
        if (cells is None or cell in cells) and (allowed is None or row.version_no in allowed)
    ]
    return [(chunk_id, score) for score, chunk_id in sorted(scored, key=lambda item: -item[0])[:k]]


class VectorStoreConformance:
    """What `VectorStore` promises. A subclass names the store."""

    @pytest.fixture(params=["dedicated", "isolated"])
    async def space(self, store: VectorStore, request: pytest.FixtureRequest) -> AsyncIterator[Space]:
        space = Space(uuid4(), 1, DIM, request.param)
        await store.create(space, cells=4)
        yield space
        await store.drop(space)

    async def test_finds_the_nearest_first(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(1)
        rows = chunks(rng, range(1, 31))
        await store.insert(space, {0: rows[:10], 1: rows[10:20], 3: rows[20:]})
        query = unit(rng, 1)[0]
        found = await store.search(space, query, k=30, cells=None, scope=None)
        expected = best([(0, row) for row in rows], query, 30, None, None)
        assert [hit.chunk_id for hit in found] == [chunk_id for chunk_id, _ in expected]
        assert [hit.score for hit in found] == pytest.approx([score for _, score in expected], abs=1e-5)

    async def test_returns_no_more_than_k_and_no_more_than_there_are(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(2)
        rows = chunks(rng, range(1, 8))
        await store.insert(space, {2: rows})
        assert len(await store.search(space, rows[0].vector, k=3, cells=None, scope=None)) == 3
        assert len(await store.search(space, rows[0].vector, k=500, cells=None, scope=None)) == 7
        for k in (0, -1, 16_385):
            with pytest.raises(ValueError, match="k is"):
                await store.search(space, rows[0].vector, k=k, cells=None, scope=None)

    async def test_an_empty_collection_has_no_hits(self, store: VectorStore, space: Space) -> None:
        query = unit(np.random.default_rng(3), 1)[0]
        assert await store.search(space, query, k=5, cells=None, scope=None) == []
        assert await store.search(space, query, k=5, cells=[0, 2], scope=scope([1])) == []
        assert await store.count(space) == 0

    async def test_looks_only_into_the_named_cells(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(4)
        rows = chunks(rng, range(1, 41))
        await store.insert(space, {cell: rows[cell * 10 : cell * 10 + 10] for cell in range(4)})
        found = await store.search(space, rows[0].vector, k=40, cells=[1, 3], scope=None)
        assert {hit.chunk_id for hit in found} == {row.chunk_id for row in rows[10:20] + rows[30:]}
        assert await store.search(space, rows[0].vector, k=40, cells=[], scope=None) == []

    async def test_lists_and_removes_rows_where_they_lie(self, store: VectorStore, space: Space) -> None:
        rows = chunks(np.random.default_rng(31), [5, 5, 6, 7])
        await store.insert(space, {0: rows[:2], 2: rows[1:]})
        held = [row async for page in store.held_rows(space, batch=2) for row in page]
        expected = {(space.key(row.chunk_id, 0), "c0", row.chunk_id, row.version_no) for row in rows[:2]}
        expected |= {(space.key(row.chunk_id, 2), "c2", row.chunk_id, row.version_no) for row in rows[1:]}
        assert {(row.key, row.partition, row.chunk_id, row.version_no) for row in held} == expected
        assert len(held) == 5
        some = [row async for page in store.held_rows(space, partitions=["c2", "c3"]) for row in page]
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

    async def test_lists_cells_and_collections(self, store: VectorStore, space: Space) -> None:
        assert await store.partitions(space) == {"_default", "c0", "c1", "c2", "c3"}
        place = StorePlace(space.endpoint, space.database, space.collection)
        assert await store.places(space.tenant_id) == [place]
        assert place in await store.places()
        assert await store.places(uuid4()) == []
        assert await store.drop_place(place)
        assert not await store.drop_place(place)
        assert await store.places(space.tenant_id) == []
        with pytest.raises(MissingCollection):
            await store.partitions(space)
        with pytest.raises(MissingCollection):
            _ = [page async for page in store.held_rows(space)]
        await store.create(space, cells=1)

    async def test_an_unknown_cell_is_refused(self, store: VectorStore, space: Space) -> None:
        row = chunks(np.random.default_rng(5), [1])[0]
        for cell in (4, -1):
            with pytest.raises(ValueError, match="cells"):
                await store.search(space, row.vector, k=1, cells=[0, cell], scope=None)
            with pytest.raises(ValueError, match="cells"):
                await store.insert(space, {0: [row], cell: [row]})
        assert await store.count(space) == 0

    async def test_the_same_chunk_again_replaces_its_row(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(6)
        rows = chunks(rng, range(1, 6))
        await store.insert(space, {1: rows})
        moved = ChunkVector(rows[0].chunk_id, 1, unit(rng, 1)[0])
        await store.insert(space, {1: [moved, *rows[1:]]})
        await store.insert(space, {1: [moved]})
        assert await store.count(space) == 5
        found = await store.search(space, moved.vector, k=10, cells=None, scope=None)
        assert found[0].chunk_id == moved.chunk_id
        assert found[0].score == pytest.approx(1.0, abs=1e-5)
        assert len(found) == 5

    async def test_a_chunk_in_two_cells_is_found_once(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(7)
        rows = chunks(rng, range(1, 9))
        await store.insert(space, {0: rows, 1: rows, 2: rows[:4]})
        found = await store.search(space, rows[0].vector, k=6, cells=None, scope=None)
        assert len({hit.chunk_id for hit in found}) == len(found) == 6
        scoped = await store.search(space, rows[0].vector, k=3, cells=[0, 1], scope=scope([1, 2, 3, 4]))
        assert len({hit.chunk_id for hit in scoped}) == len(scoped) == 3

    async def test_obeys_any_scope_exactly(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(8)
        # Two rows a version, and gaps between the versions, so that a scope is rarely one stretch of numbers.
        versions = [int(version) for version in rng.permutation(np.repeat(np.arange(700) * 3 + 1, 2))]
        rows = [(int(cell), row) for cell, row in zip(rng.integers(0, 4, 1400), chunks(rng, versions), strict=True)]
        await store.insert(space, {cell: [row for at, row in rows if at == cell] for cell in range(4)})
        known = np.arange(700) * 3 + 1
        for trial in range(60):
            kind = trial % 6
            allowed = {
                0: lambda: rng.choice(known, rng.integers(1, 9), replace=False),
                1: lambda: rng.choice(known, 300, replace=False),
                2: lambda: rng.choice(known, 600, replace=False),
                3: lambda: known,
                4: lambda: np.arange(400, 900),
                5: lambda: np.concatenate([np.arange(0, 2200, 2), [10**12]]),
            }[kind]()
            cells = None if trial % 3 == 0 else [int(c) for c in rng.choice(4, rng.integers(1, 4), replace=False)]
            k = int(rng.choice([1, 5, 20, 60, 400]))
            query = unit(rng, 1)[0]
            found = await store.search(space, query, k=k, cells=cells, scope=scope(allowed.tolist()))
            expected = best(rows, query, k, cells, set(allowed.tolist()))
            assert {hit.chunk_id for hit in found} == {chunk_id for chunk_id, _ in expected}, (trial, k, cells)
            assert [hit.score for hit in found] == pytest.approx([score for _, score in expected], abs=1e-5)

    async def test_with_a_floor_every_hit_in_scope_above_it_is_found(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(21)
        rows = [(int(cell), row) for cell, row in zip(rng.integers(0, 4, 600), chunks(rng, range(600)), strict=True)]
        await store.insert(space, {cell: [row for at, row in rows if at == cell] for cell in range(4)})
        for floor in (0.5, 0.1, -1.0):
            query, allowed = unit(rng, 1)[0], rng.choice(600, 60, replace=False)
            sifted = VersionScope(np.sort(allowed), among=5, floor=floor)
            found = await store.search(space, query, k=100, cells=[0, 2, 3], scope=sifted)
            expected = best(rows, query, 100, [0, 2, 3], set(allowed.tolist()))
            above = [(chunk_id, score) for chunk_id, score in expected if score > floor]
            assert [hit.chunk_id for hit in found][: len(above)] == [chunk_id for chunk_id, _ in above]

    async def test_a_scope_of_nothing_finds_nothing(self, store: VectorStore, space: Space) -> None:
        rows = chunks(np.random.default_rng(9), [1, 2])
        await store.insert(space, {0: rows})
        assert await store.search(space, rows[0].vector, k=2, cells=None, scope=scope([])) == []
        assert await store.search(space, rows[0].vector, k=2, cells=None, scope=scope([7, 10**15])) == []

    async def test_replaced_versions_linger_until_they_are_deleted(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(10)
        old, new = chunks(rng, [5] * 6), chunks(rng, [9] * 6)
        await store.insert(space, {0: old, 1: new})
        found = await store.search(space, old[0].vector, k=12, cells=None, scope=None)
        assert len(found) == 12
        current = await store.search(space, old[0].vector, k=6, cells=None, scope=scope([9]))
        assert {hit.chunk_id for hit in current} == {row.chunk_id for row in new}

    async def test_deletes_versions_and_counts_them(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(11)
        rows = chunks(rng, [1, 1, 1, 2, 2, 3])
        await store.insert(space, {0: rows[:2], 1: rows[2:4], 3: rows[4:]})
        assert await store.delete_versions(space, [1, 3, 99]) == 4
        assert await store.delete_versions(space, [1, 3]) == 0
        assert await store.delete_versions(space, []) == 0
        found = await store.search(space, rows[0].vector, k=10, cells=None, scope=None)
        assert {hit.chunk_id for hit in found} == {row.chunk_id for row in rows if row.version_no == 2}
        assert await store.count(space) == 2

    async def test_a_deleted_chunk_can_come_back(self, store: VectorStore, space: Space) -> None:
        rows = chunks(np.random.default_rng(12), [1, 1])
        await store.insert(space, {0: rows})
        await store.delete_versions(space, [1])
        await store.insert(space, {0: rows})
        assert await store.count(space) == 2
        assert len(await store.search(space, rows[0].vector, k=5, cells=[0], scope=None)) == 2

    async def test_deletes_thousands_of_versions(self, store: VectorStore, space: Space) -> None:
        rows = chunks(np.random.default_rng(13), range(1, 1301))
        await store.insert(space, {0: rows})
        assert await store.delete_versions(space, range(1, 1202)) == 1201
        assert await store.count(space) == 99

    async def test_scans_every_row_once(self, store: VectorStore, space: Space) -> None:
        rows = chunks(np.random.default_rng(14), range(1, 254))
        await store.insert(space, {cell: rows[cell::4] for cell in range(4)})
        pages = [page async for page in store.scan(space, batch=50)]
        assert all(0 < len(page) <= 50 for page in pages)
        seen = {row.chunk_id: row for page in pages for row in page}
        assert sum(len(page) for page in pages) == len(seen) == 253
        for row in rows:
            assert seen[row.chunk_id].version_no == row.version_no
            assert seen[row.chunk_id].vector.dtype == np.float32
            assert np.array_equal(seen[row.chunk_id].vector, row.vector)

    async def test_scans_the_rows_of_some_versions(self, store: VectorStore, space: Space) -> None:
        rows = chunks(np.random.default_rng(17), [version for version in range(1, 61) for _ in range(5)])
        await store.insert(space, {cell: rows[cell::4] for cell in range(4)})
        wanted = [3, 17, 18, 19, 60, 999]
        pages = [page async for page in store.scan(space, versions=wanted, batch=10)]
        assert all(0 < len(page) <= 10 for page in pages)
        seen = [row.chunk_id for page in pages for row in page]
        assert sorted(seen) == sorted(row.chunk_id for row in rows if row.version_no in wanted)
        assert [page async for page in store.scan(space, versions=[])] == []

    async def test_scans_the_rows_of_some_cells(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(16)
        by_cell = {cell: chunks(rng, range(cell * 100, cell * 100 + 25)) for cell in range(4)}
        await store.insert(space, by_cell)
        pages = [page async for page in store.scan(space, cells=[1, 3], batch=10)]
        assert all(len(page) <= 10 for page in pages)
        found = [row.chunk_id for page in pages for row in page]
        assert sorted(found) == sorted(row.chunk_id for cell in (1, 3) for row in by_cell[cell])
        with pytest.raises(ValueError, match="cells"):
            await anext(store.scan(space, cells=[4]))

    async def test_fetches_rows_by_chunk_and_cell(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(17)
        by_cell = {cell: chunks(rng, range(cell * 10, cell * 10 + 8)) for cell in range(4)}
        await store.insert(space, by_cell)
        wanted = {cell: [row.chunk_id for row in by_cell[cell][:3]] for cell in (0, 2)}
        elsewhere = {1: [by_cell[3][0].chunk_id, uuid4()]}
        found = {row.chunk_id: row for row in await store.fetch(space, wanted | elsewhere)}
        assert set(found) == {chunk_id for chunk_ids in wanted.values() for chunk_id in chunk_ids}
        for row in [*by_cell[0][:3], *by_cell[2][:3]]:
            assert found[row.chunk_id].version_no == row.version_no
            assert np.array_equal(found[row.chunk_id].vector, row.vector)
        assert await store.fetch(space, {}) == []
        again = await store.fetch(space, wanted, latest=False)
        assert {row.chunk_id for row in again} == set(found)

    async def test_cells_are_added_and_dropped_beside_others(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(18)
        by_cell = {cell: chunks(rng, range(cell * 10, cell * 10 + 8)) for cell in range(4)}
        await store.insert(space, by_cell)
        await store.add_cells(space, [7, 9])
        await store.add_cells(space, [9, 3])
        await store.insert(space, {7: by_cell[1], 9: []})
        query = unit(rng, 1)[0]
        assert len(await store.search(space, query, k=50, cells=None, scope=None)) == 32
        assert sum([len(page) async for page in store.keys(space, cells=[1, 7])]) == 16
        await store.drop_cells(space, [1, 9, 12])
        await store.drop_cells(space, [1, 9, 12])
        assert await store.count(space) == 32
        found = await store.search(space, query, k=50, cells=[7], scope=None)
        assert {hit.chunk_id for hit in found} == {row.chunk_id for row in by_cell[1]}
        assert len(await store.search(space, query, k=50, cells=None, scope=None)) == 32
        for gone in (1, 9):
            with pytest.raises(ValueError, match="cells"):
                await store.search(space, query, k=5, cells=[gone], scope=None)
            with pytest.raises(ValueError, match="cells"):
                await store.insert(space, {gone: by_cell[0]})
        keys = [chunk_id async for page in store.keys(space, cells=[0, 7]) for chunk_id in page]
        assert sorted(keys) == sorted(row.chunk_id for cell in (0, 1) for row in by_cell[cell])
        with pytest.raises(ValueError, match="at most"):
            await store.add_cells(space, range(20, 20 + MAX_CELLS))

    async def test_deletes_chunks_from_one_cell_alone(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(19)
        rows = chunks(rng, range(8))
        await store.insert(space, {0: rows, 1: rows})
        await store.delete_chunks(space, {1: [row.chunk_id for row in rows[:5]], 2: [rows[7].chunk_id, uuid4()]})
        kept = {
            cell: {chunk_id async for page in store.keys(space, cells=[cell]) for chunk_id in page} for cell in (0, 1)
        }
        assert kept[0] == {row.chunk_id for row in rows}
        assert kept[1] == {row.chunk_id for row in rows[5:]}
        await store.delete_chunks(space, {})

    async def test_a_scan_of_nothing_is_empty_and_one_may_stop_early(self, store: VectorStore, space: Space) -> None:
        assert [page async for page in store.scan(space)] == []
        await store.insert(space, {0: chunks(np.random.default_rng(15), range(1, 40))})
        pages = store.scan(space, batch=10)
        assert len(await anext(pages)) == 10
        await pages.aclose()  # type: ignore[attr-defined]

    async def test_creating_again_keeps_the_rows(self, store: VectorStore, space: Space) -> None:
        await store.insert(space, {3: chunks(np.random.default_rng(16), [1])})
        await store.create(space, cells=4)
        assert await store.count(space) == 1

    @pytest.mark.parametrize("cells", [0, 1024])
    async def test_too_many_cells_are_refused(self, store: VectorStore, cells: int) -> None:
        with pytest.raises(ValueError, match="cells"):
            await store.create(Space(uuid4(), 1, DIM), cells=cells)

    async def test_a_drop_says_whether_there_was_anything(self, store: VectorStore) -> None:
        space = Space(uuid4(), 1, DIM)
        await store.create(space, cells=1)
        assert await store.drop(space)
        assert not await store.drop(space)
        assert not await store.drop(Space(uuid4(), 1, DIM, "isolated"))
        assert not await store.drop(Space(uuid4(), 1, DIM + 1, "pooled"))

    async def test_a_tenant_is_dropped_wherever_it_has_anything(self, store: VectorStore) -> None:
        tenant, other = uuid4(), uuid4()
        tiers: tuple[Tier, ...] = ("pooled", "dedicated", "isolated", "dedicated")
        spaces = [Space(one, number, DIM, tier) for one in (tenant, other) for number, tier in enumerate(tiers, 1)]
        for space in spaces:
            await store.create(space, cells=1)
            await store.insert(space, {0: chunks(np.random.default_rng(30), [1, 2, 3])})
        assert await store.drop_tenant(tenant) == (3, 12)
        assert await store.drop_tenant(tenant) == (0, 0)
        for space in spaces[4:]:
            assert await store.count(space) == 3
        assert await store.drop_tenant(other) == (3, 12)

    async def test_what_was_released_is_loaded_by_the_next_call(self, store: VectorStore, space: Space) -> None:
        rows = chunks(np.random.default_rng(31), range(50))
        await store.insert(space, {0: rows[:25], 2: rows[25:]})
        woken: list[tuple[Space, float]] = []
        store.on_wake = lambda *told: woken.append(told)
        for call in (
            lambda: store.search(space, rows[0].vector, k=50, cells=[0, 2], scope=None),
            lambda: store.insert(space, {1: rows[:1]}),
            lambda: store.count(space),
            lambda: store.search(space, rows[0].vector, k=60, cells=None, scope=None),
        ):
            assert await store.release(space)
            await call()
        assert [known for known, _ in woken] == [space] * len(woken)
        assert len(woken) >= 2
        assert all(took >= 0 for _, took in woken)
        await store.release(space)
        await store.release(space)
        assert await store.count(space) == 51

    async def test_a_dropped_name_can_be_used_again(self, store: VectorStore, space: Space) -> None:
        await store.insert(space, {3: chunks(np.random.default_rng(17), [1, 2])})
        await store.drop(space)
        await store.create(space, cells=2)
        assert await store.count(space) == 0
        with pytest.raises(ValueError, match="cells"):
            await store.insert(space, {3: chunks(np.random.default_rng(17), [1])})

    @pytest.mark.parametrize("tier", TIERS)
    async def test_a_missing_collection_is_an_error(self, store: VectorStore, tier: Tier) -> None:
        name = Space(uuid4(), 1, DIM, tier, bucket=4999 if tier == "pooled" else 0)
        row = chunks(np.random.default_rng(18), [1])[0]
        with pytest.raises(MissingCollection):
            await store.search(name, row.vector, k=1, cells=None, scope=None)
        with pytest.raises(MissingCollection):
            await store.search(name, row.vector, k=1, cells=[0], scope=scope([1]))
        with pytest.raises(MissingCollection):
            await store.insert(name, {0: [row]})
        with pytest.raises(MissingCollection):
            await store.delete_versions(name, [1])
        with pytest.raises(MissingCollection):
            await store.count(name)
        with pytest.raises(MissingCollection):
            await anext(store.scan(name))
        with pytest.raises(MissingCollection):
            await store.fetch(name, {0: [row.chunk_id]})

    async def test_overlapping_writers_of_one_process_lose_nothing(self, store: VectorStore, space: Space) -> None:
        rng = np.random.default_rng(20)
        batches = [chunks(rng, [number] * 20) for number in range(1, 13)]
        await asyncio.gather(
            *(store.insert(space, {cell: batch[cell::4] for cell in range(4)}) for batch in batches),
            *(store.delete_versions(space, [1000 + number]) for number in range(4)),
        )
        assert await store.count(space) == 240

    async def test_answers_a_ping(self, store: VectorStore) -> None:
        await store.ping()


class TestMilvusVectors(VectorStoreConformance):
    @pytest.fixture
    def store(self, milvus_store: MilvusVectors) -> VectorStore:
        return milvus_store


class TestMemoryVectors(VectorStoreConformance):
    @pytest.fixture
    def store(self) -> VectorStore:
        return MemoryVectors()
