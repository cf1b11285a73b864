"""Back-pressure: what is not taken in now is refused with a time to come back, before memory or the queue grows.

Two bounds: the bytes that one API process reads in at a time, of which a tenant may take half, and the documents and
bytes that a tenant may have waiting. The second is counted in Postgres once a second and carried on in between.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from ingestion import job_queue
from ingestion.settings import IngestSettings
from tenants.db import Database
from tenants.errors import TooManyRequests

_COUNTED_FOR_S = 1.0
_INTAKE_PAUSE_S = 1
_QUEUE_PAUSE_S = 15


@dataclass
class _Queue:
    documents: int
    bytes: int
    counted_at: float


class Admission:
    """What uploads are in progress on this process, and how long each tenant's queue is."""

    def __init__(self, database: Database, settings: IngestSettings) -> None:
        self._database = database
        self._settings = settings
        self._inside: Counter[UUID] = Counter()
        self._queues: dict[UUID, _Queue] = {}

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

    def taken(self, tenant_id: UUID, documents: int, size: int) -> None:
        """Note what was queued for a tenant since its queue was counted."""
        queue = self._queues.get(tenant_id)
        if queue is not None:
            queue.documents += documents
            queue.bytes += size

    def _require_intake(self, tenant_id: UUID, weight: int) -> None:
        bound, own = self._settings.intake_bytes, self._inside.get(tenant_id, 0)
        if (own and own + weight > bound // 2) or (self._inside and self._inside.total() + weight > bound):
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
