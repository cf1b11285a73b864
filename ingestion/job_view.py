"""What a job's owner sees of it: where it stands in the queue, what it waits for, how it goes on."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.jobs import WAITING
from ingestion.models import UNFINISHED_STATES, Job, Lane
from ingestion.queue_order import QueueOrders
from ingestion.queues import QueueWatch
from ingestion.schemas import JobOut, WaitingFor, job_out
from tenants.errors import TooManyRequests
from tenants.shared_places import SharedPlaces

Signs = Callable[[], Awaitable[tuple[bool, bool] | None]]
"""Tells whether a worker and the scheduler live; None when that cannot be found out."""
LOOK_EVERY_S = 0.4
LOOK_AT_QUEUED_S = 2.0
"""At most, of a job that waits: the looks become rarer from one to the next."""
_RARER = 1.5
_RECONNECT = 'retry: 1000\nevent: reconnect\ndata: {"after_ms": 1000}\n\n'
"""`retry` is for browsers, which connect again by themselves after so many milliseconds."""
_SILENCE_S = 15.0
_SOON = timedelta(seconds=3)
"""A job that waits for less is not asked after: the scheduler looks ten times a second."""


async def shown(
    session: AsyncSession,
    tenant_id: UUID,
    jobs: Sequence[Job],
    signs: Signs,
    orders: QueueOrders,
    watch: QueueWatch,
) -> list[JobOut]:
    """Render jobs of a tenant in one of its sessions; those that wait with their place and what they wait for."""
    waiting = [job for job in jobs if job.state in WAITING]
    turns = [job.id for job in waiting if job.batch_id is None and not _paused(job)]
    positions = await orders.positions(session, tenant_id, turns)
    late = any(datetime.now(UTC) - max(job.created_at, job.not_before or job.created_at) > _SOON for job in waiting)
    alive = await signs() if late else None
    unserved = await watch.unserved(session, tenant_id, waiting)
    return [
        job_out(job, position=positions.get(job.id), waiting_for=_waits_for(job, alive, job.id in unserved))
        if job.state in WAITING
        else job_out(job)
        for job in jobs
    ]


def _paused(job: Job) -> bool:
    return job.not_before is not None and job.not_before > datetime.now(UTC)


def _waits_for(job: Job, alive: tuple[bool, bool] | None, unserved: bool) -> WaitingFor:
    worker, scheduler = alive or (True, True)
    if unserved:
        return "model_workers"
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
    """Bounds how many streams of events a tenant has open: in the whole service, and in this process also while nobody
    can say how many that are."""

    most: int
    shared: SharedPlaces
    _here: Counter[UUID] = field(default_factory=Counter)

    @asynccontextmanager
    async def taken(self, tenant_id: UUID) -> AsyncIterator[None]:
        """Hold a place.

        Raises:
            TooManyRequests: all are taken (`too_many_streams`).
        """
        if self._here[tenant_id] >= self.most:
            raise self._refusal()
        self._here[tenant_id] += 1
        try:
            async with AsyncExitStack() as stack:
                try:
                    await stack.enter_async_context(self.shared.taken("stream", tenant_id, self.most))
                except TooManyRequests as error:
                    raise self._refusal() from error
                yield
        finally:
            self._here[tenant_id] -= 1
            if not self._here[tenant_id]:
                del self._here[tenant_id]

    def _refusal(self) -> TooManyRequests:
        return TooManyRequests(f"More than {self.most} streams of events are open.", code="too_many_streams")


async def events(look: Callable[[], Awaitable[JobOut]], closing: asyncio.Event) -> AsyncIterator[str]:
    """Yield server-sent events about a job: `progress` whenever it has changed, at last `done`.

    Both carry the job. A comment is sent now and then, so that proxies keep the connection. When this process is
    `closing`, the last event is `reconnect`: another one goes on, and the first event there is the job as it is.
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
        if await _is_set(closing, pause):
            yield _RECONNECT
            return
        pause = next_pause(job, pause)


async def _is_set(event: asyncio.Event, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()


def next_pause(job: JobOut, pause: float) -> float:
    """Return the seconds between two looks at a job, the last ones being `pause` apart: ever more while it waits."""
    return min(LOOK_AT_QUEUED_S, pause * _RARER) if job.state in WAITING else LOOK_EVERY_S
