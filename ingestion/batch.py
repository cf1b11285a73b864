"""One batch of work under its lease: claim, beat, and end each job under its fence; or hand it back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from ingestion import jobs
from ingestion.models import Job, Lane
from ingestion.settings import IngestSettings
from tenants.db import Database
from tenants.errors import Unavailable
from tenants.stopwatch import Stopwatch

log = logging.getLogger(__name__)
_FIRST_BEAT_S = 1.0
_SHORTEST_BEAT_S = 0.5


@dataclass(eq=False)
class Batch:
    """A batch that this worker holds."""

    database: Database
    settings: IngestSettings
    tenant_id: UUID
    batch_id: UUID
    jobs: Sequence[Job] = ()
    stage: str = "starting"
    progress: float = 0.0
    ended: bool = False
    lost: bool = False
    """Every job of it was cancelled, or given to another worker."""
    stopped: bool = False
    """This process leaves, and has no more time for it."""
    owner: asyncio.Task[object] | None = None
    """What works on it, to be stopped when it is lost."""
    watch: Stopwatch = field(default_factory=Stopwatch)
    _beat: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def lease(self) -> timedelta:
        """Return how long a sign of life is good for."""
        return timedelta(seconds=self.settings.lease_s)

    @property
    def slow(self) -> bool:
        """Whether it is a slow document, in the lane of those."""
        return any(job.lane == Lane.SLOW for job in self.jobs)

    def advance(self, stage: str, progress: float) -> None:
        """Say how far the batch is (0..1); written by the heartbeat, not here, so that it costs nothing."""
        if stage != self.stage:
            self._beat.set()
        self.stage, self.progress = stage, progress

    async def beat(self) -> None:
        """Renew the lease every third of it, and at each new stage, until `ended`; a short batch says nothing."""
        await asyncio.sleep(_FIRST_BEAT_S)
        while not self.ended:
            with suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it can swallow a cancellation that meets the event.
                async with asyncio.timeout(self.settings.lease_s / 3):
                    await self._beat.wait()
            self._beat.clear()
            if not self.ended and not await self._report():
                self.lost = True
                if self.owner is not None:
                    self.owner.cancel()
                return
            await asyncio.sleep(_SHORTEST_BEAT_S)

    async def _report(self) -> bool:
        """Renew the lease; return whether the batch still has a job that runs."""
        with suppress(Unavailable):
            async with self.database.tenant(self.tenant_id) as session, session.begin():
                return await jobs.report(
                    session,
                    self.tenant_id,
                    self.batch_id,
                    lease=self.lease,
                    stage=self.stage,
                    progress=self.progress,
                )
        return True

    def stop(self) -> None:
        """Stop the work on it; its jobs are handed back."""
        self.stopped = True
        if self.owner is not None:
            self.owner.cancel()

    def end(self) -> None:
        """Stop the heartbeat at its next turn."""
        self.ended = True
        self._beat.set()


class Holdings:
    """The batches that this process holds. When it is to end it first begins nothing new, then hands back the rest."""

    def __init__(self) -> None:
        self.leaving = False
        self._held: set[Batch] = set()

    def leave(self, within_s: float) -> None:
        """Begin no further document, and stop what has not ended in so many seconds. Called in the event loop."""
        if not self.leaving:
            self.leaving = True
            asyncio.get_running_loop().call_later(within_s, self._stop)

    @contextmanager
    def holding(self, batch: Batch) -> Iterator[None]:
        """Count a batch as held."""
        self._held.add(batch)
        try:
            yield
        finally:
            self._held.discard(batch)

    def _stop(self) -> None:
        for batch in tuple(self._held):
            log.warning("batch %s of tenant %s is handed back: this worker ends", batch.batch_id, batch.tenant_id)
            batch.stop()


HOLDINGS = Holdings()
"""Of this process."""


@asynccontextmanager
async def held(database: Database, settings: IngestSettings, tenant_id: UUID, batch_id: UUID) -> AsyncIterator[Batch]:
    """Claim a batch and keep its lease alive; `jobs` is empty when another worker has it.

    The work in the context is stopped, without an error, when a beat finds that nothing of the batch is left to it, and
    when this process has to end. Then the jobs wait again, and the attempt does not count.
    """
    batch = Batch(database, settings, tenant_id, batch_id, owner=asyncio.current_task())
    async with database.tenant(tenant_id) as session, session.begin():
        batch.jobs = await jobs.claim(
            session, tenant_id, batch_id, lease=batch.lease, max_attempts=settings.max_attempts
        )
    beating = asyncio.create_task(batch.beat())
    try:
        with HOLDINGS.holding(batch):
            yield batch
    except asyncio.CancelledError:
        if not (batch.lost or batch.stopped) or batch.owner is None:
            raise
        batch.owner.uncancel()
        if batch.stopped:
            await hand_back(database, tenant_id, batch_id)
        else:
            log.info("batch %s of tenant %s was cancelled, or lost to another worker", batch_id, tenant_id)
    finally:
        batch.end()
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating


async def hand_back(database: Database, tenant_id: UUID, batch_id: UUID) -> None:
    """Put back what a batch still holds, because its worker ends: another goes on with the jobs, which did not fail."""
    stopped = Unavailable("The worker was stopped.", code="worker_stopped")
    with suppress(Unavailable):  # then the lease runs out
        async with database.tenant(tenant_id) as session, session.begin():
            await jobs.wait(session, tenant_id, batch_id, stopped)
