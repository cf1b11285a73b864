"""Jobs: made in the transaction of their cause, finished under their fence. `job_queue.py` is what happens between."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, Uuid, any_, bindparam, case, exists, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from ingestion import repository
from ingestion.models import OF_OPERATORS, UNFINISHED, UNFINISHED_STATES, Job, Lane, Priority
from tenants.cursor import Position
from tenants.errors import Conflict, NotFound, TesseraError
from tenants.repository import newest_first

WAITING = ("queued", "retrying")
_MAIN_KINDS = frozenset({"ingest", "delete", "purge", "erase_tenant"})
READERS_GRACE = timedelta(seconds=60)
"""How long a retired generation is kept for queries that began before the switch."""
REMOVALS = ("delete", "purge", "erase_tenant", "drop_generation")
"""Kinds that are tried until they are done, whatever went wrong: what was deleted must go."""
_RETRY_AFTER = [timedelta(seconds=pause) for pause in (1, 10, 60, 600, 3600)]
"""By the number of the attempt that failed; the last one for all that follow."""
_AWAY_PAUSE = timedelta(seconds=3)
_CHECK_PAUSE = timedelta(seconds=20)
"""A check is nobody's hurry, and reads much again."""
_NOT_BEGUN: dict[str, Any] = {
    "state": "queued",
    "stage": None,
    "attempts": Job.attempts - 1,
    "batch_id": None,
    "lease_until": None,
}
_RETRY = text(
    "UPDATE jobs j SET state = 'retrying', error = e.content, batch_id = NULL, lease_until = NULL, not_before = now()"
    " + (CAST(:pauses AS interval[]))[least(j.attempts, array_length(CAST(:pauses AS interval[]), 1))]"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(CAST(:contents AS text[]) AS jsonb[])) AS e (id, content)"
    " WHERE j.tenant_id = :tenant AND j.id = e.id AND (j.kind = ANY(CAST(:removals AS text[]))"
    " OR j.id = ANY(CAST(:retryable AS uuid[])) AND j.attempts < :max_attempts) RETURNING j.id"
)
_END = text(
    "UPDATE jobs j SET state = CAST(:state AS text), batch_id = NULL, lease_until = NULL, stage = NULL,"
    " finished_at = clock_timestamp(),"
    " result = CASE WHEN CAST(:state AS text) = 'done' THEN e.content END,"
    " error = CASE WHEN CAST(:state AS text) <> 'done' THEN e.content END,"
    " progress = CASE WHEN CAST(:state AS text) = 'done' THEN 1 ELSE j.progress END"
    " FROM unnest(CAST(:ids AS uuid[]), CAST(CAST(:contents AS text[]) AS jsonb[])) AS e (id, content)"
    " WHERE j.tenant_id = :tenant AND j.id = e.id"
)


_UPKEEP_BY_STATE = text(
    "SELECT state, count(*) AS number FROM (SELECT state FROM jobs WHERE kind = 'partition'"  # noqa: S608 - constants
    f" AND {UNFINISHED}"
    " UNION ALL SELECT state FROM jobs WHERE kind = 'partition' AND state = 'failed') j GROUP BY state"
)


def unfinished(kind: str) -> TextClause:
    """Return the condition of unfinished jobs of a kind other than `ingest`, as their index says it."""
    return text(f"jobs.kind = '{kind}' AND jobs.{UNFINISHED}")


def lane_of(kind: str) -> Lane:
    """Return the lane in which jobs of a kind begin."""
    return Lane.MAIN if kind in _MAIN_KINDS else Lane.BACKGROUND


def new_job(
    tenant_id: UUID,
    kind: str,
    *,
    delay: timedelta | None = None,
    priority: Priority = Priority.INTERACTIVE,
    **values: Any,
) -> Job:
    """Return a queued job, to be added to the session of the transaction that causes it."""
    now = datetime.now(UTC)
    not_before = now + delay if delay else None
    return Job(
        tenant_id=tenant_id,
        id=uuid7(),
        kind=kind,
        state="queued",
        lane=lane_of(kind),
        priority=priority,
        progress=0.0,
        attempts=0,
        created_at=now,
        not_before=not_before,
        **values,
    )


