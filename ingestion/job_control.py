"""Cancelling jobs and trying them again, by whoever they belong to. None commits."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Uuid, any_, func, literal, or_, select, text, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.jobs import lane_of, new_job, remove_traces
from ingestion.models import UNFINISHED_STATES, Job
from shards.models import Document
from tenants.errors import Conflict

ENDED_BADLY = ("failed", "cancelled")
_MOST = 10_000
"""Jobs tried again by one call."""
CANCELLABLE = {
    "ingest": "tenant",
    "sync": "tenant",
    "preview": "tenant",
    "partition": "operator",
    "reembed": "operator",
    "fsck": "operator",
}
"""Kinds of jobs that can be cancelled, and whose they are. What removes something is not among them: it is invisible
already, and must go."""
RETRYABLE = {"ingest": "tenant", "delete": "tenant", "purge": "tenant", "erase_tenant": "operator", "fsck": "operator"}
"""Kinds of jobs that can be queued again. For the others something new is asked for."""

# Arrays, since thousands of pairs in an IN are more than Postgres can parse.
_THESE = "unnest(CAST(:documents AS uuid[]), CAST(:versions AS integer[])) AS f (document_id, version)"
_SET_VERSIONS = text(
    f"UPDATE document_versions v SET state = :state FROM {_THESE} WHERE v.tenant_id = :tenant"  # noqa: S608 - constants
    " AND v.document_id = f.document_id AND v.version = f.version AND v.state IN ('pending', 'failed')"
)
_SET_DOCUMENTS = text(
    f"UPDATE documents d SET state = :state, updated_at = now() FROM {_THESE} WHERE d.tenant_id = :tenant"  # noqa: S608 - constants
    " AND d.id = f.document_id AND d.latest_version = f.version AND d.active_version IS NULL"
)


async def cancel(session: AsyncSession, job: Job, *, caller: str) -> None:
    """Cancel a job of the `caller` (tenant or operator); its worker loses its claim: nothing of it becomes visible.

    Raises:
        Conflict: it has ended (`job_ended`), or it is not one that the caller may cancel (`not_cancellable`).
    """
    if CANCELLABLE.get(job.kind) != caller:
        raise Conflict(f"A job of kind {job.kind} cannot be cancelled.", code="not_cancellable")
    await session.refresh(job, with_for_update=True)
    if job.state not in UNFINISHED_STATES:
        raise Conflict(f"The job has ended: it is {job.state}.", code="job_ended")
    job.state, job.stage, job.batch_id, job.lease_until = "cancelled", None, None, None
    job.finished_at = func.clock_timestamp()
    job.error = {"code": "cancelled", "detail": "The job was cancelled."}
    await session.flush()
    await session.refresh(job)
    if job.kind == "ingest":
        await _set_version_state(session, [job], "failed")
        await remove_traces(session, job.tenant_id, [job])
    if job.kind == "reembed":  # what was made of it is given up there
        session.add(new_job(job.tenant_id, "drop_generation"))


async def retry(session: AsyncSession, job: Job, *, caller: str) -> None:
    """Queue a job of the `caller` again that failed or was cancelled, with all its attempts.

    Raises:
        Conflict: it did not fail (`job_not_failed`), what it is about was deleted or replaced since (`superseded`), or
            it is not one that the caller may queue again (`not_retryable`).
    """
    if RETRYABLE.get(job.kind) != caller:
        raise Conflict(f"A job of kind {job.kind} cannot be tried again; ask for a new one.", code="not_retryable")
    await session.refresh(job, with_for_update=True)
    if job.state not in ENDED_BADLY:
        raise Conflict(f"The job did not fail: it is {job.state}.", code="job_not_failed")
    if not await _queue_again(session, job.tenant_id, [job]):
        raise Conflict("The document was deleted or replaced since.", code="superseded")
    await session.refresh(job)


async def retry_all(session: AsyncSession, tenant_id: UUID, *, state: str, code: str | None) -> int:
    """Queue the tenant's jobs again that ended in `state`, with error `code` if given; return how many, 10,000 at most.

    Jobs about documents that were deleted or replaced since are left as they are.
    """
    mine = [kind for kind, owner in RETRYABLE.items() if owner == "tenant"]
    newest = (Document.tenant_id == Job.tenant_id) & (Document.id == Job.document_id)
    newest &= (Document.latest_version == Job.version) & Document.deleted_at.is_(None)
    query = select(Job).outerjoin(Document, newest).where(Job.tenant_id == tenant_id, Job.state == state)
    query = query.where(Job.kind.in_(mine), or_(Job.kind != "ingest", Document.id.is_not(None)))
    if code is not None:
        query = query.where(Job.error["code"].astext == code)
    oldest = query.order_by(Job.created_at, Job.id).limit(_MOST).with_for_update(of=Job, skip_locked=True)
    return await _queue_again(session, tenant_id, list(await session.scalars(oldest)))


async def _queue_again(session: AsyncSession, tenant_id: UUID, found: Sequence[Job]) -> int:
    documents = [job for job in found if job.kind == "ingest"]
    current = await _still_newest(session, tenant_id, documents)
    again = [job for job in found if job.kind != "ingest" or job.id in current]
    if not again:
        return 0
    fresh = {"state": "queued", "attempts": 0, "error": None, "result": None, "progress": 0.0, "stage": None}
    times = {"not_before": None, "started_at": None, "finished_at": None, "batch_id": None, "lease_until": None}
    for kind in {job.kind for job in again}:
        ids = [job.id for job in again if job.kind == kind]
        mine = (Job.tenant_id == tenant_id, Job.id == any_(literal(ids, ARRAY(Uuid))))
        # Whoever works on it is to know that an earlier attempt may have left something.
        payload = Job.payload.concat({"again": True})
        await session.execute(update(Job).where(*mine).values(**fresh, **times, lane=lane_of(kind), payload=payload))
    await _set_version_state(session, [job for job in again if job.kind == "ingest"], "pending")
    return len(again)


async def _still_newest(session: AsyncSession, tenant_id: UUID, found: Sequence[Job]) -> set[UUID]:
    """Lock the documents of these jobs; return the jobs whose version is still the newest one."""
    query = (
        select(Document.id, Document.latest_version)
        .where(
            Document.tenant_id == tenant_id,
            Document.id == any_(literal([job.document_id for job in found], ARRAY(Uuid))),
            Document.deleted_at.is_(None),
        )
        .order_by(Document.id)
        .with_for_update()
    )
    newest = {row.id: row.latest_version for row in await session.execute(query)}
    return {job.id for job in found if newest.get(job.document_id) == job.version}


async def _set_version_state(session: AsyncSession, about: Sequence[Job], state: str) -> None:
    """Set the state of versions, and of those of their documents that serve none."""
    if not about:
        return
    versions = {"documents": [job.document_id for job in about], "versions": [job.version for job in about]}
    values = {"tenant": about[0].tenant_id, "state": state, **versions}
    await session.execute(_SET_VERSIONS, values)
    await session.execute(_SET_DOCUMENTS, values)
