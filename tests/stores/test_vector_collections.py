"""What `VectorStore` promises of collections and their cells: made, listed, released from memory, dropped."""

from __future__ import annotations

from uuid import uuid4

import pytest

from shards.names import TIERS, Space, Tier
from shards.vectors import MAX_CELLS, MissingCollection, StorePlace, VectorStore
from tests.stores.chunk_vectors import DIM, Rng, chunks, filled, found, ids, listed, scope, unit


async def test_lists_cells_and_collections(store: VectorStore, space: Space) -> None:
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
        await listed(store.held_rows(space))
    await store.create(space, cells=1)


async def test_creating_again_keeps_the_rows(store: VectorStore, space: Space, rng: Rng) -> None:
    await store.insert(space, {3: chunks(rng, [1])})
    await store.create(space, cells=4)
    assert await store.count(space) == 1


@pytest.mark.parametrize("cells", [0, 1024])
async def test_too_many_cells_are_refused(store: VectorStore, cells: int) -> None:
    with pytest.raises(ValueError, match="cells"):
        await store.create(Space(uuid4(), 1, DIM), cells=cells)


async def test_an_unknown_cell_is_refused(store: VectorStore, space: Space, rng: Rng) -> None:
    [row] = chunks(rng, [1])
    for cell in (4, -1):
        with pytest.raises(ValueError, match="cells"):
            await found(store, space, row.vector, 1, cells=[0, cell])
        with pytest.raises(ValueError, match="cells"):
            await store.insert(space, {0: [row], cell: [row]})
    assert await store.count(space) == 0


async def test_cells_are_added_and_dropped_beside_others(store: VectorStore, space: Space, rng: Rng) -> None:
    by_cell = filled(rng, 8)
    await store.insert(space, by_cell)
    await store.add_cells(space, [7, 9])
    await store.add_cells(space, [9, 3])
    await store.insert(space, {7: by_cell[1], 9: []})
    query = unit(rng)
    assert len(await found(store, space, query, 50)) == 32
    assert len(await listed(store.keys(space, cells=[1, 7]))) == 16
    await store.drop_cells(space, [1, 9, 12])
    await store.drop_cells(space, [1, 9, 12])
    assert await store.count(space) == 32
    assert set(await found(store, space, query, 50, cells=[7])) == ids(by_cell[1])
    assert len(await found(store, space, query, 50)) == 32
    for gone in (1, 9):
        with pytest.raises(ValueError, match="cells"):
            await found(store, space, query, 5, cells=[gone])
        with pytest.raises(ValueError, match="cells"):
            await store.insert(space, {gone: by_cell[0]})
    assert sorted(await listed(store.keys(space, cells=[0, 7]))) == sorted(ids(by_cell[0] + by_cell[1]))
    with pytest.raises(ValueError, match="at most"):
        await store.add_cells(space, range(20, 20 + MAX_CELLS))


async def test_what_was_released_is_loaded_by_the_next_call(store: VectorStore, space: Space, rng: Rng) -> None:
    rows = chunks(rng, range(50))
    await store.insert(space, {0: rows[:25], 2: rows[25:]})
    woken: list[tuple[Space, float]] = []
    store.on_wake = lambda *told: woken.append(told)
    for call in (
        lambda: found(store, space, rows[0].vector, 50, cells=[0, 2]),
        lambda: store.insert(space, {1: rows[:1]}),
        lambda: store.count(space),
        lambda: found(store, space, rows[0].vector, 60),
    ):
        assert await store.release(space)
        await call()
    assert [known for known, _ in woken] == [space] * len(woken)
    assert len(woken) >= 2
    assert all(took >= 0 for _, took in woken)
    await store.release(space)
    await store.release(space)
    assert await store.count(space) == 51


async def test_a_drop_says_whether_there_was_anything(store: VectorStore) -> None:
    space = Space(uuid4(), 1, DIM)
    await store.create(space, cells=1)
    assert await store.drop(space)
    assert not await store.drop(space)
    assert not await store.drop(Space(uuid4(), 1, DIM, "isolated"))
    assert not await store.drop(Space(uuid4(), 1, DIM + 1, "pooled"))


async def test_a_dropped_name_can_be_used_again(store: VectorStore, space: Space, rng: Rng) -> None:
    await store.insert(space, {3: chunks(rng, [1, 2])})
    await store.drop(space)
    await store.create(space, cells=2)
    assert await store.count(space) == 0
    with pytest.raises(ValueError, match="cells"):
        await store.insert(space, {3: chunks(rng, [1])})


async def test_a_tenant_is_dropped_wherever_it_has_anything(store: VectorStore, rng: Rng) -> None:
    tenant, other = uuid4(), uuid4()
    tiers: tuple[Tier, ...] = ("pooled", "dedicated", "isolated", "dedicated")
    spaces = [Space(one, number, DIM, tier) for one in (tenant, other) for number, tier in enumerate(tiers, 1)]
    for space in spaces:
        await store.create(space, cells=1)
        await store.insert(space, {0: chunks(rng, [1, 2, 3])})
    assert await store.drop_tenant(tenant) == (3, 12)
    assert await store.drop_tenant(tenant) == (0, 0)
    for space in spaces[4:]:
        assert await store.count(space) == 3
    assert await store.drop_tenant(other) == (3, 12)


@pytest.mark.parametrize("tier", TIERS)
async def test_a_missing_collection_is_an_error(store: VectorStore, tier: Tier, rng: Rng) -> None:
    name = Space(uuid4(), 1, DIM, tier, bucket=4999 if tier == "pooled" else 0)
    [row] = chunks(rng, [1])
    for call in (
        lambda: found(store, name, row.vector, 1),
        lambda: found(store, name, row.vector, 1, cells=[0], within=scope([1])),
        lambda: store.insert(name, {0: [row]}),
        lambda: store.delete_versions(name, [1]),
        lambda: store.count(name),
        lambda: anext(store.scan(name)),
        lambda: store.fetch(name, {0: [row.chunk_id]}),
    ):
        with pytest.raises(MissingCollection):
            await call()


async def test_answers_a_ping(store: VectorStore) -> None:
    await store.ping()
