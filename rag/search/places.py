"""Work of one tenant that runs at the same time is bounded, so that no tenant can take all of the service.

Who has to wait does so in its process, first come, first served; how many run is counted over all processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol
from uuid import UUID

from tenants.errors import TooManyRequests
from tenants.local_places import LocalPlaces


class Shared(Protocol):
    """Counts what a tenant has taken over all processes: `tenants.shared_places.SharedPlaces`."""

    def taken(
        self, kind: str, tenant_id: UUID, most: int, *, patience_s: float = 0.0
    ) -> AbstractAsyncContextManager[None]:
        """Hold one of `most` places; raise `TooManyRequests` when none comes free in time."""
        ...


class Places:
    """`per_tenant` searches of a tenant run at once in all; `queue` more wait here, for `patience_s` at most. `kind` is
    what they are, in the plural."""

    def __init__(
        self, per_tenant: int, queue: int, patience_s: float, shared: Shared, *, kind: str = "searches"
    ) -> None:
        self._here = LocalPlaces(per_tenant, patience_s, kind, queue)
        self._shared = shared

    @asynccontextmanager
    async def taken(self, tenant_id: UUID) -> AsyncIterator[None]:
        """Hold a place of the tenant, first come, first served.

        Raises:
            TooManyRequests: too many wait already, or none became free in time.
        """
        here = self._here
        async with here.taken(tenant_id) as left_s, AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self._shared.taken(here.kind, tenant_id, here.most, patience_s=left_s))
            except TooManyRequests:
                raise here.refusal() from None
            yield
