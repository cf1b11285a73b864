"""Damage done to vectors behind the service's back: found exactly, mended, and the document is found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from ingestion.fsck import places
from ingestion.fsck.check import Check
from ingestion.fsck.places import check_places
from shards.catalog import Recipe
from shards.catalog_postgres import PostgresCatalog
from shards.names import Space
from shards.vectors import ChunkVector, StorePlace
from tests.ingestion.damage import Stores, finds, fsck, opened

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess

NOTE = "# Harbour\n\nThe dredger works at night.\n\n# Quay\n\nQuay {n} takes ships of up to {n} metres."


@pytest.fixture(scope="module")
async def stores(stack: StackState) -> AsyncIterator[Stores]:
    async with opened(stack) as found:
        yield found


async def filled(tenant: TenantAccess, documents: int = 4) -> list[str]:
    """Upload some documents of two chunks each; return their ids."""
    made = [await tenant.upload(NOTE.format(n=n), f"{n}.md", external_id=str(n)) for n in range(1, documents + 1)]
    return [one["document"]["id"] for one in made]


async def test_a_sound_tenant_has_no_difference(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    await filled(tenant)
    report = await fsck(admin, tenant, deep=True)
    assert (report["total"], report["left_total"]) == (0, 0), report
    checked = report["checked"]
    assert checked["chunks"] == checked["vectors"] == checked["lexical"] == 8
    assert checked["documents"] == checked["objects"] == checked["originals_read"] == 4


async def test_missing_vectors_are_made_again(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores) -> None:
    documents = await filled(tenant)
    space = (await stores.live(tenant)).space
    before = {row.chunk_id: row async for page in stores.vectors.scan(space) for row in page}
    chunks = await stores.chunks(tenant, documents[1])
    await stores.vectors.delete_chunks(space, {0: chunks})
    await finds(admin, tenant, {"vectors": {"missing": 2}})
    after = {row.chunk_id: row async for page in stores.vectors.scan(space) for row in page}
    assert after.keys() == before.keys()
    for chunk_id, row in after.items():
        assert row.version_no == before[chunk_id].version_no
        assert float(row.vector @ before[chunk_id].vector) == pytest.approx(1.0, abs=1e-3)
    hits = await tenant.search("How long may ships at quay 2 be?", k=3)
    assert hits[0]["external_id"] == "2"
    assert hits[0]["ranks"]["ann"] is not None


async def test_orphan_and_stale_vectors_are_removed(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    documents = await filled(tenant, 2)
    header = await stores.live(tenant)
    vector = np.zeros(header.space.dim, dtype=np.float32)
    vector[0] = 1.0
    [[version]] = await stores.sql(tenant, "SELECT active_version_no FROM documents WHERE id = :d", d=documents[0])
    orphans = [ChunkVector(uuid4(), 10**12 + n, vector) for n in range(3)]
    stale = [ChunkVector(uuid4(), version, vector)]
    await stores.vectors.insert(header.space, {0: [*orphans, *stale]})
    await finds(admin, tenant, {"vectors": {"orphan": 3, "stale": 1}})
    assert len(await stores.rows(tenant)) == 4


async def test_a_row_in_another_cell_is_misplaced(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    await filled(tenant, 3)
    placed = await admin.post(f"/v1/admin/tenants/{tenant.id}/placement", json={"tier": "dedicated"})
    await ended(admin, placed)
    space = (await stores.live(tenant)).space
    rows = [row async for page in stores.vectors.scan(space) for row in page]
    await stores.vectors.add_cells(space, [7])
    await stores.vectors.insert(space, {7: rows[:2]})  # there twice
    await stores.vectors.delete_chunks(space, {0: [rows[0].chunk_id]})  # and one of them only in the wrong cell
    await finds(admin, tenant, {"vectors": {"misplaced": 2, "missing": 1, "orphan": 1}})
    assert "c7" not in await stores.vectors.partitions(space)


@pytest.mark.parametrize("tier", ["dedicated", "isolated"])
async def test_a_collection_that_is_gone_is_made_again(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, tier: str
) -> None:
    await filled(tenant, 3)
    await ended(admin, await admin.post(f"/v1/admin/tenants/{tenant.id}/placement", json={"tier": tier}))
    await stores.vectors.drop((await stores.live(tenant)).space)
    await finds(admin, tenant, {"vectors": {"missing": 7}})  # six rows and their cell
    assert (await tenant.search("quay 3 metres", k=1))[0]["external_id"] == "3"


async def test_a_dead_generation_is_dropped(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores) -> None:
    await filled(tenant, 1)
    space = Space(UUID(tenant.id), 40, 16, "dedicated")
    await stores.vectors.create(space, cells=2)
    await finds(admin, tenant, {"vectors": {"orphan": 1}})
    assert not await stores.vectors.places(UUID(tenant.id))


async def ended(admin: httpx.AsyncClient, answer: httpx.Response) -> None:
    for _ in range(600):
        job = (await admin.get(answer.headers["location"])).json()
        if job["state"] in ("done", "failed"):
            break
        await asyncio.sleep(0.05)
    assert job["state"] == "done", job


class Building:
    """A vector store in which upkeep goes on while it is listed: what it does, and what is listed then."""

    def __init__(self, stores: Stores, step: Callable[[], Awaitable[None]]) -> None:
        self._vectors, self._step = stores.vectors, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vectors, name)

    async def places(self, *asked: Any, **more: Any) -> list[StorePlace]:
        step, self._step = self._step, nothing
        await step()
        return await self._vectors.places(*asked, **more)

    async def partitions(self, space: Space) -> set[str]:
        found = await self._vectors.partitions(space)
        step, self._step = self._step, nothing
        await step()
        return found


async def nothing() -> None:
    pass


def examined(stores: Stores, tenant: TenantAccess, vectors: Any) -> Check:
    indexes = SimpleNamespace(vectors=vectors, lexical=stores.lexical)
    runtime = SimpleNamespace(database=stores.database, indexes=indexes)
    return Check(runtime, UUID(tenant.id), repair=True)  # type: ignore[arg-type]


async def test_a_collection_that_upkeep_makes_beside_the_check_is_not_dropped(
    tenant: TenantAccess, stores: Stores
) -> None:
    await filled(tenant, 1)
    tenant_id = UUID(tenant.id)
    space = Space(tenant_id, 9, 8, "dedicated")

    async def upkeep() -> None:
        async with stores.database.tenant(tenant_id) as session, session.begin():
            recipe = Recipe("e")
            await PostgresCatalog(session, tenant_id).plan(space, state="building", recipe=recipe, edition=1)
        await stores.vectors.create(space, cells=1)

    check = examined(stores, tenant, Building(stores, upkeep))
    await check_places(check)
    assert check.report.counts == {}
    assert space.collection in {place.collection for place in await stores.vectors.places(tenant_id)}


async def test_cells_that_upkeep_gives_up_beside_the_check_are_no_difference(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    await filled(tenant, 1)
    await ended(admin, await admin.post(f"/v1/admin/tenants/{tenant.id}/placement", json={"tier": "dedicated"}))
    tenant_id, live = UUID(tenant.id), await stores.live(tenant)
    async with stores.database.tenant(tenant_id) as session, session.begin():
        change = await PostgresCatalog(session, tenant_id).plan_change(live.number, "split", [0], 2)
    await stores.vectors.add_cells(live.space, change.children)

    async def upkeep() -> None:
        await stores.vectors.drop_cells(live.space, change.children)
        async with stores.database.tenant(tenant_id) as session, session.begin():
            await PostgresCatalog(session, tenant_id).set_change(change, "abandoned")

    vectors = Building(stores, nothing)
    vectors._step = upkeep
    check = examined(stores, tenant, vectors)
    async with stores.database.tenant(tenant_id) as session:
        await places._check_cells(check, session, live)
    assert check.report.counts == {}


async def test_a_database_whose_collection_is_about_to_be_made_is_left_alone(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    """A move to a database of its own has recorded its plan and made the database; the collection comes next."""
    await filled(tenant, 1)
    space = Space(UUID(tenant.id), 9, 8, "isolated")
    await stores.vectors.create(space, cells=1)
    await stores.vectors._call(space, lambda client: client.drop_collection(space.collection))
    assert (await fsck(admin, tenant))["differences"] == {"vectors": {"orphan": 1}}, "nobody planned it"
    begun = (
        "INSERT INTO index_generations (tenant_id, generation, state, collection, tier, bucket, endpoint, embedder,"
        " dim, rows, cells, micros, next_cell, stamp, trained_rows) VALUES (:t, 9, 'building', 'c', 'isolated', 0, '',"
        " 'e', 8, 0, 1, 1, 1, 0, 0)"
    )
    await stores.sql(tenant, begun, t=UUID(tenant.id))
    assert (await fsck(admin, tenant))["total"] == 0
    await stores.sql(tenant, "UPDATE index_generations SET created_at = now() - interval '1 hour' WHERE generation = 9")
    assert (await fsck(admin, tenant))["differences"] == {"postgres": {"job": 1}}, "nobody will finish it"
    assert (await fsck(admin, tenant, repair=True))["left"] == {}
    assert (await tenant.search("quay 1", k=1))[0]["external_id"] == "1"
