"""Where jobs stand in their tenant's queue, for the many who ask: the queue is numbered once in a while, not for each.

A process remembers a tenant's order for two seconds, as bare ids, sixteen bytes each: a hundred thousand waiting
documents are 1.6 MB, and whoever follows one of them costs no walk through the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID
from weakref import WeakValueDictionary

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

KEPT_S = 2.0
MISSED_S = 0.5
"""A job that is not in the order may be newer: it is read again then, but no more often than this."""
_ID_BYTES = 16
_ORDER = text(
    "SELECT string_agg(uuid_send(id), CAST('' AS bytea) ORDER BY priority, created_at, id) AS ids FROM jobs"
    " WHERE tenant_id = :tenant AND state IN ('queued', 'retrying') AND batch_id IS NULL GROUP BY lane"
)


@dataclass(frozen=True)
class Order:
    """A tenant's waiting jobs, lane by lane, and when that was read."""

    lanes: tuple[bytes, ...]
    read_at: float

    @property
    def size(self) -> int:
        """Return the bytes that it takes."""
        return sum(len(lane) for lane in self.lanes)

    def position(self, job_id: UUID) -> int | None:
        """Return the place of a job in its lane, 1 being the next."""
        for lane in self.lanes:
            at = lane.find(job_id.bytes)
            while at % _ID_BYTES and at >= 0:  # the end of one id and the beginning of the next
                at = lane.find(job_id.bytes, at + 1)
            if at >= 0:
                return at // _ID_BYTES + 1
        return None


@dataclass
class QueueOrders:
    """The orders of the tenants that were asked about last, within a bound of memory."""

    most_bytes: int = 32 * 1024 * 1024
    clock: Callable[[], float] = time.monotonic
    _orders: OrderedDict[UUID, Order] = field(default_factory=OrderedDict)
    _locks: WeakValueDictionary[UUID, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    async def positions(self, session: AsyncSession, tenant_id: UUID, job_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Return the places of waiting jobs among the tenant's own, as they were up to two seconds ago, in a session of
        the tenant."""
        if not job_ids:
            return {}
        lock = self._locks.setdefault(tenant_id, asyncio.Lock())
        async with lock:  # who comes meanwhile takes what the first one reads
            order = self._orders.get(tenant_id)
            found = _found(order, job_ids)
            age = self.clock() - order.read_at if order is not None else KEPT_S
            if age >= KEPT_S or (age >= MISSED_S and len(found) < len(set(job_ids))):
                found = _found(await self._read(session, tenant_id), job_ids)
        return found

    async def _read(self, session: AsyncSession, tenant_id: UUID) -> Order:
        lanes = await session.scalars(_ORDER, {"tenant": tenant_id})
        order = Order(tuple(bytes(lane) for lane in lanes), self.clock())
        self._orders[tenant_id] = order
        self._orders.move_to_end(tenant_id)
        for old in [known for known, one in self._orders.items() if one.read_at + KEPT_S < order.read_at]:
            del self._orders[old]
        while self._size() > self.most_bytes and len(self._orders) > 1:
            self._orders.popitem(last=False)
        return order

    def _size(self) -> int:
        return sum(order.size for order in self._orders.values())


def _found(order: Order | None, job_ids: Sequence[UUID]) -> dict[UUID, int]:
    places = {job_id: order.position(job_id) for job_id in job_ids} if order is not None else {}
    return {job_id: place for job_id, place in places.items() if place is not None}
