"""The queue on a real Postgres and a broker that remembers: jobs are added, given out, begun, done, and lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs
from ingestion.dispatch import Dispatcher
from ingestion.models import Job, Lane, Priority
from ingestion.queues import COMMON, EVERY_WORKERS, ModelQueues
from ingestion.settings import IngestSettings
from tenants.db import Database
from tenants.errors import Unavailable
from tenants.models import Tenant

LEASE = timedelta(seconds=30)
RUN_OUT = -LEASE
"""The lease of a worker that is lost as soon as it has begun."""


class Sent(NamedTuple):
    """A batch as the broker was given it."""

    task: str
    tenant_id: UUID
    batch_id: UUID
    queue: str = COMMON


class Broker:
    """Remembers what was sent; while it is `away`, nothing can be."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.away = False

    def __call__(self, task: str, tenant_id: UUID, batch_id: UUID, queue: str) -> None:
        if self.away:
            raise Unavailable("The broker does not answer.", code="broker_unavailable")
        self.sent.append(Sent(task, tenant_id, batch_id, queue))


class Queue:
    """The jobs of some tenants, the dispatcher that gives them out, and what workers do with them."""

    def __init__(self, database: Database, tenants: list[UUID]) -> None:
        self.database = database
        self.tenants = tenants
        self.broker = Broker()
        self.start()

    def start(self, *, models: ModelQueues = EVERY_WORKERS, **settings: Any) -> None:
        """Have a new dispatcher, with these settings; `models` are computed by the workers of some queues."""
        self.dispatcher = Dispatcher(self.database, IngestSettings(**settings), self.broker, models)

    def serve(self, queue: str) -> None:
        """Have one worker that reads the common queue, and one that reads this one."""
        self.dispatcher.readers = {COMMON: 1, queue: 1}

    @property
    def sent(self) -> list[Sent]:
        return self.broker.sent

    async def tick(self) -> int:
        return await self.dispatcher.tick()

    @asynccontextmanager
    async def transaction(self, tenant_id: UUID) -> AsyncIterator[AsyncSession]:
        async with self.database.tenant(tenant_id) as session, session.begin():
            yield session

    async def add(
        self,
        tenant_id: UUID,
        count: int = 1,
        *,
        kind: str = "ingest",
        cost: int = 1000,
        priority: Priority = Priority.INTERACTIVE,
        lane: Lane | None = None,
    ) -> None:
        added = [jobs.new_job(tenant_id, kind, cost=cost, priority=priority) for _ in range(count)]
        for job in added:
            job.lane = job.lane if lane is None else lane
        async with self.transaction(tenant_id) as session:
            session.add_all(added)

    async def give_out(self, tenant_id: UUID, count: int = 1) -> Sent:
        """Add documents and give them out; return their batch."""
        await self.add(tenant_id, count)
        assert await self.tick() == 1
        return self.sent[-1]

    async def claim(self, batch: Sent, *, lease: timedelta = LEASE) -> list[UUID]:
        """Begin a batch; return its jobs, oldest first."""
        async with self.transaction(batch.tenant_id) as session:
            begun = await jobs.claim(session, batch.tenant_id, batch.batch_id, lease=lease, max_attempts=3)
        return [job.id for job in begun]

    async def finish(self, batch: Sent) -> int:
        """Do what a worker does; return how many jobs of the batch there were to do."""
        begun = await self.claim(batch)
        async with self.transaction(batch.tenant_id) as session:
            await jobs.finish(session, batch.tenant_id, {job_id: {} for job_id in begun})
        return len(begun)

    async def jobs(self, tenant_id: UUID) -> list[Job]:
        async with self.database.tenant(tenant_id) as session:
            return list(await session.scalars(select(Job).where(Job.tenant_id == tenant_id)))

    async def states(self, tenant_id: UUID) -> Counter[str]:
        return Counter(job.state for job in await self.jobs(tenant_id))

    async def become(self, tenant_id: UUID, state: str) -> None:
        async with self.database.admin() as session, session.begin():
            await session.execute(update(Tenant).where(Tenant.id == tenant_id).values(state=state))


async def clear(database: Database, tenants: Iterable[UUID]) -> None:
    """Remove all jobs of these tenants."""
    for tenant_id in tenants:
        async with database.tenant(tenant_id) as session, session.begin():
            await session.execute(delete(Job).where(Job.tenant_id == tenant_id))
