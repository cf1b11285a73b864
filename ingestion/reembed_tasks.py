"""A tenant moves to another embedding model or chunking, a slice of work at a time.

After each slice the job waits for its next turn, so that uploads and other tenants come in between. How far it is
stands in the job's payload and is committed with the documents written: a worker that dies loses the documents it had
in hand, nothing else. One slice at a time runs in a worker process.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs, reembedding, repository
from ingestion.batch import Batch, held
from ingestion.models import Job
from ingestion.reembed_jobs import PAUSED, end_cancelled, put_back
from ingestion.reembedding import Remade
from ingestion.runtime import Runtime, following
from ingestion.tasks import Shell, bounded, fail_batch, task
from shards import editions
from shards.catalog import Header, Recipe
from shards.catalog_postgres import PostgresCatalog
from shards.editions import NextEdition
from shards.models import DocumentVersion
from shards.placement import first_space, may_stay, next_place, space_of
from tenants.errors import TesseraError
from tenants.repository import placement_of

log = logging.getLogger(__name__)
_SLICE_S = 5.0
_BUSY = timedelta(seconds=1)
_PATIENCE = 5
"""Looks that found more documents each time, after which one is impatient."""
_FAILED_SHOWN = 100


@dataclass
class _Turn:
    """The worker that has its slice now, if any."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


_TURN = _Turn()


@dataclass(frozen=True)
class _Slice:
    """What the steps of one slice share."""

    runtime: Runtime
    batch: Batch
    header: Header


@dataclass(frozen=True)
class _Found:
    """Versions that lack in the next edition from the cursor on, and whether these are all. When every look finds some
    more, one is `impatient`: they are embedded under the writer lock, so that no more can come."""

    versions: list[DocumentVersion]
    complete: bool
    impatient: bool


