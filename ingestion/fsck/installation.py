"""What lies in the stores and belongs to no tenant: collections, databases, index folders, objects, rows of pools."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.fsck.check import Check
from ingestion.fsck.places import shown
from ingestion.fsck.report import Class
from shards.catalog_postgres import PostgresCatalog
from shards.index_models import IndexGeneration
from shards.names import BUCKETS_A_COLLECTION, Space, tenant_of
from shards.vectors import HeldRow, MissingCollection, StorePlace
from tenants.db import Database
from tenants.errors import Unavailable
from tenants.models import Tenant

_POOL = re.compile(r"pool_(\d+)_(\d+)")


async def examine_installation(check: Check) -> None:
    """Fill the report with what belongs to no tenant; with `repair`, remove it.

    Stores are listed before Postgres is asked, and a tenant's row is there before anything of it: what is listed and
    unknown is left over. It is looked at again under the locks of whoever might be writing it.
    """
    places = await _listed(check)
    await _check_collections(check, places)
    check.advance(0.3)
    await _check_lexical(check)
    check.advance(0.5)
    await _check_objects(check)
    check.advance(0.6)
    await _check_pools(check, places)
    check.advance(1.0)


async def known_tenants(database: Database) -> set[UUID]:
    """Return the ids of all tenants."""
    async with database.dispatcher() as session:
        return set(await session.scalars(select(Tenant.id)))


async def _listed(check: Check) -> list[StorePlace]:
    """Return the collections of every vector server that answers."""
    vectors = check.runtime.indexes.vectors
    found: list[StorePlace] = []
    for endpoint in vectors.budgets:
        try:
            found += await vectors.places(endpoints=[endpoint])
        except Unavailable as away:
            check.report.skip(f"vector server {endpoint!r}" if endpoint else "the main vector server", away.detail)
    return found


async def _check_collections(check: Check, places: Sequence[StorePlace]) -> None:
    vectors = check.runtime.indexes.vectors
    known = await known_tenants(check.runtime.database)
    check.report.count("collections", len(places))
    for place in places:
        # The name of an isolated tenant's database is its id; without one it is in the collection's.
        owner = tenant_of(place.database or place.collection)
        if _POOL.fullmatch(place.collection) or owner is None or owner in known:
            continue
        gone = await _unless_known(check, owner, partial(vectors.drop_place, place))
        if gone:
            check.report.add("vectors", "orphan", f"collection {shown(place)} of no tenant")


async def _check_lexical(check: Check) -> None:
    lexical = check.runtime.indexes.lexical
    indexes = await lexical.indexes()
    known = await known_tenants(check.runtime.database)
    check.report.count("lexical_indexes", len(indexes))
    for index in indexes:
        owner = tenant_of(index)
        if owner is None or owner in known:
            continue
        if await _unless_known(check, owner, partial(lexical.drop, index)):
            check.report.add("lexical", "orphan", f"index {index} of no tenant")


async def _check_objects(check: Check) -> None:
    objects = check.runtime.objects
    prefixes = await objects.tenants()
    known = await known_tenants(check.runtime.database)
    check.report.count("object_prefixes", len(prefixes))
    for prefix in prefixes:
        try:
            owner = UUID(prefix)
        except ValueError:
            check.report.add("objects", "orphan", f"tenants/{prefix}", why="nobody here made this name; left alone")
            continue
        if owner in known:
            continue
        keys = await objects.list_tenant(owner)
        if keys and await _unless_known(check, owner, partial(objects.delete_tenant, owner)):
            check.report.add("objects", "orphan", f"tenants/{owner}", number=len(keys), why="of no tenant")


async def _unless_known(check: Check, owner: UUID, remove: Callable[[], Awaitable[object]]) -> bool:
    """Say whether there is still no tenant of this id while nobody works on one; with `repair`, remove what it left."""
    database = check.runtime.database
    async with database.rebuild_lock(owner), database.writer_lock(owner):
        if owner in await known_tenants(check.runtime.database):
            return False
        if check.repair:
            await remove()
        return True


async def _check_pools(check: Check, places: Sequence[StorePlace]) -> None:
    """Look for rows of shared collections that no generation of their tenant has there."""
    vectors = check.runtime.indexes.vectors
    for place in places:
        if _POOL.fullmatch(place.collection) is None:
            continue
        counted: dict[tuple[UUID, int, str], int] = {}
        with suppress(MissingCollection):
            async for page in vectors.pool_rows(place):
                check.report.count("pool_rows", len(page))
                for one in page:
                    key = (one.tenant_id, one.generation, one.row.partition)
                    counted[key] = counted.get(key, 0) + 1
        async with check.runtime.database.dispatcher() as session:
            spaces = await _pooled_spaces(session)
        for tenant_id, generation, partition in counted:
            space = spaces.get((tenant_id, generation))
            # In another bucket of its own collection: the check of that tenant finds it.
            if space is None or space.collection != place.collection:
                await _foreign(check, place, tenant_id, generation, partition)


async def _pooled_spaces(session: AsyncSession) -> dict[tuple[UUID, int], Space]:
    table = IndexGeneration
    columns = (table.tenant_id, table.generation, table.dim, table.bucket)
    rows = await session.execute(select(*columns).where(table.tier == "pooled", table.state != "gone"))
    return {
        (row.tenant_id, row.generation): Space(row.tenant_id, row.generation, row.dim, "pooled", row.bucket)
        for row in rows
    }


async def _foreign(check: Check, place: StorePlace, tenant_id: UUID, generation: int, partition: str) -> None:
    """Look again at the rows of a generation in a shared collection that is not theirs, while nobody writes them."""
    database, vectors = check.runtime.database, check.runtime.indexes.vectors
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        catalog = PostgresCatalog(session, tenant_id)
        headers = await catalog.generations("live", "building", "embedding", "retired")
        mine = [header.space for header in headers if header.number == generation]
        if any(space.collection == place.collection for space in mine):
            return
        rows: list[HeldRow] = []
        async for page in vectors.pool_rows(place):
            rows += [one.row for one in page if (one.tenant_id, one.generation) == (tenant_id, generation)]
        rows = [row for row in rows if row.partition == partition]
        if not rows:
            return
        kind: Class = "wrong_tenant" if tenant_id in await known_tenants(check.runtime.database) else "orphan"
        what = f"{shown(place)}/{partition}: tenant {tenant_id}, generation {generation}"
        check.report.add("vectors", kind, what, number=len(rows))
        if check.repair:
            dim, number = (int(digits) for digits in place.collection.split("_")[1:])
            await catalog.serialise(Space(tenant_id, 1, dim, "pooled", number * BUCKETS_A_COLLECTION))
            await vectors.delete_pool_rows(place, rows)
