"""Jobs: made by the API in the transaction of their cause, given out by the dispatcher, finished under their fence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from ingestion.models import Job
from tenants.cursor import Position
from tenants.errors import NotFound, TesseraError
from tenants.repository import newest_first

WAITING = ("queued", "retrying")
UNFINISHED = ("queued", "retrying", "running")
_RETRY_AFTER = (timedelta(seconds=1), timedelta(seconds=10))


def new_job(tenant_id: UUID, kind: str, *, delay: timedelta | None = None, **values: Any) -> Job:
    """Return a queued job, to be added to the session of the transaction that causes it."""
    now = datetime.now(UTC)
    not_before = now + delay if delay else None
    return Job(
        tenant_id=tenant_id,
        id=uuid7(),
        kind=kind,
        state="queued",
        progress=0.0,
        attempts=0,
        created_at=now,
        not_before=not_before,
        **values,
    )


async def queue_partition(session: AsyncSession, tenant_id: UUID) -> None:
    """Queue the training of the tenant's cells unless one waits or runs already."""
    values = {"tenant_id": tenant_id, "id": uuid7(), "kind": "partition", "state": "queued", "created_at": func.now()}
    await session.execute(insert(Job).values(values).on_conflict_do_nothing())


async def get_job(session: AsyncSession, tenant_id: UUID, job_id: UUID) -> Job:
    """Return a job; raise `NotFound` for an unknown id."""
    job = await session.get(Job, (tenant_id, job_id))
    if job is None:
        raise NotFound("There is no job with this id.")
    return job


async def get_erasure(session: AsyncSession, job_id: UUID) -> Job:
    """Return a tenant's erasure job, in an admin session."""
    found: Job | None = await session.scalar(select(Job).where(Job.id == job_id, Job.kind == "erase_tenant"))
    if found is None:
        raise NotFound("There is no job with this id.")
    return found


async def list_jobs(
    session: AsyncSession, tenant_id: UUID, *, state: str | None, after: Position | None, limit: int
) -> list[Job]:
    """Return up to `limit` + 1 jobs, newest first."""
    query = select(Job).where(Job.tenant_id == tenant_id)
    if state is not None:
        query = query.where(Job.state == state)
    return await newest_first(session, query, Job, after=after, limit=limit)


