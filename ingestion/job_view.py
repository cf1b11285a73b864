"""What a job's owner sees of it: where it stands in the queue, what it waits for, how it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.jobs import WAITING
from ingestion.models import UNFINISHED_STATES, Job, Lane
from ingestion.queue_order import QueueOrders
from ingestion.schemas import JobOut, WaitingFor, job_out
from tenants.errors import TooManyRequests

Signs = Callable[[], Awaitable[tuple[bool, bool] | None]]
"""Tells whether a worker and the scheduler live; None when that cannot be found out."""
LOOK_EVERY_S = 0.4
LOOK_AT_QUEUED_S = 2.0
"""At most, of a job that waits: the looks become rarer from one to the next."""
_RARER = 1.5
_SILENCE_S = 15.0
_SOON = timedelta(seconds=3)
"""A job that waits for less is not asked after: the scheduler looks ten times a second."""


async def shown(
    session: AsyncSession, tenant_id: UUID, jobs: Sequence[Job], signs: Signs, orders: QueueOrders
) -> list[JobOut]:
    """Render jobs of a tenant in one of its sessions; those that wait with their place and what they wait for."""
    waiting = [job for job in jobs if job.state in WAITING]
    turns = [job.id for job in waiting if job.batch_id is None and not _paused(job)]
    positions = await orders.positions(session, tenant_id, turns)
    late = any(datetime.now(UTC) - max(job.created_at, job.not_before or job.created_at) > _SOON for job in waiting)
    alive = await signs() if late else None
    return [
        job_out(job, position=positions.get(job.id), waiting_for=_waits_for(job, alive))
        if job.state in WAITING
        else job_out(job)
        for job in jobs
    ]


def _paused(job: Job) -> bool:
    return job.not_before is not None and job.not_before > datetime.now(UTC)


def _waits_for(job: Job, alive: tuple[bool, bool] | None) -> WaitingFor:
    worker, scheduler = alive or (True, True)
    if _paused(job):
        return "pause"
    if job.batch_id is None and not scheduler:
        return "scheduler"
    if not worker:
        return "workers"
    if job.batch_id is not None:
        return "worker"
    return "slow_lane" if job.lane == Lane.SLOW else "turn"


@dataclass
class Viewers:
    """Bounds how many streams of events a tenant has open on one process."""

    most: int

    def __post_init__(self) -> None:
        self._open: dict[UUID, int] = {}

    def enter(self, tenant_id: UUID) -> None:
        """Take a place.

        Raises:
            TooManyRequests: all are taken (`too_many_streams`).
        """
        if self._open.get(tenant_id, 0) >= self.most:
            raise TooManyRequests(f"More than {self.most} streams of events are open.", code="too_many_streams")
        self._open[tenant_id] = self._open.get(tenant_id, 0) + 1

    def leave(self, tenant_id: UUID) -> None:
        """Give the place back."""
        self._open[tenant_id] -= 1
        if not self._open[tenant_id]:
            del self._open[tenant_id]


async def events(look: Callable[[], Awaitable[JobOut]]) -> AsyncIterator[str]:
    """Yield server-sent events about a job: `progress` whenever it has changed, at last `done`.

    Both carry the job. A comment is sent now and then, so that proxies keep the connection.
    """
    before: JobOut | None = None
    pause = LOOK_EVERY_S
    spoke = time.monotonic()
    while True:
        job = await look()
        ended = job.state not in UNFINISHED_STATES
        if job != before or ended:
            yield f"event: {'done' if ended else 'progress'}\ndata: {job.model_dump_json()}\n\n"
            before, spoke = job, time.monotonic()
        if ended:
            return
        if time.monotonic() - spoke > _SILENCE_S:
            yield ": still there\n\n"
            spoke = time.monotonic()
        await asyncio.sleep(pause)
        pause = next_pause(job, pause)


def next_pause(job: JobOut, pause: float) -> float:
    """Return the seconds between two looks at a job, the last ones being `pause` apart: ever more while it waits."""
    return min(LOOK_AT_QUEUED_S, pause * _RARER) if job.state in WAITING else LOOK_EVERY_S
