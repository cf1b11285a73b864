"""Searches of one tenant that run at the same time are bounded, so that no tenant can take all of a process."""

from __future__ import annotations

import asyncio
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
class Places:
    """`per_tenant` searches of a tenant run at once, `queue` more wait, at most `patience_s` seconds."""

    per_tenant: int
    queue: int
    patience_s: float
    _tenants: dict[UUID, _Tenant] = field(default_factory=dict)

    @asynccontextmanager
    async def taken(self, tenant_id: UUID) -> AsyncIterator[None]:
        """Hold a place of the tenant, first come, first served.

        Raises:
            TooManyRequests: too many wait already, or none became free in time.
        """
        tenant = self._tenants.setdefault(tenant_id, _Tenant(asyncio.Semaphore(self.per_tenant)))
        if tenant.waiting >= self.queue and tenant.free.locked():
            raise self._refusal()
        tenant.inside += 1
        try:
            await self._acquire(tenant)
            try:
                yield
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
            raise self._refusal() from None
        finally:
            tenant.waiting -= 1

    def _refusal(self) -> TooManyRequests:
        detail = f"More than {self.per_tenant} searches of this tenant run at once and others wait; try again shortly."
        return TooManyRequests(detail, code="too_many_searches")
