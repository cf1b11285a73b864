"""The upkeep of a tenant's index: moved to the tier it belongs to, trained anew, its cells divided and joined, its
threshold calibrated, its memory released, what was replaced dropped.

Queries and uploads go on meanwhile: only the last step of each change holds the writer lock. While the vector store is
away, upkeep waits for it however long that takes.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from ingestion import jobs, reembedding, repository
from ingestion.batch import Batch, held
from ingestion.models import Job
from ingestion.own_sentences import embedded, own_sentences
from ingestion.runtime import Runtime, of_tenant
from ingestion.tasks import Shell, bounded, fail_batch, one_job, task
from shards.catalog import CellChange
from shards.catalog_postgres import PostgresCatalog
from shards.editions import dead_editions
from shards.placement import Target, target
from shards.rebuild import Rebuild
from shards.recalibration import LEAST, is_due, last_samples, recalibrated, recalibrated_on_sentences
from shards.report import heat_of
from shards.room import rooms
from shards.usage import is_cold, released
from tenants.errors import TesseraError
from tenants.repository import placement_of

log = logging.getLogger(__name__)
_CATCH_UPS = 5
_LITTLE = 500
"""Chunks that a rebuild may still lack when it takes the writer lock."""


@task("partition")
def partition(*, tenant_id: str, batch_id: str) -> None:
    """Bring the tenant's index to where and how it should be."""
    Shell.run(bounded(_partition(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


@task("release")
def release(*, tenant_id: str, batch_id: str) -> None:
    """Let the engine free the memory of an index that nobody uses."""
    Shell.run(bounded(_release(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


@task("drop_generation")
def drop_generation(*, tenant_id: str, batch_id: str) -> None:
    """Drop generations that no query reads any more."""
    Shell.run(bounded(_drop_generation(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


async def _partition(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    async with held(runtime.database, runtime.settings, tenant_id, batch_id) as batch:
        if not batch.jobs:
            return
        batch.advance("training", 0.1)
        try:
            async with runtime.database.rebuild_lock(tenant_id):
                await _upkeep(await of_tenant(runtime, tenant_id), batch)
        except TesseraError as error:
            log.warning("upkeep of tenant %s: %s", tenant_id, error.detail)
            await fail_batch(runtime, tenant_id, batch_id, error)


async def _upkeep(runtime: Runtime, batch: Batch) -> None:
    """Make the next generation when one is due, else divide and join the cells that have the wrong size."""
    indexes, tenant_id = runtime.indexes, batch.tenant_id
    [job] = batch.jobs
    rebuilt: Rebuild | None = None
    wanted: Target | None = None
    changes: list[CellChange] = []
    async with runtime.database.dispatcher() as session:
        room = {name: one.free for name, one in (await rooms(session, indexes.vectors.budgets)).items()}
    async with runtime.database.tenant(tenant_id) as session:
        catalog = PostgresCatalog(session, tenant_id)
        placement = await placement_of(session, tenant_id)
        live = await indexes.live(catalog)
        rows = await repository.count_chunks(session, tenant_id)
        if live is not None:
            await indexes.abandon(catalog, live)
            free = room.get(placement.endpoint, 0)
            wanted = target(live, rows, placement, indexes.settings, room=free, asked=job.payload.get("cells"))
            if wanted is not None:
                rebuilt = await indexes.plan_next(catalog, live, wanted)
            else:
                free = room.get(live.space.endpoint, 0)
                changes = await indexes.plan_changes(catalog, live, await heat_of(session, live), room=free)
            await session.commit()
    if rebuilt is not None and wanted is not None:
        result: dict[str, Any] = {**await _rebuild(runtime, batch, rebuilt), "tier": wanted.tier, "why": wanted.why}
    else:
        done = [change.kind for change in changes if await _reshape(runtime, batch, change)]
        result = {"split": done.count("split"), "merged": done.count("merge")}
        result["calibrated"] = await _recalibrate(runtime, tenant_id, asked=bool(job.payload.get("calibrate")))
        if live is not None and indexes.wants_upkeep(live, rows, placement) and not changes:
            result["no_room"] = True
            log.warning("tenant %s would get more cells if the engine had room: `tessera shards`", tenant_id)
    async with runtime.database.tenant(tenant_id) as session:
        if await jobs.hold(session, tenant_id, batch.batch_id, [job.id]):
            await jobs.finish(session, tenant_id, {job.id: result})
            if rebuilt is not None or changes:
                jobs.queue_drop(session, tenant_id)
            await session.commit()


async def _rebuild(runtime: Runtime, batch: Batch, rebuilt: Rebuild) -> dict[str, Any]:
    """Fill the next generation beside the live one; only the last step holds the writer lock."""
    database, indexes, tenant_id = runtime.database, runtime.indexes, batch.tenant_id
    async with database.tenant(tenant_id) as session:
        sentences = await own_sentences(session, tenant_id, indexes.settings.calibration_sentences)
    questions = await embedded(runtime.embedder, sentences if rebuilt.wanted > 1 else [])
    async with database.tenant(tenant_id) as session:
        await rebuilt.fill(PostgresCatalog(session, tenant_id), questions)
    for _ in range(_CATCH_UPS):
        async with database.tenant(tenant_id) as session:
            catalog = PostgresCatalog(session, tenant_id)
            changed = await rebuilt.catch_up(catalog)
            await rebuilt.record(catalog)
            await session.commit()
        rebuilt.recorded()
        if changed < _LITTLE:
            break
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        if await jobs.hold(session, tenant_id, batch.batch_id, [job.id for job in batch.jobs]):
            catalog = PostgresCatalog(session, tenant_id)
            await rebuilt.catch_up(catalog)
            await indexes.adopt(catalog, rebuilt)
            await session.commit()
    micros = len(rebuilt.micros.micro)
    return {"generation": rebuilt.number, "cells": rebuilt.cells, "micros": micros, "rows": rebuilt.rows}


async def _recalibrate(runtime: Runtime, tenant_id: UUID, *, asked: bool) -> bool:
    """Let the threshold rest on the questions that were asked, once they are enough, or when recall fell. Whoever asks
    for it before that gets it from sentences of the chunks as they lie now."""
    async with runtime.database.tenant(tenant_id) as session:
        catalog = PostgresCatalog(session, tenant_id)
        live = await runtime.indexes.live(catalog)
        if live is None or live.routing is None:
            return False
        samples = await last_samples(session, tenant_id, live.number)
        if is_due(live, samples, runtime.indexes.settings.recall_target) or (asked and len(samples) >= LEAST):
            found = await recalibrated(session, live, samples)
        elif asked:
            sentences = await own_sentences(session, tenant_id, runtime.indexes.settings.calibration_sentences)
            questions = await embedded(runtime.embedder, sentences)
            found = await recalibrated_on_sentences(catalog, runtime.indexes.vectors, live, questions)
        else:
            return False
        await catalog.set(live.number, calibration=found)
        await session.commit()
        return True


async def _reshape(runtime: Runtime, batch: Batch, change: CellChange) -> bool:
    """Copy the rows of cells into others beside them; only the last step holds the writer lock."""
    database, indexes, tenant_id = runtime.database, runtime.indexes, batch.tenant_id
    async with database.tenant(tenant_id) as session:
        live = await indexes.live(PostgresCatalog(session, tenant_id))
    assert live is not None
    reshaped = indexes.reshape(live, change)
    if not await reshaped.fill():
        return False
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        if not await jobs.hold(session, tenant_id, batch.batch_id, [job.id for job in batch.jobs]):
            return False
        catalog = PostgresCatalog(session, tenant_id)
        await reshaped.catch_up(catalog)
        await indexes.flip(catalog, reshaped)
        await session.commit()
    return True


async def _release(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    async def work(session: Any, job: Job) -> dict[str, Any]:
        live = await runtime.indexes.live(PostgresCatalog(session, tenant_id))
        if live is None or not await is_cold(session, tenant_id, runtime.indexes.settings.release_after_s):
            return {"released": False}
        done = await runtime.indexes.vectors.release(live.space)
        if done:
            await released(session, tenant_id)
        return {"released": done}

    await one_job(runtime, tenant_id, batch_id, "releasing", work)


async def _drop_generation(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    grace = jobs.READERS_GRACE

    async def work(session: Any, job: Job) -> dict[str, Any]:
        catalog = PostgresCatalog(session, tenant_id)
        chunks = await repository.delete_editions(session, tenant_id, await dead_editions(catalog, grace=grace))
        return {"dropped": await runtime.indexes.drop_retired(catalog, grace=grace), "chunks": chunks}

    async with runtime.database.tenant(tenant_id) as session:
        await reembedding.give_up(session, tenant_id)
        await session.commit()
    await _drop_chunks(runtime, tenant_id)
    await one_job(runtime, tenant_id, batch_id, "dropping", work)


async def _drop_chunks(runtime: Runtime, tenant_id: UUID) -> None:
    """Delete most chunks of dead editions, some documents at a time and without the writer lock: they may be many."""
    async with runtime.database.tenant(tenant_id) as session:
        dead = await dead_editions(PostgresCatalog(session, tenant_id), grace=jobs.READERS_GRACE)
    last = UUID(int=0) if dead else None
    while last is not None:
        async with runtime.database.tenant(tenant_id) as session:
            last = await repository.delete_editions_of_some(session, tenant_id, dead, after=last)
            await session.commit()