async def queue_partition(session: AsyncSession, tenant_id: UUID, payload: dict[str, Any] | None = None) -> None:
    """Queue the upkeep of the tenant's index unless one waits or runs already."""
    values = {"tenant_id": tenant_id, "id": uuid7(), "kind": "partition", "state": "queued", "created_at": func.now()}
    values |= {"lane": lane_of("partition"), "payload": payload or {}}
    await session.execute(insert(Job).values(values).on_conflict_do_nothing())


def queue_drop(session: AsyncSession, tenant_id: UUID) -> None:
    """Queue the end of what is retired or moved in this transaction, once no query can read it any more."""
    session.add(new_job(tenant_id, "drop_generation", delay=READERS_GRACE + timedelta(seconds=1)))


async def queue_release(session: AsyncSession, tenant_id: UUID) -> None:
    """Queue the release of the tenant's index from memory unless that waits or runs already."""
    pending = select(Job.id).where(Job.tenant_id == tenant_id, unfinished("release"))
    if await session.scalar(pending.limit(1)) is None:
        session.add(new_job(tenant_id, "release"))


async def ask_for_upkeep(session: AsyncSession, tenant_id: UUID, payload: dict[str, Any]) -> Job:
    """Queue the upkeep of the tenant's index with what an operator asks of it, or add that to what waits already.

    Raises:
        Conflict: it is running (`upkeep_running`); what it does may be out of date when it ends.
    """
    await queue_partition(session, tenant_id)
    waiting = select(Job).where(Job.tenant_id == tenant_id, Job.kind == "partition", Job.state.in_(WAITING))
    job: Job | None = await session.scalar(waiting.with_for_update())
    if job is None:
        raise Conflict("The tenant's index is being worked on; ask again when that is done.", code="upkeep_running")
    job.payload, job.not_before = job.payload | payload, None
    await session.flush()
    await session.refresh(job)
    return job


async def wait(session: AsyncSession, tenant_id: UUID, batch_id: UUID, error: TesseraError) -> None:
    """Put the jobs of a batch back until what they need is there again; the attempt does not count."""
    shown = {"code": error.code, "detail": error.detail}
    mine = (Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.state == "running")
    pause = case((Job.kind == "fsck", _CHECK_PAUSE), else_=_AWAY_PAUSE)
    back = {"state": "retrying", "attempts": Job.attempts - 1, "not_before": func.now() + pause}
    await session.execute(update(Job).where(*mine).values(**back, error=shown, batch_id=None, lease_until=None))


async def to_slow_lane(session: AsyncSession, tenant_id: UUID, batch_id: UUID, job_id: UUID, *, kept: bool) -> None:
    """Move a running job of a batch to the slow lane; unless it is `kept` by its worker it waits there for its turn,
    and the attempt does not count."""
    mine = (Job.tenant_id == tenant_id, Job.id == job_id, Job.batch_id == batch_id, Job.state == "running")
    await session.execute(update(Job).where(*mine).values({"lane": Lane.SLOW} | ({} if kept else _NOT_BEGUN)))


async def give_back(session: AsyncSession, tenant_id: UUID, batch_id: UUID, job_ids: Sequence[UUID]) -> None:
    """Queue again what a batch holds and has not begun; the attempt does not count."""
    mine = (Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.state == "running")
    these = Job.id == any_(literal(list(job_ids), ARRAY(Uuid)))
    await session.execute(update(Job).where(*mine, these).values(_NOT_BEGUN))


async def upkeep_by_state(session: AsyncSession) -> dict[str, int]:
    """Return how many jobs that work on indexes are unfinished or failed, by state, in an admin session."""
    return {row.state: int(row.number) for row in await session.execute(_UPKEEP_BY_STATE)}


async def get_job(session: AsyncSession, tenant_id: UUID, job_id: UUID) -> Job:
    """Return a job; raise `NotFound` for an unknown id."""
    job = await session.get(Job, (tenant_id, job_id))
    if job is None:
        raise NotFound("There is no job with this id.")
    return job


