"""The queue that is the job table: who waits, who is next, what was lost. For dispatcher sessions unless it is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, any_, func, literal, or_, select, text, true, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from ingestion.jobs import WAITING
from ingestion.models import Job, Lane, Priority
from ingestion.queues import EVERY_WORKERS, ModelQueues
from tenants.models import Tenant

# Runs of sources take no place: a worker has them go on beside its tasks, and bounds them itself.
_FLYING = text(
    "SELECT tenant_id, lane, kind, count(DISTINCT batch_id) AS batches, bool_or(lease_until < now()) AS lost"
    " FROM jobs WHERE batch_id IS NOT NULL AND (kind NOT IN ('sync', 'preview') OR lease_until < now())"
    " GROUP BY tenant_id, lane, kind"
)
_GOING_ON = {"deleting": ("erase_tenant", "fsck"), "suspended": ("erase_tenant", "fsck", "delete", "purge")}
"""Kinds of jobs that are given out for a tenant that is not active: what was deleted before must leave the stores. The
first of them comes before the others."""
# A skip scan: one probe of the index for each tenant and lane, however long the queue is. That no kind is `ingest` is
# said for the sake of the index of such jobs.
_WAITING = text(
    "WITH RECURSIVE w AS ("
    "(SELECT tenant_id, lane FROM jobs WHERE state IN ('queued', 'retrying') AND batch_id IS NULL"
    " ORDER BY tenant_id, lane LIMIT 1)"
    " UNION ALL "
    "SELECT n.tenant_id, n.lane FROM w, LATERAL (SELECT j.tenant_id, j.lane FROM jobs j"
    " WHERE j.state IN ('queued', 'retrying') AND j.batch_id IS NULL"
    " AND (j.tenant_id, j.lane) > (w.tenant_id, w.lane) ORDER BY j.tenant_id, j.lane LIMIT 1) n)"
    " SELECT w.tenant_id, w.lane FROM w LEFT JOIN tenants t ON t.id = w.tenant_id"
    " WHERE t.state = 'active' OR EXISTS (SELECT 1 FROM jobs e WHERE e.tenant_id = w.tenant_id"
    " AND e.lane = w.lane AND e.kind <> 'ingest' AND e.state IN ('queued', 'retrying') AND e.batch_id IS NULL"
    " AND (e.kind IN ('erase_tenant', 'fsck') OR t.state = 'suspended' AND e.kind IN ('delete', 'purge')))"
)
# A locked job has a live worker that is in the middle of something, and so has every job of its batch.
_RETURN_LOST = text(
    "WITH silent AS (SELECT tenant_id, batch_id, count(*) AS jobs FROM jobs WHERE batch_id IS NOT NULL"
    " GROUP BY tenant_id, batch_id HAVING max(lease_until) < now()),"
    " free AS (SELECT j.tenant_id, j.id, j.batch_id FROM jobs j JOIN silent s USING (tenant_id, batch_id)"
    " WHERE j.batch_id IS NOT NULL AND j.lease_until < now() ORDER BY j.tenant_id, j.id FOR UPDATE OF j SKIP LOCKED),"
    " lost AS (SELECT tenant_id, batch_id FROM free JOIN silent s USING (tenant_id, batch_id)"
    " GROUP BY tenant_id, batch_id, s.jobs HAVING count(*) = s.jobs)"
    " UPDATE jobs j SET batch_id = NULL, lease_until = NULL,"
    " state = CASE WHEN j.state = 'running' THEN 'retrying' ELSE j.state END"
    " FROM free JOIN lost USING (tenant_id, batch_id) WHERE j.tenant_id = free.tenant_id AND j.id = free.id"
)
_RETURN_ALL = text(
    "UPDATE jobs SET batch_id = NULL, lease_until = NULL,"
    " state = CASE WHEN state = 'running' THEN 'retrying' ELSE state END WHERE batch_id IS NOT NULL"
)
_DEPTHS = text(
    "SELECT tenant_id, kind, lane, state, count(*) AS jobs, coalesce(sum(cost), 0) AS bytes,"
    " coalesce(extract(epoch FROM now() - min(due) FILTER (WHERE due <= now())), 0) AS oldest_s"
    " FROM (SELECT tenant_id, kind, lane, state, cost, greatest(created_at, not_before) AS due FROM jobs"
    " WHERE state IN ('queued', 'retrying') AND batch_id IS NULL"
    " UNION ALL SELECT tenant_id, kind, lane, state, cost, created_at FROM jobs WHERE batch_id IS NOT NULL) j"
    " GROUP BY tenant_id, kind, lane, state"
)


@dataclass(frozen=True)
class GivenOut:
    """A batch for the broker: what kind of work it is, and how many bytes."""

    batch_id: UUID
    kind: str
    cost: int


@dataclass(frozen=True)
class Flying:
    """Batches that were given out, by lane, tenant and kind; whether the lease of one ran out."""

    batches: dict[tuple[Lane, UUID, str], int]
    lost: bool

    def of(self, lane: Lane, belongs: Callable[[UUID, str], bool] = lambda _tenant, _kind: True) -> dict[UUID, int]:
        """Return how many each tenant has in a lane, of those that belong by their tenant and kind."""
        found: dict[UUID, int] = {}
        for (place, tenant_id, kind), batches in self.batches.items():
            if place is lane and belongs(tenant_id, kind):
                found[tenant_id] = found.get(tenant_id, 0) + batches
        return found

    @property
    def tenants(self) -> set[UUID]:
        """Return whose they are."""
        return {tenant_id for _, tenant_id, _ in self.batches}


async def flying(session: AsyncSession) -> Flying:
    """Count what was given out and has not ended."""
    rows = (await session.execute(_FLYING)).all()
    batches = {(Lane(row.lane), row.tenant_id, row.kind): row.batches for row in rows}
    return Flying(batches, any(row.lost for row in rows))


async def waiting(session: AsyncSession) -> dict[Lane, list[UUID]]:
    """Return the tenants with waiting jobs by lane, in order; those that are not active when what waits may go on.

    One whose jobs are all for later is in it as well: `give_out` finds nothing for it.
    """
    found: dict[Lane, list[UUID]] = {}
    for row in await session.execute(_WAITING):
        found.setdefault(Lane(row.lane), []).append(row.tenant_id)
    return found


async def return_lost(session: AsyncSession, *, all_of_it: bool = False) -> int:
    """Queue again what was given out and whose lease ran out: the worker or the broker lost it. Waits for nobody: a
    batch of which a job is locked is left alone.

    `all_of_it`: whatever the lease says, since no worker lives that could hold one; what a dead one left locked is
    waited for.
    """
    result = await session.execute(_RETURN_ALL if all_of_it else _RETURN_LOST)
    return int(getattr(result, "rowcount", 0))


async def return_unstarted(session: AsyncSession, *, batch_id: UUID | None = None) -> int:
    """Queue again what was given out and no worker has begun, or one such batch; its message, if it comes after all,
    finds nothing to do. What is locked is being begun or cancelled, and is left alone."""
    given_out = Job.batch_id.is_not(None) if batch_id is None else Job.batch_id == batch_id
    unstarted = select(Job.tenant_id, Job.id).where(given_out, Job.state.in_(WAITING)).order_by(Job.tenant_id, Job.id)
    free = unstarted.with_for_update(skip_locked=True).cte("free")
    back = update(Job).where(Job.tenant_id == free.c.tenant_id, Job.id == free.c.id)
    result = await session.execute(back.values(batch_id=None, lease_until=None))
    return int(getattr(result, "rowcount", 0))


async def give_out(
    session: AsyncSession,
    tenant_id: UUID,
    lane: Lane,
    *,
    turn: int,
    size: int,
    max_cost: int,
    lease: timedelta,
    kinds: frozenset[str] | None = None,
) -> GivenOut | None:
    """Take the next jobs of one tenant in a lane as a batch: documents together, anything else and any repeat alone.

    `turn` counts the batches of the tenant in this lane: removals and documents take turns, and every fourth batch
    begins with the lowest priority, so that a steady stream of one starves no other. A job that was tried before goes
    alone, so that one that kills its worker takes no other with it. Of a tenant that is not active only what may go on
    is given out, its erasure first; of any, only jobs of `kinds`, where they are said. Returns None when no job is due;
    the caller commits before it sends the batch.
    """
    taken: list[UUID] = []
    kind, cost = "", 0
    going_on = _GOING_ON.get(await session.scalar(select(Tenant.state).where(Tenant.id == tenant_id)) or "")
    for condition in _preferences(lane, turn, kinds) if going_on is None else _of_kinds(going_on, kinds):
        for job in await _next(session, tenant_id, lane, condition, size if lane is Lane.MAIN else 1):
            alone = job.attempts > 0 or job.kind != "ingest"
            if taken and (alone or cost + job.cost > max_cost):
                break
            taken.append(job.id)
            kind, cost = job.kind, cost + job.cost
            if alone:
                break
        if taken:
            break
    if not taken:
        return None
    batch_id = uuid7()
    await session.execute(
        update(Job)
        .where(Job.tenant_id == tenant_id, Job.id == any_(literal(taken, ARRAY(Uuid))))
        .values(batch_id=batch_id, lease_until=func.now() + lease)
    )
    return GivenOut(batch_id, kind, cost)


def _preferences(lane: Lane, turn: int, kinds: frozenset[str] | None) -> Sequence[ColumnElement[bool]]:
    if lane is not Lane.MAIN:
        wanted = _among(kinds)
        return [] if kinds is not None and not kinds else [wanted & (Job.priority == one) for one in Priority]
    # What cannot be among them is not looked for: a queue of documents may be long.
    ingested = kinds is None or "ingest" in kinds
    documents = [(Job.kind == "ingest") & (Job.priority == one) for one in Priority] if ingested else []
    others = None if kinds is None else kinds - {"ingest"}
    removals = [(Job.kind != "ingest") & _among(others)] if others is None or others else []
    if turn % 4 == 3:
        return [*reversed(documents), *removals]
    return [*removals, *documents] if turn % 2 == 0 else [*documents, *removals]


def _of_kinds(going_on: Sequence[str], kinds: frozenset[str] | None) -> Sequence[ColumnElement[bool]]:
    first, *others = going_on
    removals = (Job.kind != "ingest") & _among(kinds)
    return [removals & (Job.kind == first), removals & Job.kind.in_(others)]


def _among(kinds: frozenset[str] | None) -> ColumnElement[bool]:
    return true() if kinds is None else Job.kind.in_(sorted(kinds))


async def _next(
    session: AsyncSession, tenant_id: UUID, lane: Lane, condition: ColumnElement[bool], limit: int
) -> Sequence[Job]:
    due = or_(Job.not_before.is_(None), Job.not_before <= func.now())
    mine = (Job.tenant_id == tenant_id, Job.lane == lane, Job.state.in_(WAITING), Job.batch_id.is_(None))
    query = (
        select(Job.id, Job.kind, Job.attempts, Job.cost)
        .where(*mine, due, condition)
        .order_by(Job.created_at, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return (await session.execute(query)).all()  # type: ignore[return-value]  # rows with these four columns


async def queued(session: AsyncSession, tenant_id: UUID) -> tuple[int, int]:
    """Return how many documents of a tenant wait, and their bytes, in a session of the tenant."""
    mine = (Job.tenant_id == tenant_id, Job.state.in_(WAITING), Job.batch_id.is_(None), Job.kind == "ingest")
    row = (await session.execute(select(func.count(), func.coalesce(func.sum(Job.cost), 0)).where(*mine))).one()
    return int(row[0]), int(row[1])


@dataclass(frozen=True)
class Depth:
    """How much of a lane of a queue is in a state: jobs, bytes of their content, seconds since the oldest could begin.
    A job that is not due yet, one that is paused say, has no age."""

    queue: str
    """Whose workers can do them, by the models of their tenants now."""
    lane: Lane
    state: str
    jobs: int
    bytes: int
    oldest_s: float


async def depths(session: AsyncSession, queues: ModelQueues = EVERY_WORKERS) -> list[Depth]:
    """Return how long the queues of all tenants are."""
    rows = (await session.execute(_DEPTHS)).all()
    routes = await queues.routes(session, {row.tenant_id for row in rows})
    found: dict[tuple[str, Lane, str], Depth] = {}
    for row in rows:
        place = (routes.queue(row.tenant_id, row.kind), Lane(row.lane), row.state)
        known = found.get(place, Depth(*place, 0, 0, 0.0))
        oldest_s = max(known.oldest_s, float(row.oldest_s))
        found[place] = Depth(*place, known.jobs + row.jobs, known.bytes + int(row.bytes), oldest_s)
    return [found[place] for place in sorted(found)]
