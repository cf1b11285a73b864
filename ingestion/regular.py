"""Work that comes round for every tenant: checks of the stores, and what its retention says. None commits.

When it was last done is read off the jobs themselves. It is spread: at each look only so many tenants are taken that
all have had their turn when the time is over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs
from ingestion.models import FORGETTABLE, UNFINISHED
from tenants.auth import PLATFORM

LOOK_EVERY_S = 30.0
FORGET_EVERY_S = 10.0
_AT_ONCE = 1000
_KEPT = timedelta(days=30)
_DUE = (
    "SELECT t.id FROM tenants t LEFT JOIN LATERAL (SELECT max(j.created_at) AS at, bool_or(j.<unfinished>)"
    " AS unfinished FROM jobs j WHERE j.tenant_id = t.id AND j.kind = :kind) last ON true"
    " WHERE t.state = 'active' AND last.unfinished IS NOT TRUE AND <wanted>"
    " AND greatest(t.created_at, last.at) < now() - CAST(:every AS interval)"
    " ORDER BY greatest(t.created_at, last.at) LIMIT :most"
)
# Not beside another check (one that waits for a server to come back is none), and not while the tenant imports, unless
# it had to wait too often already.
_CHECKS = (
    "NOT EXISTS (SELECT FROM jobs o WHERE o.kind = 'fsck' AND o.state IN ('queued', 'running'))"
    " AND (greatest(t.created_at, last.at) < now() - 2 * CAST(:every AS interval) OR NOT (EXISTS (SELECT FROM jobs w"
    " WHERE w.tenant_id = t.id AND w.kind = 'ingest' AND w.state IN ('queued', 'retrying') AND w.batch_id IS NULL)"
    " OR EXISTS (SELECT FROM jobs w WHERE w.tenant_id = t.id AND w.kind = 'ingest' AND w.batch_id IS NOT NULL)))"
)
# A tenant that had a retention once, and has none any more, still has versions that were kept.
_RETENTIONS = "(t.settings -> 'retention' IS NOT NULL OR last.at IS NOT NULL)"
_INSTALLATION = text(
    # An operator's check of everything looks for it, too.
    "SELECT coalesce((SELECT max(created_at) FROM jobs WHERE tenant_id = :platform AND kind = 'fsck'"
    " AND state NOT IN ('failed', 'cancelled')),"
    " (SELECT min(created_at) FROM tenants)) < now() - CAST(:every AS interval)"
)
_FORGET = text(
    "DELETE FROM jobs WHERE tenant_id = :tenant AND kind = :kind AND finished_at < now() - CAST(:kept AS interval)"
)
_FORGET_ENDED = text(
    "DELETE FROM jobs j USING (SELECT tenant_id, id FROM jobs"
    " WHERE <forgettable> AND finished_at < now() - CAST(:kept AS interval)"
    " ORDER BY finished_at LIMIT :most FOR UPDATE SKIP LOCKED) old"
    " WHERE j.tenant_id = old.tenant_id AND j.id = old.id".replace("<forgettable>", FORGETTABLE)
)


def _statement(wanted: str) -> TextClause:
    return text(_DUE.replace("<wanted>", wanted).replace("<unfinished>", UNFINISHED))


_BY_KIND = {"fsck": _statement(_CHECKS), "retention": _statement(_RETENTIONS)}


async def due(session: AsyncSession, kind: str, every_s: float) -> Sequence[UUID]:
    """Return the tenants whose turn it is, in a dispatcher session."""
    tenants = await session.scalar(text("SELECT count(*) FROM tenants WHERE state = 'active'")) or 0
    most = max(1, math.ceil(tenants * LOOK_EVERY_S / every_s))
    values = {"kind": kind, "every": timedelta(seconds=every_s), "most": most}
    return list(await session.scalars(_BY_KIND[kind], values))


async def installation_due(session: AsyncSession, every_s: float) -> bool:
    """Say whether what belongs to no tenant is to be looked for, in a dispatcher session."""
    values = {"platform": PLATFORM, "every": timedelta(seconds=every_s)}
    return bool(await session.scalar(_INSTALLATION, values))


async def queue(session: AsyncSession, tenant_id: UUID, kind: str, payload: dict[str, object]) -> None:
    """Queue the work of one tenant, and forget how it went long ago."""
    await session.execute(_FORGET, {"tenant": tenant_id, "kind": kind, "kept": _KEPT})
    session.add(jobs.new_job(tenant_id, kind, payload=payload))


async def forget_ended(session: AsyncSession, days: int) -> int:
    """Forget some jobs that ended more than so many days ago, those first that ended first; return how many, in a
    dispatcher session.

    A few at a time: nothing waits for it. The jobs of deletions stay, because they carry the receipts.
    """
    gone = await session.execute(_FORGET_ENDED, {"kept": timedelta(days=days), "most": _AT_ONCE})
    return int(getattr(gone, "rowcount", 0))