async def get_operators_job(session: AsyncSession, job_id: UUID) -> Job:
    """Return a tenant's erasure, the upkeep of its index or a check of its stores, in an admin session."""
    found: Job | None = await session.scalar(select(Job).where(Job.id == job_id, text(OF_OPERATORS)))
    if found is None:
        raise NotFound("There is no job with this id.")
    return found


async def list_jobs(
    session: AsyncSession, tenant_id: UUID, *, state: str | None, after: Position | None, limit: int
) -> list[Job]:
    """Return up to `limit` + 1 jobs, newest first."""
    query = select(Job).where(Job.tenant_id == tenant_id)
    if state is not None:
        query = query.where(Job.state == bindparam("state", state, literal_execute=True))  # or no index is found by it
    return await newest_first(session, query, Job, after=after, limit=limit)


async def latest_of_documents(session: AsyncSession, tenant_id: UUID, document_ids: list[UUID]) -> dict[UUID, Job]:
    """Return the newest job of each document that has one, by document id."""
    query = (
        select(Job)
        .distinct(Job.document_id)
        .where(Job.tenant_id == tenant_id, Job.document_id == any_(literal(document_ids, ARRAY(Uuid))))
        .order_by(Job.document_id, Job.created_at.desc())
    )
    return {job.document_id: job for job in await session.scalars(query) if job.document_id is not None}


