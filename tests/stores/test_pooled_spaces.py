"""Tenants and generations that share a bucket of a pool: to each it is as if it were alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import numpy as np
import pytest

from shards.names import Space
from shards.vectors import ChunkVector, StorePlace, VectorStore
from tests.stores.chunk_vectors import DIM, Rng, found, listed, scope, unit

STEPS = {"memory": 150, "lite": 150, "real": 20}
"""A real server takes 0.4 s until it has seen what was written, and every step asks it for that several times."""


@dataclass
class Model:
    """What each space holds, by definition."""

    rows: dict[Space, dict[UUID, ChunkVector]] = field(default_factory=dict)

    def best(self, space: Space, query: np.ndarray, k: int, versions: set[int] | None) -> list[float]:
        rows = self.rows[space].values()
        scores = [float(row.vector @ query) for row in rows if versions is None or row.version_no in versions]
        return sorted(scores, reverse=True)[:k]


class TestPool:
    async def test_nobody_sees_or_changes_what_another_has(
        self, store: VectorStore, rng: Rng, request: pytest.FixtureRequest
    ) -> None:
        tenants, bucket = [uuid4() for _ in range(3)], int(rng.integers(1000))
        spaces = [Space(tenant, number, DIM, "pooled", bucket) for tenant in tenants for number in (1, 2)]
        # The same chunks and versions in all of them: nothing but the space tells them apart.
        chunk_ids = [uuid4() for _ in range(40)]
        model = Model({space: {} for space in spaces})
        for space in spaces:
            await store.create(space, cells=1)
        for _ in range(STEPS[request.node.callspec.params["store"]]):
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

    async def test_rows_are_listed_with_whose_they_are(self, store: VectorStore, rng: Rng) -> None:
        first, second = uuid4(), uuid4()
        mine = [Space(first, number, DIM, "pooled", 64 * 7 + 3) for number in (1, 2)]
        spaces = [*mine, Space(second, 1, DIM, "pooled", 64 * 7 + 3), Space(second, 2, DIM, "pooled", 64 * 7 + 9)]
        for number, space in enumerate(spaces, start=1):
            await store.create(space, cells=1)
            await store.insert(space, {0: [ChunkVector(uuid4(), number, unit(rng)) for _ in range(number)]})
        place = StorePlace("", "", spaces[0].collection)
        assert place in await store.places()
        assert await store.places(first) == [], "it is nobody's own"
        pool = await listed(store.pool_rows(place))
        for number, space in enumerate(spaces, start=1):
            own = {one.row for one in pool if (one.tenant_id, one.generation) == (space.tenant_id, space.generation)}
            assert own == set(await listed(store.held_rows(space)))
            assert {(row.partition, row.version_no) for row in own} == {(space.partition(0), number)}
            assert len(own) == number
        [gone] = [one.row for one in pool if one.tenant_id == first and one.generation == 1]
        await store.delete_pool_rows(place, [gone])
        assert await store.still_held(spaces[0], [gone]) == set()
        assert [await store.count(space) for space in spaces] == [0, 2, 3, 4]
        for space in spaces:
            await store.drop(space)

    async def change(self, store: VectorStore, model: Model, space: Space, chunk_ids: list[UUID], rng: Rng) -> None:
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

    async def check(self, store: VectorStore, model: Model, space: Space, chunk_ids: list[UUID], rng: Rng) -> None:
        held, query = model.rows[space], unit(rng)
        assert await store.count(space) == len(held)
        versions = {int(version) for version in rng.choice(6, 3, replace=False)}
        for cells, allowed in ((None, None), ([0], None), (None, versions), ([0], versions)):
            hits = await found(store, space, query, 7, cells=cells, within=scope(allowed) if allowed else None)
            assert list(hits.values()) == pytest.approx(model.best(space, query, 7, allowed), abs=1e-5)
            assert hits == pytest.approx({key: float(held[key].vector @ query) for key in hits}, abs=1e-5)
        scanned = await listed(store.scan(space, batch=5), 5)
        assert sorted(row.chunk_id for row in scanned) == sorted(held)
        assert all(np.array_equal(row.vector, held[row.chunk_id].vector) for row in scanned)
        assert sorted(await listed(store.keys(space, cells=[0]))) == sorted(held)
        fetched = await store.fetch(space, {0: chunk_ids})
        assert {row.chunk_id: row.version_no for row in fetched} == {
            chunk_id: row.version_no for chunk_id, row in held.items()
        }

    async def test_its_one_cell_is_nobodys_to_change(self, store: VectorStore, rng: Rng) -> None:
        space = Space(uuid4(), 1, DIM, "pooled", 5)
        with pytest.raises(ValueError, match="cells"):
            await store.create(space, cells=2)
        await store.create(space, cells=1)
        for cells in ([1], [0, 1]):
            with pytest.raises(ValueError, match="cells"):
                await found(store, space, unit(rng), 1, cells=cells)
        for work in (store.add_cells, store.drop_cells):
            with pytest.raises(ValueError, match="shared"):
                await work(space, [1])
        assert await store.release(space) is False


@pytest.mark.parametrize(
    "wrong", [{"tier": "shared"}, {"generation": 0}, {"bucket": -1}, {"dim": 0}, {"tier": "pooled'"}]
)
def test_a_space_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"tier|generation"):
        Space(**{"tenant_id": uuid4(), "generation": 1, "dim": 4, **wrong})  # type: ignore[arg-type]
