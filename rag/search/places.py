"""Work of one tenant that runs at the same time is bounded, so that no tenant can take all of the service.

Who has to wait does so in its process, first come, first served; how many run is counted over all processes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from tenants.errors import TooManyRequests


class Shared(Protocol):
    """Counts what a tenant has taken over all processes: `tenants.shared_places.SharedPlaces`."""

    def taken(
        self, kind: str, tenant_id: UUID, most: int, *, patience_s: float = 0.0
    ) -> AbstractAsyncContextManager[None]:
        """Hold one of `most` places; raise `TooManyRequests` when none comes free in time."""
        ...


@dataclass
class _Tenant:
    free: asyncio.Semaphore
    inside: int = 0
    waiting: int = 0


@dataclass
class Places:
    """`per_tenant` searches of a tenant run at once in all; `queue` more wait here, for `patience_s` at most. `kind` is
    what they are, in the plural."""

    per_tenant: int
    queue: int
    patience_s: float
    shared: Shared
    kind: str = "searches"
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
            began = time.monotonic()
            await self._acquire(tenant)
            try:
                async with AsyncExitStack() as stack:
                    left_s = self.patience_s - (time.monotonic() - began)
                    shared = self.shared.taken(self.kind, tenant_id, self.per_tenant, patience_s=left_s)
                    try:
                        await stack.enter_async_context(shared)
                    except TooManyRequests:
                        raise self._refusal() from None
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
        run = f"More than {self.per_tenant} {self.kind} of this tenant run at once"
        detail = f"{run} and others wait; try again shortly."
        return TooManyRequests(detail, code=f"too_many_{self.kind}")
