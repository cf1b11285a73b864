"""Work that waits for others most of its time: it goes on in the worker's loop, beside the tasks that ingest.

A task that starts such work ends at once, so a long run takes no place of the few that uploads have. What keeps it from
being lost is its lease in Postgres, like that of every job.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

log = logging.getLogger(__name__)
OnFailure = Callable[[BaseException], Awaitable[None]]


class Background:
    """The runs under way in this process: so many at a time, and so many of one tenant."""

    def __init__(self, at_once: int, per_tenant: int) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._per_tenant: defaultdict[UUID, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(per_tenant))
        self._running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], on_failure: OnFailure) -> None:
        """Let work go on; whatever it does not catch itself is given to `on_failure`."""
        task = asyncio.create_task(self._watched(work, on_failure))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _watched(self, work: Coroutine[Any, Any, None], on_failure: OnFailure) -> None:
        inner = asyncio.create_task(work)
        try:
            await asyncio.wait([inner])
        finally:
            inner.cancel()
            await asyncio.wait([inner])
        if not inner.cancelled() and (error := inner.exception()) is not None:
            log.error("background work failed", exc_info=error)
            await on_failure(error)

    @asynccontextmanager
    async def turn(self, tenant_id: UUID) -> AsyncIterator[None]:
        """Wait for a place, behind the tenant's own runs first."""
        async with self._per_tenant[tenant_id], self._all:
            yield

    async def aclose(self) -> None:
        """Stop what runs and wait until it has given its jobs back."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
