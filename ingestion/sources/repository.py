"""Sources, their clocks and entries in the database. Every function takes an open session; none commits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Text, any_, delete, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from ingestion.deletes import delete_documents
from ingestion.sources.models import Source, SourceClock, SourceEntry, SourceRun
from ingestion.sources.schedule import next_time
from shards.models import Document
from tenants.cursor import Position
from tenants.errors import Conflict, NotFound
from tenants.models import Tenant
from tenants.repository import newest_first

_LATEST = 200
"""Sources that the metrics name, those first that went longest without a run."""


async def create(session: AsyncSession, source: Source, *, most: int) -> SourceClock:
    """Add a source and its clock.

    Raises:
        Conflict: its name is taken, or the tenant has `most` already.
    """
    await lock_names(session, source.tenant_id)
    count = select(func.count()).select_from(Source).where(Source.tenant_id == source.tenant_id)
    if (await session.scalar(count) or 0) >= most:
        raise Conflict(f"The tenant has {most} sources already.", code="too_many_sources")
    await require_free_name(session, source.tenant_id, source.name)
    session.add(source)
    await session.flush()
    clock = SourceClock(
        tenant_id=source.tenant_id, source_id=source.id, next_run_at=due_next(source), runs_done=0, runs_failed=0
    )
    session.add(clock)
    return clock


async def lock_names(session: AsyncSession, tenant_id: UUID) -> None:
    """Let the sources of a tenant be named one after the other, until the transaction ends."""
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:id, 9))"), {"id": str(tenant_id)})


async def require_free_name(session: AsyncSession, tenant_id: UUID, name: str) -> None:
    """Raise `Conflict` when a source of the tenant has this name; the caller holds `lock_names`."""
    taken = select(Source.id).where(Source.tenant_id == tenant_id, Source.name == name)
    if await session.scalar(taken) is not None:
        raise Conflict(f"There is a source {name!r} already.", code="source_name_taken")


def due_next(source: Source) -> datetime | None:
    """Return when a source is due next; None without a schedule and while it is paused."""
    if source.cron is None or source.timezone is None or source.state != "active":
        return None
    return next_time(source.cron, source.timezone, datetime.now(UTC))


async def get(session: AsyncSession, tenant_id: UUID, source_id: UUID, *, lock: bool = False) -> Source:
    """Return a source; raise `NotFound` for an unknown id. With `lock`, its runs and its owner wait for each other."""
    query = select(Source).where(Source.tenant_id == tenant_id, Source.id == source_id)
    found: Source | None = await session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound("There is no source with this id.")
    return found


async def clock_of(session: AsyncSession, source: Source) -> SourceClock:
    """Return a source's clock."""
    return await session.get_one(SourceClock, (source.tenant_id, source.id))


async def list_sources(session: AsyncSession, tenant_id: UUID, *, after: Position | None, limit: int) -> list[Source]:
    """Return up to `limit` + 1 sources, newest first."""
    query = select(Source).where(Source.tenant_id == tenant_id)
    return await newest_first(session, query, Source, after=after, limit=limit)


async def clocks_of(session: AsyncSession, tenant_id: UUID, source_ids: Iterable[UUID]) -> dict[UUID, SourceClock]:
    """Return the clocks of sources."""
    query = select(SourceClock).where(SourceClock.tenant_id == tenant_id, SourceClock.source_id.in_(list(source_ids)))
    return {clock.source_id: clock for clock in await session.scalars(query)}


async def rename_documents(session: AsyncSession, source: Source, name: str) -> None:
    """Let the documents of a source name it as it is called from now on."""
    mine = select(SourceEntry.document_id).where(*_entries_of(source))
    await session.execute(
        update(Document)
        .where(Document.tenant_id == source.tenant_id, Document.id.in_(mine), Document.source == source.name)
        .values(source=name)
    )


async def known_entries(
    session: AsyncSession, source: Source, keys: Sequence[str] | None = None
) -> dict[str, SourceEntry]:
    """Return what was kept about entries, by key; about all without keys."""
    query = select(SourceEntry).where(*_entries_of(source))
    if keys is not None:
        query = query.where(SourceEntry.key == any_(literal(list(keys), ARRAY(Text))))
    return {entry.key: entry for entry in await session.scalars(query)}


async def keep_entries(session: AsyncSession, rows: Sequence[dict[str, Any]]) -> None:
    """Write what a run found out about entries; `rows` have every column but `updated_at`."""
    if not rows:
        return
    statement = insert(SourceEntry)
    changed = {
        name: statement.excluded[name]
        for name in ("document_id", "etag", "last_modified", "stamp", "content_sha256", "run_id", "misses")
    }
    upsert = statement.on_conflict_do_update(
        index_elements=["tenant_id", "source_id", "key"], set_=changed | {"updated_at": func.now()}
    )
    await session.execute(upsert, list(rows))


@dataclass(frozen=True)
class Missing:
    """How many entries a source had, how many this run met, and how many it did not."""

    before: int
    met: int


