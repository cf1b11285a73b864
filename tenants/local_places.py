"""Places of which a tenant has so many in one process: who finds none free waits, first come, first served."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

from tenants.errors import TooManyRequests


@dataclass
class _Tenant:
    free: asyncio.Semaphore
    inside: int = 0
    waiting: int = 0


@dataclass
class LocalPlaces:
    """`most` of a tenant are inside at once; `queue` more wait (any number without it), for `patience_s` at most.
    `kind` is what they are, in the plural."""

    most: int
    patience_s: float
    kind: str
    queue: int | None = None
    _tenants: dict[UUID, _Tenant] = field(default_factory=dict)

    @asynccontextmanager
    async def taken(self, tenant_id: UUID) -> AsyncIterator[float]:
        """Hold a place of the tenant; yield how many seconds of the patience are left.

        Raises:
            TooManyRequests: too many wait already, or none became free in time.
        """
        tenant = self._tenants.setdefault(tenant_id, _Tenant(asyncio.Semaphore(self.most)))
        if self.queue is not None and tenant.waiting >= self.queue and tenant.free.locked():
            raise self.refusal()
        tenant.inside += 1
        try:
            began = time.monotonic()
            await self._acquire(tenant)
            try:
                yield self.patience_s - (time.monotonic() - began)
            finally:
                tenant.free.release()
        finally:
            tenant.inside -= 1
            if not tenant.inside:
                self._tenants.pop(tenant_id, None)

    async def _acquire(self, tenant: _Tenant) -> None:
        tenant.waiting += 1
        try:
            async with asyncio.timeout(self.patience_s):
                await tenant.free.acquire()
        except TimeoutError:
            raise self.refusal() from None
        finally:
            tenant.waiting -= 1

    def refusal(self) -> TooManyRequests:
        """Return the error for who finds no place."""
        run = f"More than {self.most} {self.kind} of this tenant run at once"
        detail = f"{run} and others wait; try again shortly."
        return TooManyRequests(detail, code=f"too_many_{self.kind}")