@task("reembed")
def reembed(*, tenant_id: str, batch_id: str) -> None:
    """Do a slice of the tenant's move to another embedding model or chunking."""
    Shell.run(bounded(_reembed(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


async def _reembed(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    async with held(runtime.database, runtime.settings, tenant_id, batch_id) as batch:
        try:
            if not batch.jobs:  # lost too many workers, or another worker has it
                await _give_up(runtime, tenant_id)
            elif _TURN.lock.locked():
                await _wait(runtime, batch)
            else:
                async with _TURN.lock, runtime.database.free_rebuild_lock(tenant_id) as free:
                    await (_slice(runtime, batch) if free else _wait(runtime, batch))
        except TesseraError as error:
            log.warning("moving tenant %s to another recipe: %s", tenant_id, error.detail)
            await fail_batch(runtime, tenant_id, batch_id, error)


async def _give_up(runtime: Runtime, tenant_id: UUID) -> None:
    async with runtime.database.tenant(tenant_id) as session:
        await reembedding.give_up(session, tenant_id)
        await session.commit()


async def _wait(runtime: Runtime, batch: Batch) -> None:
    async with runtime.database.tenant(batch.tenant_id) as session:
        for job in await jobs.of_batch(session, batch.tenant_id, batch.batch_id):
            put_back(job, until=datetime.now(UTC) + _BUSY, attempts=max(0, job.attempts - 1))
        await session.commit()


async def _slice(runtime: Runtime, batch: Batch) -> None:
    began = time.monotonic()
    batch.advance("embedding", batch.jobs[0].progress)
    header = await _begun(runtime, batch)
    if header is None:
        return
    own = _Slice(await following(runtime, header.recipe), batch, header)
    while await _step(own):
        if time.monotonic() - began > _SLICE_S:
            async with runtime.database.tenant(batch.tenant_id) as session:
                for job in await jobs.of_batch(session, batch.tenant_id, batch.batch_id):
                    put_back(job)
                await session.commit()
            return


async def _begun(runtime: Runtime, batch: Batch) -> Header | None:
    """Return the next edition, made in the first slice; None when the job is not to go on."""
    tenant_id = batch.tenant_id
    async with runtime.database.writer_lock(tenant_id), runtime.database.tenant(tenant_id) as session:
        catalog = PostgresCatalog(session, tenant_id)
        job = await _wanted(session, batch)
        header: Header | None = None
        if job is not None:
            first = "generation" not in job.payload
            header = None if first else await editions.embedding(catalog, job.payload["generation"])
            if first or (header is not None and not await _may_stay(session, runtime, header)):
                header = await _begin(session, runtime, job)
            if header is None:
                end_cancelled(job)
        await session.commit()
        if header is not None:
            await editions.prepare(catalog, runtime.indexes.vectors, header)
            await session.commit()
    return header


async def _begin(session: AsyncSession, runtime: Runtime, job: Job) -> Header:
    """Begin the move, or begin it anew; what was made of an earlier one is dropped."""
    catalog = PostgresCatalog(session, job.tenant_id)
    if await catalog.generations("embedding"):  # it was cancelled, or lies where the tenant is not to be any more
        jobs.queue_drop(session, job.tenant_id)
    header = await editions.begin(catalog, await _next(session, runtime, job))
    documents = await repository.count_documents(session, job.tenant_id)
    state = {"cursor": 0, "documents": 0, "chunks": 0, "looks": 0, "failed": [], "failures": 0, "empty": []}
    job.payload, job.progress = job.payload | state | {"generation": header.number, "of": documents}, 0.0
    return header


async def _may_stay(session: AsyncSession, runtime: Runtime, header: Header) -> bool:
    """Say whether the next edition may go on where it was begun: the tenant may have been moved since."""
    tenant_id = header.space.tenant_id
    live = await PostgresCatalog(session, tenant_id).live()
    choice = await placement_of(session, tenant_id)
    if live is not None:
        return may_stay(header.space, live.space, choice)
    first = first_space(tenant_id, header.number, header.space.dim, choice, runtime.indexes.settings)
    return first == header.space


async def _next(session: AsyncSession, runtime: Runtime, job: Job) -> NextEdition:
    """Return where and how the next edition is made; what is not asked for is as it was."""
    tenant_id, asked = job.tenant_id, job.payload
    catalog = PostgresCatalog(session, tenant_id)
    live, number = await catalog.live(), await catalog.last_number() + 1
    before = runtime.indexes.first_recipe if live is None else live.recipe
    recipe = Recipe(asked.get("embedding_model") or before.model, asked.get("chunk_tokens") or before.chunk_tokens)
    dim, settings = runtime.models.facts(recipe.model).dim, runtime.indexes.settings
    choice = await placement_of(session, tenant_id)
    if live is None:
        return NextEdition(first_space(tenant_id, number, dim, choice, settings), recipe)
    return NextEdition(space_of(tenant_id, number, dim, *next_place(live.space, choice), settings), recipe)


async def _wanted(session: AsyncSession, batch: Batch) -> Job | None:
    """Lock the job and return it; None when it is not ours any more, cancelled perhaps, or was paused."""
    found = await jobs.of_batch(session, batch.tenant_id, batch.batch_id)
    if not found:
        return None
    [job] = found
    if job.payload["wish"] == "pause":
        put_back(job, until=PAUSED)
        return None
    return job


async def _step(own: _Slice) -> bool:
    """Embed some documents and write them; return False when the slice is over: done, paused, cancelled."""
    runtime, tenant_id = own.runtime, own.batch.tenant_id
    found = await _look(own)
    made = None if found.impatient else await reembedding.remade(runtime, tenant_id, found.versions)
    async with runtime.database.writer_lock(tenant_id):
        if made is None:  # before the transaction, in which writers of a pool would wait too
            found = await _look(own)
            made = await reembedding.remade(runtime, tenant_id, found.versions, calmly=False)
        async with runtime.database.tenant(tenant_id) as session:
            job = await _wanted(session, own.batch)
            if job is None:
                await session.commit()
                return False
            await _record(session, own, job, made, found)
            over = found.complete and await _nothing_lacks(session, own, job)
            if over:
                result = await reembedding.switch(session, runtime, own.header, cells=job.payload.get("cells"))
                await session.flush()
                await jobs.finish(session, tenant_id, {job.id: result | _counts(job.payload)})
            await session.commit()
    return not over


async def _look(own: _Slice) -> _Found:
    tenant_id, [job] = own.batch.tenant_id, own.batch.jobs
    async with own.runtime.database.tenant(tenant_id) as session:
        state = (await jobs.get_job(session, tenant_id, job.id)).payload
        versions, complete = await reembedding.lacking(
            session, tenant_id, own.header.number, after=state["cursor"], without=state["empty"]
        )
    return _Found(versions, complete, impatient=complete and state["looks"] >= _PATIENCE)


async def _nothing_lacks(session: AsyncSession, own: _Slice, job: Job) -> bool:
    """Look from the beginning, under the writer lock."""
    rest, _ = await reembedding.lacking(session, job.tenant_id, own.header.number, without=job.payload["empty"])
    job.payload = job.payload | {"looks": job.payload["looks"] + 1}
    return not rest


async def _record(session: AsyncSession, own: _Slice, job: Job, made: Remade, found: _Found) -> None:
    """Write documents and, in the same transaction, how far the job is."""
    written = await reembedding.write(session, own.runtime, own.header, made)
    state: dict[str, Any] = job.payload
    failed = [
        {"document_id": str(one.version.document_id), "code": made.failed[one.version.document_id]}
        for one in written
        if one.version.document_id in made.failed
    ]
    documents = state["documents"] + len(written)
    job.payload = state | {
        "cursor": 0 if found.complete else found.versions[-1].version_no,
        "documents": documents,
        "chunks": state["chunks"] + sum(len(one.chunks) for one in written),
        "failed": [*state["failed"], *failed][:_FAILED_SHOWN],
        "failures": state["failures"] + len(failed),
        "empty": state["empty"] + [one.version.version_no for one in written if not one.chunks],
    }
    job.attempts, job.error, job.progress = 1, None, min(0.99, documents / max(state["of"], documents, 1))
    own.batch.advance("embedding", job.progress)


def _counts(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "documents": state["documents"],
        "chunks": state["chunks"],
        "documents_failed": state["failures"],
        "failed": state["failed"],
    }
