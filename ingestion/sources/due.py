"""Queues the runs of sources that are due. A source that was due several times while nobody looked runs once."""

from __future__ import annotations

from datetime import UTC, datetime

from ingestion.sources import repository, runs
from tenants.db import Database
from tenants.errors import NotFound

_AT_A_TIME = 100


async def queue_due(database: Database) -> int:
    """Queue a run of each source that is due and set when it is due next; return how many were queued."""
    async with database.dispatcher() as session:
        due = await repository.due_sources(session, _AT_A_TIME)
    queued = 0
    for tenant_id, source_id in due:
        async with database.tenant(tenant_id) as session, session.begin():
            try:
                source = await repository.get(session, tenant_id, source_id, lock=True)
            except NotFound:  # removed meanwhile
                continue
            clock = await repository.clock_of(session, source)
            if clock.next_run_at is None or clock.next_run_at > datetime.now(UTC):  # paused or changed meanwhile
                continue
            clock.next_run_at = repository.due_next(source)
            await runs.queue(session, source, runs.SCHEDULE)
            queued += 1
    return queued