async def claim(
    session: AsyncSession, tenant_id: UUID, batch_id: UUID, *, lease: timedelta, max_attempts: int
) -> list[Job]:
    """Start the jobs of a batch: count the attempt before the work, and fail those that had too many.

    Returns the jobs to work on, oldest first; none when the batch was given to another worker meanwhile, or when this
    is a message that comes twice.
    """
    mine = (Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.state.in_(WAITING))
    held = list(await session.scalars(select(Job).where(*mine).order_by(Job.id).with_for_update()))
    spent = [job for job in held if job.attempts >= max_attempts and job.kind not in REMOVALS]
    if spent:
        lost = {job.id: _worker_lost(job.attempts) for job in spent}
        await session.execute(_END, {"tenant": tenant_id, "state": "failed", **_arrays(lost)})
        await _give_up(session, tenant_id, [job for job in spent if job.kind == "ingest"])
        if any(job.kind == "reembed" for job in spent):  # what was made of it is given up there
            session.add(new_job(tenant_id, "drop_generation"))
    started = await session.scalars(
        update(Job)
        .where(*mine)
        .values(
            attempts=Job.attempts + 1,
            state="running",
            stage="starting",
            progress=case((Job.kind == "reembed", Job.progress), else_=0.0),  # it goes on where it was
            started_at=func.coalesce(Job.started_at, func.clock_timestamp()),
            lease_until=func.now() + lease,
        )
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    return sorted(started, key=lambda job: (job.created_at, job.id))


async def _give_up(session: AsyncSession, tenant_id: UUID, ended: Sequence[Job]) -> None:
    """Mark the versions of ingestions failed that are not tried again, and have removed what they wrote half-way."""
    for version in (await repository.pending_versions(session, ended)).values():
        await repository.fail_version(session, version)
    await remove_traces(session, tenant_id, ended)


async def remove_traces(session: AsyncSession, tenant_id: UUID, ended: Iterable[Job]) -> None:
    """Queue the purge of what ingestions that ended without success may have left in the engines."""
    documents = {job.document_id for job in ended if job.document_id is not None and job.attempts > 0}
    session.add_all([new_job(tenant_id, "purge", document_id=document_id) for document_id in documents])
    await session.flush()


async def is_ingested(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> bool:
    """Say whether a worker has begun to ingest the document and neither ended nor let its lease run out."""
    mine = (Job.tenant_id == tenant_id, Job.document_id == document_id)
    running = select(Job.id).where(*mine, Job.kind == "ingest", Job.state == "running")
    return await session.scalar(running.limit(1)) is not None


async def report(
    session: AsyncSession, tenant_id: UUID, batch_id: UUID, *, lease: timedelta, stage: str, progress: float
) -> bool:
    """Renew the lease of a batch and say how far it is; False when nothing of it is left to its worker.

    Jobs that are held are passed over: waiting for them would let the lease of the others run out meanwhile.
    """
    mine = (Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.state == "running")
    free = select(Job.id).where(*mine).order_by(Job.id).with_for_update(skip_locked=True).cte("free")
    renewed = update(Job).where(*mine, Job.id.in_(select(free.c.id)))
    values = {"lease_until": func.now() + lease, "stage": stage, "progress": progress}
    await session.execute(renewed.values(values).execution_options(synchronize_session=False))
    return bool(await session.scalar(select(exists().where(*mine))))


async def hold(session: AsyncSession, tenant_id: UUID, batch_id: UUID, job_ids: Iterable[UUID]) -> set[UUID]:
    """Lock the jobs that still belong to this batch: the fence before anything is finished.

    While a job is held its lease may run out: `job_queue.return_lost` leaves the batch alone.
    """
    query = (
        select(Job.id)
        .where(
            Job.tenant_id == tenant_id,
            Job.batch_id == batch_id,
            Job.id == any_(literal(list(job_ids), ARRAY(Uuid))),
            Job.state == "running",
        )
        .order_by(Job.id)
        .with_for_update()
    )
    return set(await session.scalars(query))


async def keep_state(session: AsyncSession, batch_id: UUID, job: Job, state: dict[str, Any]) -> bool:
    """Add to the payload of a running job how far it is, from where a repeat goes on; its attempts begin anew, because
    it got on. False when it does not belong to the batch any more."""
    if not await hold(session, job.tenant_id, batch_id, [job.id]):
        return False
    mine = (Job.tenant_id == job.tenant_id, Job.id == job.id)
    await session.execute(update(Job).where(*mine).values(payload=job.payload | state, attempts=1))
    return True


async def of_batch(session: AsyncSession, tenant_id: UUID, batch_id: UUID) -> Sequence[Job]:
    """Lock and return the unfinished jobs of a batch."""
    query = select(Job).where(Job.tenant_id == tenant_id, Job.batch_id == batch_id, Job.state.in_(UNFINISHED_STATES))
    return list(await session.scalars(query.order_by(Job.id).with_for_update()))


async def finish(session: AsyncSession, tenant_id: UUID, results: Mapping[UUID, dict[str, Any]]) -> None:
    """Mark held jobs done, each with its result."""
    await session.execute(_END, {"tenant": tenant_id, "state": "done", **_arrays(results)})


async def fail(
    session: AsyncSession, tenant_id: UUID, errors: Mapping[UUID, TesseraError], *, max_attempts: int
) -> set[UUID]:
    """Mark held jobs failed, or retrying when their error allows and attempts remain; return those that failed.

    What removes something never fails: it is tried again after ever longer pauses.
    """
    if not errors:
        return set()
    shown = {job_id: {"code": error.code, "detail": error.detail} for job_id, error in errors.items()}
    bounds = {"tenant": tenant_id, "max_attempts": max_attempts, "pauses": _RETRY_AFTER, "removals": list(REMOVALS)}
    retryable = [job_id for job_id, error in errors.items() if error.retryable]
    retried = set(await session.scalars(_RETRY, {**bounds, **_arrays(shown), "retryable": retryable}))
    failed = {job_id: error for job_id, error in shown.items() if job_id not in retried}
    if failed:
        await session.execute(_END, {"tenant": tenant_id, "state": "failed", **_arrays(failed)})
    return set(failed)


def _arrays(contents: Mapping[UUID, dict[str, Any]]) -> dict[str, list[Any]]:
    return {"ids": list(contents), "contents": [json.dumps(content) for content in contents.values()]}


def _worker_lost(attempts: int) -> dict[str, Any]:
    return {
        "code": "worker_lost",
        "detail": f"The worker was lost {attempts} times while it worked on this; it is not tried again.",
    }
