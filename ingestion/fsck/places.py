"""The collections and cells of a tenant's own against the generations that Postgres knows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.fsck.check import Check
from shards.catalog import Header
from shards.catalog_postgres import PostgresCatalog
from shards.index_models import CellChangeRow, IndexGeneration, MicroCell
from shards.placement import servers_of
from shards.vectors import MissingCollection, StorePlace
from tenants.repository import placement_of

_STATES = ("live", "building", "embedding", "retired")


async def check_places(check: Check) -> None:
    """Look, while nobody writes, for collections of no generation and for cells that nothing names any more.

    Upkeep makes and drops them without the writer lock, but it commits its plan first and, when it drops, what it did
    last. So the store is listed before Postgres is asked, and what is unknown then is listed again.
    """
    database, tenant_id, vectors = check.runtime.database, check.tenant_id, check.runtime.indexes.vectors
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        catalog = PostgresCatalog(session, tenant_id)
        # Another server that is away is no reason not to look.
        servers = await servers_of(catalog, await placement_of(session, tenant_id))
        places = await vectors.places(tenant_id, endpoints=servers)
        headers = await catalog.generations(*_STATES)
        unknown = _unknown(places, headers)
        still = set(await vectors.places(tenant_id, endpoints=servers)) if unknown else set()
        for place in unknown:
            if place not in still:
                continue
            check.report.add("vectors", "orphan", f"collection {shown(place)}")
            if check.repair:
                await vectors.drop_place(place)
        for header in headers:
            if header.state == "live" and not header.space.pooled:
                await _check_cells(check, session, header)


def _unknown(places: Sequence[StorePlace], headers: Sequence[Header]) -> list[StorePlace]:
    """Return those places that no generation names. A move to a database of its own makes that first, and its
    collection a moment later."""
    known = {_place_of(header) for header in headers}
    databases = {(place.endpoint, place.database) for place in known}
    return [
        place
        for place in places
        if place not in known and (place.collection or (place.endpoint, place.database) not in databases)
    ]


async def _check_cells(check: Check, session: AsyncSession, header: Header) -> None:
    """Look for cells that were replaced or given up, and are there all the same."""
    space, vectors = header.space, check.runtime.indexes.vectors
    present: set[str] = set()
    with suppress(MissingCollection):  # its rows are counted as missing
        present = await vectors.partitions(space)
    table = CellChangeRow
    mine = (table.tenant_id == check.tenant_id, table.generation == header.number)
    changes = list(await session.scalars(select(table).where(*mine)))
    ended = {cell for one in changes if one.state == "done" for cell in one.parents}
    ended |= {cell for one in changes if one.state == "abandoned" for cell in one.children}
    generation = IndexGeneration
    next_cell = await session.scalar(
        select(generation.next_cell).where(
            generation.tenant_id == check.tenant_id, generation.generation == header.number
        )
    )
    cells = await _cells(session, check.tenant_id, header.number)
    wanted = sorted(cell for cell in cells if space.partition(cell) not in present)
    for cell in wanted:
        check.report.add("vectors", "missing", f"cell {cell} of {space}")
    if check.repair and wanted:
        live = await check.runtime.indexes.live(PostgresCatalog(session, check.tenant_id))
        assert live is not None
        await check.runtime.indexes.complete(live)
    left = [cell for cell in ended if space.partition(cell) in present]
    left += [cell for name in present if (cell := _number(name)) >= (next_cell or 0)]
    if left:
        with suppress(MissingCollection):
            present = await vectors.partitions(space)
        left = [cell for cell in left if space.partition(cell) in present]
    for cell in sorted(left):
        check.report.add("vectors", "orphan", f"cell {cell} of {space}")
    if check.repair and left:
        await vectors.drop_cells(space, sorted(left))


async def _cells(session: AsyncSession, tenant_id: UUID, generation: int) -> set[int]:
    table = MicroCell
    mine = (table.tenant_id == tenant_id, table.generation == generation, table.cell >= 0)
    return set(await session.scalars(select(table.cell).where(*mine).distinct()))


def _number(partition: str) -> int:
    """Return the cell of a partition, -1 for one that is no cell."""
    digits = partition.removeprefix("c")
    return int(digits) if partition.startswith("c") and digits.isdecimal() else -1


def _place_of(header: Header) -> StorePlace:
    return StorePlace(header.space.endpoint, header.space.database, header.space.collection)


def shown(place: StorePlace) -> str:
    """Return what an operator finds a collection by."""
    return "/".join(part for part in (place.endpoint, place.database, place.collection) if part)
