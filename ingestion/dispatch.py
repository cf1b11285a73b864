"""The dispatcher: takes waiting jobs from Postgres fairly and feeds the broker a little at a time.

Deficit round-robin over tenants (Shreedhar and Varghese, SIGCOMM 1995): in each round a tenant is credited a quantum of
bytes, and those with credit left give out a batch in turn, so a tenant with a large import delays another by one batch
at most, and one with a document larger than the quantum waits for as many rounds as it has taken too much.
Each lane has a ring and a bound of its own, so slow documents and work on indexes take no place from uploads; and so
has each lane of a queue that not every worker reads (`queues.py`).
The broker never holds more than a few batches. What it loses comes back: at once when it says so or when its memory is
gone, else when the lease runs out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from ingestion import job_queue
from ingestion.job_queue import Flying
from ingestion.models import Lane
from ingestion.queues import COMMON, EVERY_WORKERS, ModelQueues, Routes
from ingestion.settings import IngestSettings
from tenants.db import Database
from tenants.errors import Unavailable

TASKS = {
    "ingest": "ingestion.ingest",
    "delete": "ingestion.purge",
    "purge": "ingestion.purge",
    "partition": "ingestion.partition",
    "reembed": "ingestion.reembed",
    "release": "ingestion.release",
    "drop_generation": "ingestion.drop_generation",
    "erase_tenant": "ingestion.erase_tenant",
    "sync": "ingestion.sync",
    "preview": "ingestion.preview",
    "fsck": "ingestion.fsck",
    "retention": "ingestion.retention",
}

Send = Callable[[str, UUID, UUID, str], None]
"""Gives a batch to the broker: task name, tenant id, batch id, queue. Raises `Unavailable` when the broker is away."""
NextBatch = Callable[[UUID, Lane, int, int], Awaitable[int | None]]
"""Gives out a tenant's next batch in a lane, by its turn and the number of tenants that wait; returns its bytes."""
_BATCHES_A_ROUND = 16
"""A batch counts as one of so many parts of the quantum at least: removals and small documents take a place too."""