async def latest_for_document(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> Job | None:
    """Return the newest job of a document."""
    query = (
        select(Job)
        .where(Job.tenant_id == tenant_id, Job.document_id == document_id)
        .order_by(Job.created_at.desc())
        .limit(1)
    )
    found: Job | None = await session.scalar(query)
    return found


async def claim(
    session: AsyncSession, tenant_id: UUID, batch_id: UUID, *, lease: timedelta, max_attempts: int
) -> list[Job]:
    """Start the jobs of a batch: count the attempt before the work, and fail those that had too many.

    Returns the jobs to work on, oldest first; none when the batch was given to another worker meanwhile.
    """
    query = (
        select(Job)
        .where(Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.state.in_(UNFINISHED))
        .order_by(Job.created_at, Job.id)
        .with_for_update()
    )
    started = []
    for job in await session.scalars(query):
        if job.attempts >= max_attempts:
            _end(job, "failed", error=_worker_lost(job.attempts))
            continue
        job.attempts += 1
        job.state, job.stage, job.progress = "running", "starting", 0.0
        job.started_at = job.started_at or datetime.now(UTC)
        job.lease_until = datetime.now(UTC) + lease
        started.append(job)
    return started


async def report(
    session: AsyncSession, tenant_id: UUID, batch_id: UUID, *, lease: timedelta, stage: str, progress: float
) -> None:
    """Renew the lease of a batch and say how far it is."""
    await session.execute(
        update(Job)
        .where(Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.state == "running")
        .values(lease_until=func.now() + lease, stage=stage, progress=progress)
    )


async def hold(session: AsyncSession, tenant_id: UUID, batch_id: UUID, job_ids: Iterable[UUID]) -> dict[UUID, Job]:
    """Lock the jobs that still belong to this batch: the fence before anything is finished."""
    query = (
        select(Job)
        .where(Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.id.in_(list(job_ids)), Job.state == "running")
        .with_for_update()
    )
    return {job.id: job for job in await session.scalars(query)}


async def of_batch(session: AsyncSession, tenant_id: UUID, batch_id: UUID) -> Sequence[Job]:
    """Lock and return the unfinished jobs of a batch."""
    query = select(Job).where(Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.state.in_(UNFINISHED))
    return list(await session.scalars(query.with_for_update()))


def finish(job: Job, result: dict[str, Any] | None = None) -> None:
    """Mark a held job done."""
    _end(job, "done", result=result)


def fail(job: Job, error: TesseraError, *, max_attempts: int) -> None:
    """Mark a held job failed, or retrying when its error allows and attempts remain."""
    if error.retryable and job.attempts < max_attempts:
        job.state, job.batch_id, job.lease_until = "retrying", None, None
        job.not_before = datetime.now(UTC) + _RETRY_AFTER[min(job.attempts, len(_RETRY_AFTER)) - 1]
        job.error = {"code": error.code, "detail": error.detail}
    else:
        _end(job, "failed", error={"code": error.code, "detail": error.detail})


def _end(job: Job, state: str, *, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None) -> None:
    job.state, job.result, job.error = state, result, error
    job.batch_id, job.lease_until, job.stage = None, None, None
    job.finished_at = datetime.now(UTC)
    job.progress = 1.0 if state == "done" else job.progress


def _worker_lost(attempts: int) -> dict[str, Any]:
    return {
        "code": "worker_lost",
        "detail": f"The worker was lost {attempts} times while it worked on this; it is not tried again.",
    }


async def give_out(session: AsyncSession, tenant_id: UUID, *, size: int, max_cost: int, lease: timedelta) -> list[Job]:
    """Take the next jobs of one tenant as a batch: documents together, anything else and any repeat alone.

    In a dispatcher session. A job that was tried before goes alone, so that one that kills its worker takes no other
    with it. Returns the jobs, all with the same new `batch_id`; the caller commits before it sends the batch.
    """
    due = or_(Job.not_before.is_(None), Job.not_before <= func.now())
    query = (
        select(Job)
        .where(Job.tenant_id == tenant_id, Job.state.in_(WAITING), Job.batch_id.is_(None), due)
        .order_by(Job.created_at, Job.id)
        .limit(size)
        .with_for_update(skip_locked=True)
    )
    batch: list[Job] = []
    cost = 0
    for job in await session.scalars(query):
        alone = job.kind != "ingest" or job.attempts > 0
        if batch and (alone or cost + job.cost > max_cost):
            break
        batch.append(job)
        cost += job.cost
        if alone:
            break
    batch_id = uuid7()
    for job in batch:
        job.batch_id, job.lease_until = batch_id, datetime.now(UTC) + lease
    return batch


async def return_lost(session: AsyncSession) -> int:
    """Queue again what was given out and whose lease ran out: the worker or the broker lost it."""
    result = await session.execute(
        text(
            "UPDATE jobs SET batch_id = NULL, lease_until = NULL,"
            " state = CASE WHEN state = 'running' THEN 'retrying' ELSE state END"
            " WHERE batch_id IS NOT NULL AND lease_until < now()"
        )
    )
    return int(getattr(result, "rowcount", 0))


async def waiting_tenants(session: AsyncSession) -> Sequence[UUID]:
    """Return the tenants with a job that is due, in a dispatcher session; suspended tenants wait."""
    rows = await session.execute(
        text(
            "SELECT DISTINCT j.tenant_id FROM jobs j LEFT JOIN tenants t ON t.id = j.tenant_id"
            " WHERE j.state IN ('queued', 'retrying') AND j.batch_id IS NULL"
            " AND (j.not_before IS NULL OR j.not_before <= now())"
            " AND (t.state = 'active' OR j.kind = 'erase_tenant') ORDER BY j.tenant_id"
        )
    )
    return [row.tenant_id for row in rows]


async def in_flight(session: AsyncSession) -> dict[UUID, int]:
    """Return how many batches of each tenant are given out, in a dispatcher session."""
    rows = await session.execute(
        text("SELECT tenant_id, count(DISTINCT batch_id) AS n FROM jobs WHERE batch_id IS NOT NULL GROUP BY tenant_id")
    )
    return {row.tenant_id: row.n for row in rows}
