"""Runs of sources: one unfinished run a source, each under a job. Open sessions are taken; none commits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from ingestion import jobs
from ingestion.models import UNFINISHED_STATES, Job, Priority
from ingestion.sources.models import Source, SourceClock, SourceRun
from tenants.cursor import Position
from tenants.errors import TesseraError
from tenants.repository import newest_first

_KEPT_RUNS = 100
"""Runs of a source that its history shows."""
MANUAL, SCHEDULE = "manual", "schedule"
"""What a run was caused by."""
COUNTS = ("added", "changed", "unchanged", "vanished", "failed")


async def queue(session: AsyncSession, source: Source, cause: str) -> tuple[SourceRun, Job]:
    """Return the unfinished run of a locked source, or a new one that is queued now, with its job."""
    unfinished = select(SourceRun).where(*_of(source), SourceRun.finished_at.is_(None))
    run: SourceRun | None = await session.scalar(unfinished)
    if run is not None:
        job = await session.get(Job, (source.tenant_id, run.job_id))
        if job is not None and job.state in UNFINISHED_STATES:
            return run, job
        await end(session, run, **_outcome(job))
    run_id = uuid7()
    job = jobs.new_job(
        source.tenant_id,
        "sync",
        priority=Priority.INTERACTIVE if cause == MANUAL else Priority.BACKGROUND,
        payload={"source_id": str(source.id), "run_id": str(run_id)},
    )
    run = SourceRun(
        tenant_id=source.tenant_id,
        id=run_id,
        source_id=source.id,
        job_id=job.id,
        cause=cause,
        state="queued",
        errors=[],
        created_at=datetime.now(UTC),
        **dict.fromkeys(COUNTS, 0),
    )
    session.add_all([job, run])
    await session.flush()
    return run, job


async def queue_preview(session: AsyncSession, source: Source) -> Job:
    """Return the job of a locked source's preview: the one that is under way, or a new one."""
    wanted = {"source_id": str(source.id)}
    unfinished = select(Job).where(
        Job.tenant_id == source.tenant_id,
        jobs.unfinished("preview"),
        Job.payload["source_id"].astext == wanted["source_id"],
    )
    job: Job | None = await session.scalar(unfinished.limit(1))
    if job is None:
        job = jobs.new_job(source.tenant_id, "preview", payload=wanted)
        session.add(job)
        await session.flush()
    return job


async def start(session: AsyncSession, run: SourceRun) -> None:
    """Mark a run as under way."""
    run.state, run.started_at = "running", run.started_at or datetime.now(UTC)
    await session.flush()


async def add_counts(session: AsyncSession, run: SourceRun, counts: Mapping[str, int]) -> None:
    """Add to the counts of a run, in the transaction of what is counted."""
    values = {name: getattr(SourceRun, name) + number for name, number in counts.items() if number}
    if values:
        mine = (SourceRun.tenant_id == run.tenant_id, SourceRun.id == run.id)
        await session.execute(
            update(SourceRun).where(*mine).values(**values).execution_options(synchronize_session=False)
        )


async def end(
    session: AsyncSession, run: SourceRun, *, state: str, error: dict[str, Any] | None = None, **values: Any
) -> None:
    """End a run, count it on the clock, and drop what is beyond the history."""
    run.state, run.error, run.finished_at = state, error, datetime.now(UTC)
    for name, value in values.items():
        setattr(run, name, value)
    await session.flush()
    done = state == "done"
    counted: dict[str, Any] = {"runs_done": SourceClock.runs_done + 1} if done else {}
    counted |= {"last_success_at": func.now()} if done else {}
    counted |= {"runs_failed": SourceClock.runs_failed + 1} if state == "failed" else {}
    if counted:
        clock = (SourceClock.tenant_id == run.tenant_id, SourceClock.source_id == run.source_id)
        await session.execute(update(SourceClock).where(*clock).values(**counted))
    mine = (SourceRun.tenant_id == run.tenant_id, SourceRun.source_id == run.source_id)
    old = select(SourceRun.id).where(*mine).order_by(SourceRun.created_at.desc()).offset(_KEPT_RUNS)
    await session.execute(delete(SourceRun).where(*mine, SourceRun.id.in_(old.scalar_subquery())))


def shown(error: TesseraError) -> dict[str, str]:
    """Return an error as a run or an entry of it shows it."""
    return {"code": error.code, "detail": error.detail[:1000]}


async def list_runs(
    session: AsyncSession, tenant_id: UUID, source_id: UUID, *, after: Position | None, limit: int
) -> list[SourceRun]:
    """Return up to `limit` + 1 runs of a source, newest first, each as its job stands."""
    query = select(SourceRun).where(SourceRun.tenant_id == tenant_id, SourceRun.source_id == source_id)
    found = await newest_first(session, query, SourceRun, after=after, limit=limit)
    await _as_their_jobs(session, found)
    return found


async def last_runs(session: AsyncSession, tenant_id: UUID, source_ids: Iterable[UUID]) -> dict[UUID, SourceRun]:
    """Return the newest run of each source that has one."""
    query = (
        select(SourceRun)
        .distinct(SourceRun.source_id)
        .where(SourceRun.tenant_id == tenant_id, SourceRun.source_id.in_(list(source_ids)))
        .order_by(SourceRun.source_id, SourceRun.created_at.desc(), SourceRun.id.desc())
    )
    found = list(await session.scalars(query))
    await _as_their_jobs(session, found)
    return {run.source_id: run for run in found}


async def _as_their_jobs(session: AsyncSession, runs: list[SourceRun]) -> None:
    """Show runs whose job ended without them (cancelled, or its worker lost too often) as ended; nothing is written:
    the next run that is queued does so."""
    open_runs = [run for run in runs if run.finished_at is None]
    for run in open_runs:
        job = await session.get(Job, (run.tenant_id, run.job_id))
        if job is None or job.state not in UNFINISHED_STATES:
            outcome = _outcome(job)
            session.expunge(run)
            run.state, run.error = outcome["state"], outcome["error"]
            run.finished_at = job.finished_at if job is not None else None


def _outcome(job: Job | None) -> dict[str, Any]:
    lost = {"code": "worker_lost", "detail": "The run was lost."}
    if job is not None and job.state == "cancelled":
        return {"state": "cancelled", "error": None}
    return {"state": "failed", "error": (job.error if job is not None else None) or lost}


def _of(source: Source) -> tuple[Any, ...]:
    return SourceRun.tenant_id == source.tenant_id, SourceRun.source_id == source.id
