"""Back-pressure: what is not taken in now is refused with a time to come back, before memory or the queue grows.

Two bounds: the bytes that one API process reads in at a time, of which a tenant may take no more than it leaves free,
and the documents and bytes that a tenant may have waiting. The second is counted in Postgres once a second and carried
on in between. What is read in must come at some speed, or its room is given to others. What has been read in is stored
by turns: an object store that is slow or hangs does not take the connections to Postgres that everyone else needs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ingestion import job_queue
from ingestion.settings import IngestSettings
from tenants.db import Database
from tenants.errors import TooManyRequests, TooSlow

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
"""Gives the next message of a request, as ASGI defines it."""
_COUNTED_FOR_S = 1.0
_INTAKE_PAUSE_S = 1
_QUEUE_PAUSE_S = 15
_STORING_PAUSE_S = 5
_TURN_S = 30.0
"""Longest that an upload waits for its turn to be stored."""


@dataclass
class _Queue:
    documents: int
    bytes: int
    counted_at: float


def in_time(receive: Receive, settings: IngestSettings) -> Receive:
    """Return what receives a request's body as `receive` does, as long as it comes at some speed.

    Only the time counts in which the caller waits for the client. Receiving raises:
        TooSlow: that was longer than the grace and what has come are worth.
    """
    waited, received, whole = 0.0, 0, False

    async def receive_in_time() -> Message:
        nonlocal waited, received, whole
        if whole:  # what comes now is the end of the connection
            return await receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(settings.upload_grace_s + received / settings.upload_bytes_per_s - waited):
                message = await receive()
        except TimeoutError as error:
            raise TooSlow(
                f"The body came too slowly: {received:,} bytes in {waited + time.monotonic() - began:.0f} seconds."
                " Try again, or send smaller files.",
            ) from error
        waited += time.monotonic() - began
        received += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        return message

    return receive_in_time


class Admission:
    """What uploads are in progress on this process, and how long each tenant's queue is."""

    def __init__(self, database: Database, settings: IngestSettings) -> None:
        self._database = database
        self._settings = settings
        self._inside: Counter[UUID] = Counter()
        self._queues: dict[UUID, _Queue] = {}
        self._turns = asyncio.Semaphore(settings.stored_at_once)

    @asynccontextmanager
    async def admitted(self, tenant_id: UUID, length: int | None) -> AsyncIterator[None]:
        """Hold the room that a request of `length` bytes takes; None stands for the largest request.

        Raises:
            TooManyRequests: this process reads as much as it may (`intake_full`), or the tenant has as much waiting as
                it may (`queue_full`); `retry_after_s` says when to come back.
        """
        weight = min(length if length is not None else self._settings.max_upload_bytes, self._settings.intake_bytes)
        self._require_intake(tenant_id, weight)
        self._inside[tenant_id] += weight
        try:
            await self._require_queue(tenant_id)
            yield
        finally:
            self._inside[tenant_id] -= weight
            if not self._inside[tenant_id]:
                del self._inside[tenant_id]

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold one of the turns to store originals in, first come, first served.

        Raises:
            TooManyRequests: none came in half a minute (`intake_full`).
        """
        try:
            async with asyncio.timeout(_TURN_S):
                await self._turns.acquire()
        except TimeoutError:
            raise TooManyRequests(
                "Uploads are stored more slowly than they come; try again in a few seconds.",
                code="intake_full",
                retry_after_s=_STORING_PAUSE_S,
            ) from None
        try:
            yield
        finally:
            self._turns.release()

    def taken(self, tenant_id: UUID, documents: int, size: int) -> None:
        """Note what was queued for a tenant since its queue was counted."""
        queue = self._queues.get(tenant_id)
        if queue is not None:
            queue.documents += documents
            queue.bytes += size

    def _require_intake(self, tenant_id: UUID, weight: int) -> None:
        # Dynamic thresholds (Choudhury and Hahne, 1998): one that is alone has half, and each that takes all it may
        # leaves half of what was free, so no few of them hold everything.
        free = self._settings.intake_bytes - self._inside.total() - weight
        if self._inside and self._inside.get(tenant_id, 0) + weight > free:
            raise TooManyRequests(
                "More is being uploaded at this moment than is taken in at once; try again in a second.",
                code="intake_full",
                retry_after_s=_INTAKE_PAUSE_S,
            )

    async def _require_queue(self, tenant_id: UUID) -> None:
        now = time.monotonic()
        queue = self._queues.get(tenant_id)
        if queue is None or now - queue.counted_at > _COUNTED_FOR_S:
            async with self._database.tenant(tenant_id) as session:
                documents, size = await job_queue.queued(session, tenant_id)
            self._forget_idle(now)
            queue = self._queues[tenant_id] = _Queue(documents, size, now)
        if queue.documents >= self._settings.queue_documents or queue.bytes >= self._settings.queue_bytes:
            raise TooManyRequests(
                f"{queue.documents:,} documents ({queue.bytes // 2**20:,} MiB) wait to be ingested, as many as may;"
                " go on when some are done.",
                code="queue_full",
                retry_after_s=_QUEUE_PAUSE_S,
            )

    def _forget_idle(self, now: float) -> None:
        stale = [tenant_id for tenant_id, queue in self._queues.items() if now - queue.counted_at > 60 * _COUNTED_FOR_S]
        for tenant_id in stale:
            del self._queues[tenant_id]