async def count_missing(
    session: AsyncSession, source: Source, run_id: UUID, *, failed: Sequence[str], gone: Sequence[str]
) -> Missing:
    """Note in how many runs in a row each entry has been missing.

    Entries that failed were there; those in `gone` were listed, but the server says that they are no more.
    """
    mine = _entries_of(source)
    for keys, found in ((failed, {"run_id": run_id, "misses": 0}), (gone, {"run_id": run_id})):
        listed = SourceEntry.key == any_(literal(list(keys), ARRAY(Text)))
        await session.execute(update(SourceEntry).where(*mine, listed).values(**found))
    absent = (SourceEntry.run_id != run_id) | (SourceEntry.key == any_(literal(list(gone), ARRAY(Text))))
    await session.execute(update(SourceEntry).where(*mine, absent).values(misses=SourceEntry.misses + 1))
    counts = select(func.count(), func.count().filter(SourceEntry.run_id == run_id)).where(*mine)
    before, met = (await session.execute(counts)).one()
    return Missing(int(before), int(met))


async def count_still_missing(session: AsyncSession, source: Source) -> int:
    """Note another run in which the source was as before, so that what was missing still is; return what is there."""
    mine = _entries_of(source)
    await session.execute(
        update(SourceEntry).where(*mine, SourceEntry.misses > 0).values(misses=SourceEntry.misses + 1)
    )
    there = select(func.count()).select_from(SourceEntry).where(*mine, SourceEntry.misses == 0)
    return int(await session.scalar(there) or 0)


async def vanish(
    session: AsyncSession, source: Source, run_id: UUID, *, needed: int, gone: Sequence[str], gone_needed: int
) -> int:
    """Forget the entries that were missing often enough, and delete their documents unless they are to be kept.

    Those in `gone` are listed still, and have to have been gone `gone_needed` times. Returns how many vanished.
    """
    absent = (SourceEntry.run_id != run_id) & (SourceEntry.misses >= needed)
    is_gone = SourceEntry.key == any_(literal(list(gone), ARRAY(Text)))
    often = absent | (is_gone & (SourceEntry.misses >= gone_needed))
    forgotten = delete(SourceEntry).where(*_entries_of(source), often).returning(SourceEntry.document_id)
    documents = list(await session.scalars(forgotten))
    if source.on_vanish == "delete":
        await delete_documents(session, source.tenant_id, [one for one in documents if one is not None])
    return len(documents)


async def remove(session: AsyncSession, source: Source, *, documents: bool) -> int:
    """Remove a source, with its documents when asked; return how many were deleted."""
    deleted = 0
    if documents:
        mine = select(SourceEntry.document_id).where(*_entries_of(source), SourceEntry.document_id.is_not(None))
        found = [one for one in await session.scalars(mine) if one]
        deleted = len(await delete_documents(session, source.tenant_id, found))
    for model in (SourceEntry, SourceRun, SourceClock):
        await session.execute(delete(model).where(model.tenant_id == source.tenant_id, model.source_id == source.id))
    await session.execute(delete(Source).where(Source.tenant_id == source.tenant_id, Source.id == source.id))
    return deleted


async def set_cursor(session: AsyncSession, source: Source, cursor: dict[str, Any]) -> None:
    """Keep what a run knows of the source as a whole, unless its owner changed it meanwhile."""
    same = (Source.tenant_id == source.tenant_id, Source.id == source.id, Source.updated_at == source.updated_at)
    await session.execute(
        update(Source).where(*same).values(cursor=cursor).execution_options(synchronize_session=False)
    )


async def due_sources(session: AsyncSession, limit: int) -> list[tuple[UUID, UUID]]:
    """Return tenant and id of sources that are due, the longest overdue first, in a dispatcher session."""
    query = (
        select(SourceClock.tenant_id, SourceClock.source_id)
        .join(Tenant, Tenant.id == SourceClock.tenant_id)
        .where(SourceClock.next_run_at <= func.now(), Tenant.state == "active")
        .order_by(SourceClock.next_run_at)
        .limit(limit)
    )
    return [(row.tenant_id, row.source_id) for row in await session.execute(query)]


@dataclass(frozen=True)
class Freshness:
    """How the sources of the installation stand; `clocks` are of those that went longest without a good run."""

    sources: int
    done: int
    failed: int
    clocks: list[tuple[str, UUID, datetime]]


async def freshness(session: AsyncSession) -> Freshness:
    """Return how the sources stand, in an admin session."""
    sums = func.coalesce(func.sum(SourceClock.runs_done), 0), func.coalesce(func.sum(SourceClock.runs_failed), 0)
    count, done, failed = (await session.execute(select(func.count(), *sums).select_from(SourceClock))).one()
    oldest = (
        select(Tenant.slug, SourceClock.source_id, SourceClock.last_success_at)
        .join(Tenant, Tenant.id == SourceClock.tenant_id)
        .where(SourceClock.last_success_at.is_not(None))
        .order_by(SourceClock.last_success_at)
        .limit(_LATEST)
    )
    clocks = [(row.slug, row.source_id, row.last_success_at) for row in await session.execute(oldest)]
    return Freshness(int(count), int(done), int(failed), clocks)


def new_source(tenant_id: UUID, **values: Any) -> Source:
    """Return a source that is active, to be given to `create`."""
    now = datetime.now(UTC)
    return Source(tenant_id=tenant_id, id=uuid7(), state="active", cursor={}, created_at=now, updated_at=now, **values)


def _entries_of(source: Source) -> tuple[Any, ...]:
    return SourceEntry.tenant_id == source.tenant_id, SourceEntry.source_id == source.id
