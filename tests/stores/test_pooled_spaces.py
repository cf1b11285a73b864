"""Tenants and generations that share a bucket of a pool: to each it is as if it were alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import numpy as np
import pytest

from shards.memory import MemoryVectors
from shards.milvus import MilvusVectors
from shards.names import Space
from shards.vectors import ChunkVector, StorePlace, VectorStore, VersionScope

DIM = 16
STEPS = 150


@dataclass
class Model:
    """What each space holds, by definition."""

    rows: dict[Space, dict[UUID, ChunkVector]] = field(default_factory=dict)

    def best(self, space: Space, query: np.ndarray, k: int, versions: set[int] | None) -> list[float]:
        rows = self.rows[space].values()
        scores = [float(row.vector @ query) for row in rows if versions is None or row.version_no in versions]
        return sorted(scores, reverse=True)[:k]


def unit(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


class PooledConformance:
    """A subclass names the store."""

    async def test_nobody_sees_or_changes_what_another_has(self, store: VectorStore) -> None:
        rng = np.random.default_rng(1)
        tenants, bucket = [uuid4() for _ in range(3)], int(rng.integers(1000))
        spaces = [Space(tenant, number, DIM, "pooled", bucket) for tenant in tenants for number in (1, 2)]
        # The same chunks and versions in all of them: nothing but the space tells them apart.
        chunk_ids = [uuid4() for _ in range(40)]
        model = Model({space: {} for space in spaces})
        for space in spaces:
            await store.create(space, cells=1)
        for _ in range(STEPS):
            space = spaces[int(rng.integers(len(spaces)))]
            await self.change(store, model, space, chunk_ids, rng)
            await self.check(store, model, spaces[int(rng.integers(len(spaces)))], chunk_ids, rng)
        for space in spaces:
            await self.check(store, model, space, chunk_ids, rng)
        left = sum(len(model.rows[space]) for space in spaces[:2])
        assert await store.drop_tenant(tenants[0]) == (0, left)
        for space in spaces[2:]:
            assert await store.count(space) == len(model.rows[space])
            await store.drop(space)

    async def test_rows_are_listed_with_whose_they_are(self, store: VectorStore) -> None:
        rng = np.random.default_rng(3)
        first, second = uuid4(), uuid4()
        mine = [Space(first, number, DIM, "pooled", 64 * 7 + 3) for number in (1, 2)]
        spaces = [*mine, Space(second, 1, DIM, "pooled", 64 * 7 + 3), Space(second, 2, DIM, "pooled", 64 * 7 + 9)]
        for number, space in enumerate(spaces, start=1):
            await store.create(space, cells=1)
            await store.insert(space, {0: [ChunkVector(uuid4(), number, unit(rng)) for _ in range(number)]})
        place = StorePlace("", "", spaces[0].collection)
        assert place in await store.places()
        assert await store.places(first) == [], "it is nobody's own"
        listed = [one async for page in store.pool_rows(place) for one in page]
        for number, space in enumerate(spaces, start=1):
            own = {one.row for one in listed if (one.tenant_id, one.generation) == (space.tenant_id, space.generation)}
            assert own == {row async for page in store.held_rows(space) for row in page}
            assert {(row.partition, row.version_no) for row in own} == {(space.partition(0), number)}
            assert len(own) == number
        [gone] = [one.row for one in listed if one.tenant_id == first and one.generation == 1]
        await store.delete_pool_rows(place, [gone])
        assert await store.still_held(spaces[0], [gone]) == set()
        assert [await store.count(space) for space in spaces] == [0, 2, 3, 4]
        for space in spaces:
            await store.drop(space)

    async def change(
        self, store: VectorStore, model: Model, space: Space, chunk_ids: list[UUID], rng: np.random.Generator
    ) -> None:
        held, draw = model.rows[space], rng.random()
        some = [chunk_ids[at] for at in rng.choice(len(chunk_ids), 8, replace=False)]
        versions = [int(version) for version in rng.choice(6, 2, replace=False)]
        if draw < 0.55:
            rows = [ChunkVector(chunk_id, int(rng.integers(6)), unit(rng)) for chunk_id in some]
            await store.insert(space, {0: rows})
            held.update({row.chunk_id: row for row in rows})
        elif draw < 0.75:
            gone = [chunk_id for chunk_id, row in held.items() if row.version_no in versions]
            assert await store.delete_versions(space, versions) == len(gone)
            for chunk_id in gone:
                del held[chunk_id]
        elif draw < 0.9:
            await store.delete_chunks(space, {0: some})
            for chunk_id in some:
                held.pop(chunk_id, None)
        else:
            assert await store.drop(space) == bool(held)
            held.clear()
            await store.create(space, cells=1)

    async def check(
        self, store: VectorStore, model: Model, space: Space, chunk_ids: list[UUID], rng: np.random.Generator
    ) -> None:
        held, query = model.rows[space], unit(rng)
        assert await store.count(space) == len(held)
        versions = {int(version) for version in rng.choice(6, 3, replace=False)}
        scope = VersionScope(np.array(sorted(versions), dtype=np.int64))
        for cells, allowed in ((None, None), ([0], None), (None, versions), ([0], versions)):
            found = await store.search(space, query, k=7, cells=cells, scope=scope if allowed else None)
            assert [hit.score for hit in found] == pytest.approx(model.best(space, query, 7, allowed), abs=1e-5)
            assert all(float(held[hit.chunk_id].vector @ query) == pytest.approx(hit.score, abs=1e-5) for hit in found)
        scanned = [row async for page in store.scan(space, batch=5) for row in page]
        assert sorted(row.chunk_id for row in scanned) == sorted(held)
        assert all(np.array_equal(row.vector, held[row.chunk_id].vector) for row in scanned)
        assert sorted([key async for page in store.keys(space, cells=[0]) for key in page]) == sorted(held)
        fetched = await store.fetch(space, {0: chunk_ids})
        assert {row.chunk_id: row.version_no for row in fetched} == {
            chunk_id: row.version_no for chunk_id, row in held.items()
        }

    async def test_its_one_cell_is_nobodys_to_change(self, store: VectorStore) -> None:
        space = Space(uuid4(), 1, DIM, "pooled", 5)
        with pytest.raises(ValueError, match="cells"):
            await store.create(space, cells=2)
        await store.create(space, cells=1)
        for cells in ([1], [0, 1]):
            with pytest.raises(ValueError, match="cells"):
                await store.search(space, unit(np.random.default_rng(2)), k=1, cells=cells, scope=None)
        for work in (store.add_cells, store.drop_cells):
            with pytest.raises(ValueError, match="shared"):
                await work(space, [1])
        assert await store.release(space) is False


class TestMilvusPool(PooledConformance):
    @pytest.fixture
    def store(self, milvus_store: MilvusVectors) -> VectorStore:
        return milvus_store


class TestMemoryPool(PooledConformance):
    @pytest.fixture
    def store(self) -> VectorStore:
        return MemoryVectors()


@pytest.mark.parametrize(
    "wrong", [{"tier": "shared"}, {"generation": 0}, {"bucket": -1}, {"dim": 0}, {"tier": "pooled'"}]
)
def test_a_space_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"tier|generation"):
        Space(**{"tenant_id": uuid4(), "generation": 1, "dim": 4, **wrong})  # type: ignore[arg-type]
