"""The only synchronous shell: a Celery task holds its batch, runs the steps, commits.

Errors that know whether a retry helps end their jobs here; anything else reaches Celery, and `JobTask.on_failure`
marks the batch, so no job is ever left running without a worker.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar
from uuid import UUID

from celery import Task, shared_task

from ingestion import jobs, pipeline, reembed_jobs, reembedding, removal, repository
from ingestion.batch import HOLDINGS, Batch, held
from ingestion.models import Job
from ingestion.parsing import Overdue, Rejected
from ingestion.runtime import RecipeChanged, Runtime, of_tenant
from tenants.errors import TesseraError, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
_LONGEST_S = 3 * 3600
"""A task that takes longer is ended and its batch tried again; below the broker's visibility timeout."""
_WAITING_THREADS = 32
"""Threads that wait for the embedder, a disk or a store. By default there are four more than processors: fewer than the
calls that batches of all lanes have under way, and a note would wait behind those of long documents."""


class Shell:
    """The event loop and the opened resources of this worker process, shared by its tasks."""

    loop: asyncio.AbstractEventLoop
    runtime: Runtime

    @classmethod
    def open(cls, opening: Coroutine[Any, Any, Runtime]) -> None:
        """Run an event loop in a thread of its own and open the resources in it."""
        cls.loop = asyncio.new_event_loop()
        cls.loop.set_default_executor(ThreadPoolExecutor(_WAITING_THREADS, thread_name_prefix="waiting"))
        threading.Thread(target=cls.loop.run_forever, name="tasks", daemon=True).start()
        cls.runtime = cls.run(opening)

    @classmethod
    def run(cls, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop and wait for it, from the thread of a task."""
        return asyncio.run_coroutine_threadsafe(work, cls.loop).result()

    @classmethod
    def leave(cls, within_s: float) -> None:
        """Begin nothing new, and hand back what has not ended in so many seconds; from any thread, without waiting."""
        cls.loop.call_soon_threadsafe(HOLDINGS.leave, within_s)

    @classmethod
    def answers(cls, within_s: float) -> bool:
        """Say whether the event loop gets round in so many seconds, from another thread."""
        turned = threading.Event()
        cls.loop.call_soon_threadsafe(turned.set)
        return turned.wait(within_s)

    @classmethod
    def close(cls, closing: Coroutine[Any, Any, None]) -> None:
        """Close the resources; no task runs any more."""
        cls.run(closing)
        cls.loop.call_soon_threadsafe(cls.loop.stop)


async def bounded(work: Coroutine[Any, Any, None]) -> None:
    """Run work that must end within the longest time of a task."""
    async with asyncio.timeout(_LONGEST_S):
        await work


class JobTask(Task):  # type: ignore[misc]  # celery is untyped
    """A task whose unexpected failure ends its jobs as `internal_error`."""

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: dict[str, str], einfo: Any) -> None:
        """Mark what this batch still holds; the traceback is in the worker's log."""
        error = TesseraError(f"The worker failed unexpectedly ({type(exc).__name__}); see its log.")
        error.retryable = True
        try:
            Shell.run(fail_batch(Shell.runtime, UUID(kwargs["tenant_id"]), UUID(kwargs["batch_id"]), error))
        except Unavailable as away:
            log.warning("batch %s comes back when its lease runs out: %s", kwargs["batch_id"], away.detail)


def task(name: str) -> Callable[[Callable[..., None]], Any]:
    """Declare a task whose unexpected failure ends its jobs."""
    declared: Callable[[Callable[..., None]], Any]
    declared = shared_task(name=f"ingestion.{name}", base=JobTask, ignore_result=True)
    return declared


@task("ingest")
def ingest(*, tenant_id: str, batch_id: str) -> None:
    """Ingest the documents of a batch."""
    Shell.run(bounded(_ingest(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


@task("purge")
def purge(*, tenant_id: str, batch_id: str) -> None:
    """Remove replaced versions or a deleted document from every store."""
    Shell.run(bounded(_purge(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


@task("erase_tenant")
def erase_tenant(*, tenant_id: str, batch_id: str) -> None:
    """Erase a tenant."""
    Shell.run(bounded(_erase_tenant(Shell.runtime, UUID(tenant_id), UUID(batch_id))))


async def _ingest(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    async with held(runtime.database, runtime.settings, tenant_id, batch_id) as batch:
        if not batch.jobs:
            return
        try:
            await _ingest_held(await of_tenant(runtime, tenant_id), batch)
        except TesseraError as error:
            log.warning("batch %s of tenant %s: %s", batch_id, tenant_id, error.detail)
            await fail_batch(runtime, tenant_id, batch_id, error)


async def _ingest_held(runtime: Runtime, batch: Batch) -> None:
    async with runtime.database.tenant(batch.tenant_id) as session:
        versions = await repository.pending_versions(session, batch.jobs)
        await _skip_deleted(session, batch, versions.keys())
        await session.commit()
    if versions:
        async with aclosing(pipeline.steps(runtime, batch, versions)) as steps:
            async for step in steps:
                await _commit(runtime, batch, step)
        await _look_after(runtime, batch.tenant_id)
    log.info("tenant %s: %d documents, milliseconds %s", batch.tenant_id, len(batch.jobs), batch.watch.total())


async def _look_after(runtime: Runtime, tenant_id: UUID) -> None:
    """Queue upkeep where it is wanted: under the writer lock, since a tenant that was erased meanwhile gets no job."""
    database = runtime.database
    async with database.tenant(tenant_id) as session:
        if not await pipeline.wants_upkeep(session, runtime, tenant_id):
            return
    async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
        if await pipeline.wants_upkeep(session, runtime, tenant_id):
            await jobs.queue_partition(session, tenant_id)
            await session.commit()


async def _commit(runtime: Runtime, batch: Batch, step: pipeline.Step) -> None:
    database, tenant_id = runtime.database, batch.tenant_id
    if isinstance(step, pipeline.Embedded):
        async with database.writer_lock(tenant_id), database.tenant(tenant_id) as session:
            with batch.watch.step("write"):
                if await pipeline.plan_index(session, runtime, tenant_id):
                    await session.commit()
                await pipeline.write_group(session, runtime, batch, step)
                await session.commit()
        return
    async with database.tenant(tenant_id) as session:
        if isinstance(step, Rejected):
            await pipeline.reject(session, runtime, batch, [step])
        elif isinstance(step, Overdue):
            await jobs.to_slow_lane(session, tenant_id, batch.batch_id, step.job_id, kept=step.kept)
        else:
            await jobs.give_back(session, tenant_id, batch.batch_id, step.job_ids)
        await session.commit()


async def _skip_deleted(session: Any, batch: Batch, present: Any) -> None:
    gone = [job.id for job in batch.jobs if job.id not in present]
    if gone:
        held = await jobs.hold(session, batch.tenant_id, batch.batch_id, gone)
        await jobs.finish(session, batch.tenant_id, {job_id: {"superseded": True} for job_id in held})


async def _purge(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    forgotten: frozenset[int] = frozenset()

    async def before(session: Any, job: Job) -> None:
        nonlocal forgotten
        assert job.document_id is not None
        if await jobs.is_ingested(session, tenant_id, job.document_id):
            # Its worker may have lost the writer lock with the database, or its life, and what it sent to the engines
            # may still arrive: it is to go as well.
            raise Unavailable("The document is being ingested.", code="document_busy")
        forgotten = await removal.forget_document(session, runtime, tenant_id, job.document_id)

    async def work(session: Any, job: Job) -> dict[str, Any]:
        assert job.document_id is not None
        receipt = await removal.purge_document(session, runtime, tenant_id, job.document_id, forgotten)
        if await pipeline.wants_upkeep(session, runtime, tenant_id):
            await jobs.queue_partition(session, tenant_id)
        return receipt

    await one_job(runtime, tenant_id, batch_id, "purging", work, before=before)


async def _erase_tenant(runtime: Runtime, tenant_id: UUID, batch_id: UUID) -> None:
    async def work(session: Any, job: Job) -> dict[str, Any]:
        return await removal.erase_tenant(session, runtime, tenant_id, job.id)

    await one_job(runtime, tenant_id, batch_id, "erasing", work, erasing=True)


async def one_job(
    runtime: Runtime,
    tenant_id: UUID,
    batch_id: UUID,
    stage: str,
    work: Any,
    *,
    before: Any = None,
    erasing: bool = False,
) -> None:
    """Run a batch of one job under the writer lock: `before` in a transaction of its own, then `work`, whose result
    ends the job."""
    database = runtime.database
    async with held(database, runtime.settings, tenant_id, batch_id) as batch:
        if not batch.jobs:
            return
        batch.advance(stage, 0.1)
        scope = database.erasure if erasing else database.tenant
        try:
            async with AsyncExitStack() as stack:
                if erasing:  # a rebuild would make a collection after all have been dropped
                    await stack.enter_async_context(database.rebuild_lock(tenant_id))
                await stack.enter_async_context(database.writer_lock(tenant_id))
                session = await stack.enter_async_context(scope(tenant_id))
                [job] = batch.jobs
                if before is not None and await jobs.hold(session, tenant_id, batch_id, [job.id]):
                    await before(session, job)
                    await session.commit()
                if await jobs.hold(session, tenant_id, batch_id, [job.id]):
                    await jobs.finish(session, tenant_id, {job.id: await work(session, job)})
                await session.commit()
        except TesseraError as error:
            log.warning("%s for tenant %s: %s", stage, tenant_id, error.detail)
            await fail_batch(runtime, tenant_id, batch_id, error)


async def fail_batch(runtime: Runtime, tenant_id: UUID, batch_id: UUID, error: TesseraError) -> None:
    """End what a batch still holds, or let it be tried again; while a store is away, as often as it takes."""
    async with runtime.database.tenant(tenant_id) as session:
        if isinstance(error, (Unavailable, RecipeChanged)):
            await jobs.wait(session, tenant_id, batch_id, error)
            await session.commit()
            return
        ended = await jobs.of_batch(session, tenant_id, batch_id)
        errors = {job.id: error for job in ended}
        failed = await jobs.fail(session, tenant_id, errors, max_attempts=runtime.settings.max_attempts)
        documents = [job for job in ended if job.kind == "ingest" and job.id in failed]
        for version in (await repository.pending_versions(session, documents)).values():
            await repository.fail_version(session, version)
        await jobs.remove_traces(session, tenant_id, documents)
        if any(job.kind == reembed_jobs.KIND for job in ended):
            await reembedding.give_up(session, tenant_id)
        await session.commit()