@dataclass
class Ring:
    """The tenants of one lane in turn: what each may still give out in this round (bytes; below zero it owes them), and
    how many batches each was given.

    A round ends when nobody who could go has credit left; then each is credited, as often as it takes for one of them
    to go. So no place stays empty while there is work, and who owes waits for as many rounds as it owes quanta.
    """

    lane: Lane
    bound: int
    bound_per_tenant: int
    quantum: int
    queue: str = COMMON
    deficits: dict[UUID, int] = field(default_factory=dict)
    turns: Counter[UUID] = field(default_factory=Counter)
    last: UUID | None = None

    async def give_out(self, waiting: list[UUID], flying: dict[UUID, int], next_batch: NextBatch) -> int:
        """Give out batches while there is room, `flying` being those on their way; return how many."""
        room = self.bound - sum(flying.values())
        for tenant_id in waiting:
            self.deficits.setdefault(tenant_id, self.quantum)
        able = [tenant_id for tenant_id in self._in_turn(waiting) if flying.get(tenant_id, 0) < self.bound_per_tenant]
        sent = 0
        while able and sent < room:
            if not any(self.deficits[tenant_id] > 0 for tenant_id in able):
                self._begin_round(able, frozenset(waiting))
            following = []
            for tenant_id in able:
                if self.deficits[tenant_id] > 0 and sent < room:
                    cost = await next_batch(tenant_id, self.lane, self.turns[tenant_id], len(waiting))
                    if cost is None:
                        continue
                    self._charge(tenant_id, cost)
                    sent += 1
                    flying[tenant_id] = flying.get(tenant_id, 0) + 1
                if flying.get(tenant_id, 0) < self.bound_per_tenant:
                    following.append(tenant_id)
            able = following
        return sent

    def _charge(self, tenant_id: UUID, cost: int) -> None:
        self.deficits[tenant_id] -= max(cost, self.quantum // _BATCHES_A_ROUND, 1)
        self.turns[tenant_id] += 1
        self.last = tenant_id

    def _begin_round(self, able: list[UUID], waiting: frozenset[UUID]) -> None:
        """Begin the next round in which one of those that are `able` to go has credit; pass over those before it.

        Credit is not saved up. One that waits no more is forgotten when it has paid what it owes.
        """
        rounds = min(-self.deficits[tenant_id] // self.quantum + 1 for tenant_id in able)
        credited = {t: min(d + rounds * self.quantum, self.quantum) for t, d in self.deficits.items()}
        self.deficits = {t: d for t, d in credited.items() if t in waiting or d <= 0}
        self.turns = Counter({t: n for t, n in self.turns.items() if t in self.deficits})

    def _in_turn(self, waiting: list[UUID]) -> list[UUID]:
        last = self.last
        after = [tenant_id for tenant_id in waiting if last is not None and tenant_id > last]
        return after + [tenant_id for tenant_id in waiting if last is None or tenant_id <= last]


class Dispatcher:
    """Holds a ring of tenants for each lane of each queue between ticks."""

    def __init__(
        self, database: Database, settings: IngestSettings, send: Send, queues: ModelQueues = EVERY_WORKERS
    ) -> None:
        self._readers: Mapping[str, int] = {COMMON: 1}
        self._queues = queues
        self._database = database
        self._settings = settings
        self._send = send
        bounds = {
            Lane.MAIN: (settings.in_flight, settings.in_flight_per_tenant),
            Lane.SLOW: (settings.slow_in_flight, settings.slow_in_flight),
            Lane.BACKGROUND: (settings.background_in_flight, settings.background_in_flight),
        }
        self._bounds = bounds
        self._rings = [
            Ring(lane, *bound, settings.batch_bytes, queue)
            for queue in (COMMON, *queues.names)
            for lane, bound in bounds.items()
        ]
        self.readers = self._readers

    @property
    def readers(self) -> Mapping[str, int]:
        """How many worker processes read each queue; each can have as many batches as the settings say, and what nobody
        reads is given none."""
        return self._readers

    @readers.setter
    def readers(self, numbers: Mapping[str, int]) -> None:
        self._readers = numbers
        for ring in self._rings:
            number = numbers.get(ring.queue, 0)
            ring.bound, ring.bound_per_tenant = (number * bound for bound in self._bounds[ring.lane])

    async def tick(self) -> int:
        """Return lost batches to the queue and give out new ones; return how many batches were sent."""
        async with self._database.dispatcher() as session, session.begin():
            flying = await job_queue.flying(session)
            if flying.lost:
                await job_queue.return_lost(session)
                flying = await job_queue.flying(session)
            routes = await self._queues.routes(session, flying.tenants)
            waiting = await job_queue.waiting(session) if self._has_room(flying, routes) else {}
            routes = await self._queues.routes(session, flying.tenants.union(*waiting.values()))
        return sum([await self._give_out(ring, waiting.get(ring.lane, []), flying, routes) for ring in self._rings])

    async def broker_forgot(self) -> int:
        """Queue again every batch that no worker has begun: the broker has lost its memory. Return how many jobs."""
        async with self._database.dispatcher() as session, session.begin():
            return await job_queue.return_unstarted(session)

    async def _give_out(self, ring: Ring, waiting: list[UUID], flying: Flying, routes: Routes) -> int:
        kinds = {tenant_id: routes.kinds(tenant_id, ring.queue, TASKS) for tenant_id in waiting}
        mine = [tenant_id for tenant_id in waiting if kinds[tenant_id] != frozenset()]

        async def following(tenant_id: UUID, lane: Lane, turn: int, share: int) -> int | None:
            return await self._next(tenant_id, lane, turn, share, ring.queue, kinds[tenant_id])

        return await ring.give_out(mine, self._flying(ring, flying, routes), following)

    def _has_room(self, flying: Flying, routes: Routes) -> bool:
        return any(sum(self._flying(ring, flying, routes).values()) < ring.bound for ring in self._rings)

    def _flying(self, ring: Ring, flying: Flying, routes: Routes) -> dict[UUID, int]:
        return flying.of(ring.lane, lambda tenant_id, kind: routes.queue(tenant_id, kind) == ring.queue)

    async def _next(
        self, tenant_id: UUID, lane: Lane, turn: int, share: int, queue: str, kinds: frozenset[str] | None
    ) -> int | None:
        """Send the next batch of one of `share` tenants that wait; return its bytes, None when nothing is due."""
        async with self._database.dispatcher() as session:
            batch = await job_queue.give_out(
                session,
                tenant_id,
                lane,
                turn=turn,
                size=max(1, self._settings.batch_documents // share),
                max_cost=self._settings.batch_bytes,
                # There is a place for every batch that is given out, so one that no worker begins was lost on the way.
                lease=timedelta(seconds=self._settings.lease_s),
                kinds=kinds,
            )
            await session.commit()
        if batch is None:
            return None
        try:
            self._send(TASKS[batch.kind], tenant_id, batch.batch_id, queue)
        except Unavailable:
            async with self._database.dispatcher() as session, session.begin():
                await job_queue.return_unstarted(session, batch_id=batch.batch_id)
            raise
        return batch.cost
