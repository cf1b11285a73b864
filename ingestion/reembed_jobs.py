"""The job that moves a tenant to another embedding model or chunking: asked for, paused, resumed.

What is wanted of it stands in its payload, because the worker that has it looks there before each commit. No function
commits.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from ingestion import jobs
from ingestion.jobs import lane_of
from ingestion.models import UNFINISHED_STATES, Job, Priority
from tenants.errors import Conflict

Wish = Literal["go", "pause"]
KIND = "reembed"
PAUSED = datetime(9000, 1, 1, tzinfo=UTC)
"""`not_before` of a job that waits to be resumed."""


async def ask(session: AsyncSession, tenant_id: UUID, payload: dict[str, Any]) -> Job:
    """Queue the move.

    Raises:
        Conflict: one is under way (`reembedding`).
    """
    values = {"tenant_id": tenant_id, "id": uuid7(), "kind": KIND, "state": "queued", "created_at": func.now()}
    values |= {"lane": lane_of(KIND), "priority": Priority.BACKGROUND, "payload": payload | {"wish": "go"}}
    made = insert(Job).values(values).on_conflict_do_nothing().returning(Job.id)
    job_id = await session.scalar(made)
    if job_id is None:
        raise Conflict("The tenant is being moved to another recipe; cancel that or let it end.", code="reembedding")
    job: Job = await session.get_one(Job, (tenant_id, job_id))
    return job


async def wish(session: AsyncSession, tenant_id: UUID, wanted: Wish) -> Job:
    """Pause or resume the move: at once where it waits, else before the worker's next commit.

    Raises:
        Conflict: none is under way (`not_reembedding`).
    """
    job = await unfinished(session, tenant_id)
    await session.refresh(job, with_for_update=True)
    job.payload = job.payload | {"wish": wanted}
    if job.batch_id is None and job.state in UNFINISHED_STATES:
        put_back(job, until=PAUSED if wanted == "pause" else None)
    await session.flush()
    return job


async def unfinished(session: AsyncSession, tenant_id: UUID) -> Job:
    """Return the job of a move that is under way or paused.

    Raises:
        Conflict: there is none (`not_reembedding`).
    """
    query = select(Job).where(Job.tenant_id == tenant_id, jobs.unfinished(KIND))
    job: Job | None = await session.scalar(query)
    if job is None:
        raise Conflict("The tenant is not being moved to another recipe.", code="not_reembedding")
    return job


async def under_way(session: AsyncSession, tenant_id: UUID) -> bool:
    """Say whether a move is under way, or paused."""
    query = select(Job.id).where(Job.tenant_id == tenant_id, jobs.unfinished(KIND))
    return await session.scalar(query) is not None


def put_back(job: Job, *, until: datetime | None = None, attempts: int = 0) -> None:
    """Let a locked job wait for its next turn, or until it is resumed. Where it got on, its attempts begin anew."""
    job.state, job.attempts, job.batch_id, job.lease_until = "queued", attempts, None, None
    job.not_before, job.error = until, None
    job.stage = "paused" if until == PAUSED else "waiting for its turn"


def end_cancelled(job: Job) -> None:
    """End a locked job that is not wanted any more."""
    job.state, job.stage, job.batch_id, job.lease_until = "cancelled", None, None, None
    job.finished_at = datetime.now(UTC)
