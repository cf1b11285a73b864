"""The tasks of sources: a run, and the preview of one. Both fetch and queue; neither takes the writer lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from itertools import islice
from typing import Any
from uuid import UUID

from ingestion import job_queue, jobs
from ingestion.batch import Batch, hand_back, held
from ingestion.runtime import Runtime
from ingestion.sources import preview, repository, sync
from ingestion.sources.config import whole
from ingestion.sources.connect import connected
from ingestion.sources.entries import Connector, Entry, Unchanged
from ingestion.sources.models import Source, SourceEntry
from ingestion.sources.reading import read_all
from ingestion.tasks import Shell, bounded, fail_batch, task
from tenants.errors import SourceUnavailable, TesseraError

log = logging.getLogger(__name__)
_AT_A_TIME = 16
"""Entries that are read and written together."""
_AHEAD, _PAUSE_S = 2000, 2.0
"""Documents of a tenant that may wait while a run queues more, and how long it waits otherwise."""
Work = Callable[[Runtime, Batch], Coroutine[Any, Any, None]]


@task("sync")
def sync_source(*, tenant_id: str, batch_id: str) -> None:
    """Begin a run of a source; it goes on in the background."""
    Shell.run(_begin(Shell.runtime, UUID(tenant_id), UUID(batch_id), _sync))


@task("preview")
def preview_source(*, tenant_id: str, batch_id: str) -> None:
    """Begin to find out what a run would do; it goes on in the background."""
    Shell.run(_begin(Shell.runtime, UUID(tenant_id), UUID(batch_id), _preview))


async def _begin(runtime: Runtime, tenant_id: UUID, batch_id: UUID, work: Work) -> None:
    async def lost(error: BaseException) -> None:
        shown = TesseraError(f"The worker failed unexpectedly ({type(error).__name__}); see its log.")
        shown.retryable = True
        await fail_batch(runtime, tenant_id, batch_id, shown)

    runtime.background.start(_held(runtime, tenant_id, batch_id, work), lost)


async def _held(runtime: Runtime, tenant_id: UUID, batch_id: UUID, work: Work) -> None:
    async with held(runtime.database, runtime.settings, tenant_id, batch_id) as batch:
        if not batch.jobs:
            return
        batch.advance("waiting", 0.0)
        try:
            async with runtime.background.turn(tenant_id):
                await bounded(work(runtime, batch))
        except sync.RunLost:
            log.info("a run of tenant %s was taken over or its source removed", tenant_id)
        except asyncio.CancelledError:
            await hand_back(runtime.database, tenant_id, batch_id)
            raise
        except TimeoutError:
            await _fail(runtime, batch, SourceUnavailable("The run took too long.", code="source_timeout"))
        except TesseraError as error:
            log.warning("a source of tenant %s: %s", tenant_id, error.code)
            await _fail(runtime, batch, error)


async def _fail(runtime: Runtime, batch: Batch, error: TesseraError) -> None:
    async with runtime.database.tenant(batch.tenant_id) as session:
        ended = await jobs.of_batch(session, batch.tenant_id, batch.batch_id)
        errors = {job.id: error for job in ended}
        failed = await jobs.fail(session, batch.tenant_id, errors, max_attempts=runtime.settings.max_attempts)
        if failed and batch.jobs[0].kind == "sync":
            await sync.fail(session, batch, error)
        await session.commit()


async def _sync(runtime: Runtime, batch: Batch) -> None:
    [job] = batch.jobs
    async with runtime.database.tenant(batch.tenant_id) as session:
        run = await sync.begin(session, job)
        await session.commit()
    batch.advance("reading", 0.0)
    unchanged = False
    async with _opened(runtime, run.source) as connector:
        try:
            async with aclosing(connector.batches()) as batches:
                async for entries in batches:
                    await _take_all(runtime, batch, run, connector, entries)
        except Unchanged:
            unchanged = True
        async with runtime.database.tenant(batch.tenant_id) as session:
            counts = await sync.finish(
                session, batch, run, cursor=connector.cursor, complete=connector.complete, unchanged=unchanged
            )
            await session.commit()
    log.info("source %s of tenant %s: %s", run.source.id, batch.tenant_id, counts)


async def _take_all(runtime: Runtime, batch: Batch, run: sync.Run, connector: Connector, entries: list[Entry]) -> None:
    run.entries += len(entries)
    sync.require_few(run, runtime.sources.settings.max_entries)
    left = iter(entries)
    while some := list(islice(left, _AT_A_TIME)):
        await _wait_for_room(runtime, batch)
        await _take(runtime, batch, run, connector, some)


async def _wait_for_room(runtime: Runtime, batch: Batch) -> None:
    """Let what was queued be ingested first, so that a large source does not fill the queue."""
    while True:
        async with runtime.database.tenant(batch.tenant_id) as session:
            waiting, _ = await job_queue.queued(session, batch.tenant_id)
        if waiting < min(_AHEAD, runtime.settings.queue_documents):
            return
        await asyncio.sleep(_PAUSE_S)


async def _take(runtime: Runtime, batch: Batch, run: sync.Run, connector: Connector, entries: list[Entry]) -> None:
    async with runtime.database.tenant(batch.tenant_id) as session:
        known = await repository.known_entries(session, run.source, [entry.key for entry in entries])
    done = {key for key, entry in known.items() if entry.run_id == run.row.id}
    fresh = {entry.key: entry for entry in entries if entry.key not in done}
    run.good += len(done)
    again = {entry.key: entry for entry in entries if entry.leads_on and entry.key in done}
    at_once = runtime.sources.settings.fetches_at_once
    everything = await read_all(connector, run.source, [*fresh.values(), *again.values()], known, at_once=at_once)
    outcomes = [outcome for outcome in everything if outcome.entry.key in fresh]
    try:
        run.note(outcomes)
        async with runtime.database.tenant(batch.tenant_id) as session:
            await sync.write(session, runtime.objects, batch, run, outcomes)
            await session.commit()
    finally:
        for outcome in everything:
            if outcome.incoming is not None:
                outcome.incoming.content.close()


async def _preview(runtime: Runtime, batch: Batch) -> None:
    [job] = batch.jobs
    async with runtime.database.tenant(batch.tenant_id) as session:
        source = await repository.get(session, batch.tenant_id, UUID(job.payload["source_id"]))
    batch.advance("reading", 0.0)

    async def kept(keys: Sequence[str] | None) -> Mapping[str, SourceEntry]:
        async with runtime.database.tenant(batch.tenant_id) as session:
            return await repository.known_entries(session, source, keys)

    async with _opened(runtime, source) as connector:
        at_once = runtime.sources.settings.fetches_at_once
        found = await preview.look(connector, source, kept, at_once=at_once)
    async with runtime.database.tenant(batch.tenant_id) as session:
        if await jobs.hold(session, batch.tenant_id, batch.batch_id, [job.id]):
            await jobs.finish(session, batch.tenant_id, {job.id: found})
        await session.commit()


def _opened(runtime: Runtime, source: Source) -> AbstractAsyncContextManager[Connector]:
    tools = runtime.sources
    credentials = tools.vault.open(source.tenant_id, source.id, source.sealed) if source.sealed is not None else None
    config = whole(source.kind, source.config, credentials)
    return connected(tools, runtime.settings, source.tenant_id, config, source.cursor)
