"""Which workers can do a job: any, or those of the queue in which the embedding model of its tenant is computed.

A model of sentence-transformers needs workers with torch, on a GPU as a rule; they read a queue of their own (`gpu`,
unless the model names another). What embeds goes there, and everything else of the same tenants, deletions above all,
to the queue that every worker reads. Nothing is given to a queue that no worker reads at the moment: its jobs wait in
Postgres, take no place from others, and say what they wait for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Uuid, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.jobs import unfinished
from ingestion.models import Job
from shards.index_models import IndexGeneration
from shards.settings import EmbedSettings

COMMON = "tessera"
"""The queue of every worker."""
EMBEDDING = frozenset({"ingest", "partition", "fsck"})
"""Kinds of jobs that embed by the model of the live index; `reembed` embeds by that of the next."""
_REEMBED = "reembed"
Served = Callable[[], Awaitable[frozenset[str] | None]]
"""Tells which queues are read by a living worker; None when that cannot be found out."""


@dataclass(frozen=True)
class Routes:
    """The queues of some tenants' embedding: by the live model, and by the one that a tenant is moving to."""

    live: Mapping[UUID, str] = field(default_factory=dict)
    next: Mapping[UUID, str] = field(default_factory=dict)

    def queue(self, tenant_id: UUID, kind: str) -> str:
        """Return the queue that jobs of a kind go to."""
        if kind in EMBEDDING:
            return self.live.get(tenant_id, COMMON)
        return self.next.get(tenant_id, COMMON) if kind == _REEMBED else COMMON

    def kinds(self, tenant_id: UUID, queue: str, every: Collection[str]) -> frozenset[str] | None:
        """Return which of `every` kind of a tenant's jobs go to a queue; None when all do."""
        if tenant_id not in self.live and tenant_id not in self.next:
            return None if queue == COMMON else frozenset()
        return frozenset(kind for kind in every if self.queue(tenant_id, kind) == queue)


@dataclass(frozen=True)
class ModelQueues:
    """The queues of the models that not every worker can compute, by model. `default` is that of new tenants."""

    default: str
    of_model: Mapping[str, str]

    @classmethod
    def of(cls, settings: EmbedSettings) -> ModelQueues:
        """Return those of the declared models."""
        found = {name: queue for name in settings.models if (queue := settings.queue_of(name))}
        return cls(settings.model, found)

    @property
    def names(self) -> list[str]:
        """Return the queues beside the common one."""
        return sorted(set(self.of_model.values()) - {COMMON})

    async def routes(self, session: AsyncSession, tenant_ids: Collection[UUID]) -> Routes:
        """Return where the jobs of tenants go. For a dispatcher's session, or that of the one tenant asked about."""
        if not self.names or not tenant_ids:
            return Routes()
        these = literal(list(tenant_ids), ARRAY(Uuid))
        table = IndexGeneration
        indexed = select(table.tenant_id, table.embedder).where(table.state == "live", table.tenant_id == any_(these))
        models = {row.tenant_id: row.embedder for row in await session.execute(indexed)}
        live = {one: self.of_model.get(models.get(one, self.default), COMMON) for one in tenant_ids}
        moving = select(Job.tenant_id, Job.payload["embedding_model"].astext.label("model"))
        moves = await session.execute(moving.where(Job.tenant_id == any_(these), unfinished(_REEMBED)))
        targets = {row.tenant_id: row.model or models.get(row.tenant_id, self.default) for row in moves}
        coming = {one: self.of_model.get(model, COMMON) for one, model in targets.items()}
        return Routes(_elsewhere(live), _elsewhere(coming))


def _elsewhere(queues: dict[UUID, str]) -> dict[UUID, str]:
    return {tenant_id: queue for tenant_id, queue in queues.items() if queue != COMMON}


@dataclass(frozen=True)
class QueueWatch:
    """Finds the jobs that wait for a worker of their model while none lives."""

    queues: ModelQueues
    served: Served

    async def unserved(self, session: AsyncSession, tenant_id: UUID, jobs: Sequence[Job]) -> set[UUID]:
        """Return the ids of those of a tenant's jobs, in a session of the tenant."""
        routes = await self.queues.routes(session, [tenant_id] if jobs else [])
        waiting = {job.id: routes.queue(tenant_id, job.kind) for job in jobs}
        if all(queue == COMMON for queue in waiting.values()):
            return set()
        served = await self.served()
        if served is None:
            return set()
        return {job_id for job_id, queue in waiting.items() if queue != COMMON and queue not in served}


EVERY_WORKERS = ModelQueues("", {})
"""Where every worker can compute every model."""
