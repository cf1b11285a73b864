"""The dispatcher: takes waiting jobs from Postgres fairly and feeds the broker a little at a time.

Deficit round-robin over tenants (Shreedhar and Varghese, SIGCOMM 1995): each tenant in turn is credited a quantum of
bytes and gives out batches while its credit lasts, so a tenant with a large import delays another by one batch at most.
The broker never holds more than a few batches; what it loses comes back when the lease runs out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from ingestion import jobs
from ingestion.settings import IngestSettings
from tenants.db import Database

TASKS = {
    "ingest": "ingestion.ingest",
    "delete": "ingestion.purge",
    "purge": "ingestion.purge",
    "partition": "ingestion.partition",
    "release": "ingestion.release",
    "drop_generation": "ingestion.drop_generation",
    "erase_tenant": "ingestion.erase_tenant",
}
_BROKER_LEASE = timedelta(minutes=5)
"""A batch that no worker started within this time was lost by the broker."""

Send = Callable[[str, UUID, UUID], None]
"""Gives a batch to the broker: task name, tenant id, batch id."""


@dataclass
class Dispatcher:
    """Holds the ring of tenants and their deficits between ticks."""

    database: Database
    settings: IngestSettings
    send: Send
    deficits: dict[UUID, int] = field(default_factory=dict)
    last: UUID | None = None

    async def tick(self) -> int:
        """Return lost batches to the queue and give out new ones; return how many batches were sent."""
        async with self.database.dispatcher() as session, session.begin():
            queue = await jobs.survey(session)
            if queue.lost:
                await jobs.return_lost(session)
                queue = await jobs.survey(session)
        flying, waiting = queue.flying, queue.waiting
        room = self.settings.in_flight - sum(flying.values())
        sent = 0
        for tenant_id in self._ring(waiting):
            if room <= sent:
                break
            self.deficits[tenant_id] = self.deficits.get(tenant_id, 0) + self.settings.batch_bytes
            while room > sent and flying.get(tenant_id, 0) < self.settings.in_flight_per_tenant:
                cost = await self._give_out(tenant_id, share=len(waiting))
                if cost is None:
                    break
                sent += 1
                flying[tenant_id] = flying.get(tenant_id, 0) + 1
                self.deficits[tenant_id] -= cost
                self.last = tenant_id
                if self.deficits[tenant_id] <= 0:
                    break
        self.deficits = {t: min(d, self.settings.batch_bytes) for t, d in self.deficits.items() if t in waiting}
        return sent

    def _ring(self, waiting: list[UUID]) -> list[UUID]:
        after = [tenant_id for tenant_id in waiting if self.last is not None and tenant_id > self.last]
        turn = after + [tenant_id for tenant_id in waiting if tenant_id not in set(after)]
        return [tenant_id for tenant_id in turn if self.deficits.get(tenant_id, 0) >= 0] or turn

    async def _give_out(self, tenant_id: UUID, *, share: int) -> int | None:
        """Send the next batch of one of `share` tenants that wait; return its bytes, None when nothing is due."""
        async with self.database.dispatcher() as session:
            batch = await jobs.give_out(
                session,
                tenant_id,
                size=max(1, self.settings.batch_documents // share),
                max_cost=self.settings.batch_bytes,
                lease=_BROKER_LEASE,
            )
            await session.commit()
        if batch is None:
            return None
        self.send(TASKS[batch.kind], tenant_id, batch.batch_id)
        return batch.cost
