"""What checks leave behind: the figures of each tenant's newest one. No function commits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.models import UNFINISHED
from tenants.auth import PLATFORM

_STORE = text(
    "INSERT INTO store_checks (tenant_id, checked_at, seconds, chunks, differences, repaired)"
    " SELECT t.id, now(), :seconds, :chunks, :differences, :repaired FROM tenants t WHERE t.id = :tenant"
    " ON CONFLICT (tenant_id) DO UPDATE SET checked_at = excluded.checked_at, seconds = excluded.seconds,"
    " chunks = excluded.chunks, differences = excluded.differences, repaired = excluded.repaired"
).bindparams(bindparam("differences", type_=JSONB))
_NOT_CHECKED = "not_checked"
"""Stands among the stores in the differences of a tenant: how much of it could not be looked at."""
_NOTE = text(
    "INSERT INTO store_checks AS k (tenant_id, checked_at, seconds, chunks, differences, repaired)"
    " SELECT t.id, CAST('epoch' AS timestamptz), 0, 0,"
    " jsonb_build_object('not_checked', jsonb_build_object('number', 1)), 0 FROM tenants t WHERE t.id = :tenant"
    " ON CONFLICT (tenant_id) DO UPDATE SET differences = k.differences || excluded.differences"
)


async def store(session: AsyncSession, tenant_id: UUID, result: dict[str, Any]) -> None:
    """Keep the figures of a check, unless the tenant was erased meanwhile."""
    skipped = len(result["not_checked"])
    values = {
        "tenant": tenant_id,
        "seconds": result["seconds"],
        "chunks": result["checked"].get("chunks", 0),
        "differences": result["left"] | ({_NOT_CHECKED: {"number": skipped}} if skipped else {}),
        "repaired": result["repaired"],
    }
    await session.execute(_STORE, values)


async def note_not_checked(session: AsyncSession, tenant_id: UUID) -> None:
    """Say that a tenant could not be checked: what its last check found stays, and may have changed since."""
    await session.execute(_NOTE, {"tenant": tenant_id})


_DIFFERENCES = text(
    "SELECT s.key AS store, c.key AS class, sum(CAST(c.value AS bigint)) AS number FROM store_checks k,"
    " jsonb_each(k.differences) s, jsonb_each_text(s.value) c GROUP BY 1, 2"
)
_CHECKS = text(
    # Of those that the scheduler checks: a suspended tenant's last check may be as old as it likes.
    "SELECT count(k.tenant_id) AS checked, count(*) AS tenants, coalesce(sum(k.seconds), 0) AS seconds,"
    " coalesce(extract(epoch FROM max(k.checked_at)), 0) AS newest, coalesce(extract(epoch FROM min(k.checked_at)), 0)"
    " AS oldest, coalesce(sum(k.repaired), 0) AS repaired FROM tenants t LEFT JOIN store_checks k ON k.tenant_id = t.id"
    " AND k.checked_at > CAST('epoch' AS timestamptz) WHERE t.state = 'active'"
)
_INSTALLATION = text(
    "SELECT result -> 'installation' FROM jobs WHERE tenant_id = :platform AND kind = 'fsck' AND state = 'done'"
    " AND result -> 'installation' IS NOT NULL ORDER BY finished_at DESC LIMIT 1"
)
_REMOVALS = text(
    "SELECT kind, count(*) AS number, extract(epoch FROM now() - min(created_at)) AS oldest_s FROM jobs"  # noqa: S608 - constants
    " WHERE kind IN ('delete', 'purge', 'erase_tenant', 'drop_generation')"
    f" AND {UNFINISHED} GROUP BY kind"
)


@dataclass(frozen=True)
class Overview:
    """How the stores of all tenants stand by their newest checks."""

    differences: dict[tuple[str, str], int]
    """By store and class."""
    checked: int
    tenants: int
    seconds: float
    """What the newest checks took together."""
    newest: float
    """When the newest check ended, in seconds of the epoch; 0 before the first."""
    oldest: float
    repaired: int
    not_checked: int
    """Tenants, or parts of them, and servers that the newest checks could not look at."""


async def overview(session: AsyncSession) -> Overview:
    """Return the figures of all tenants, in an admin session."""
    rows = (await session.execute(_DIFFERENCES)).all()
    differences = {(row.store, row[1]): int(row.number) for row in rows}
    one = (await session.execute(_CHECKS)).one()
    installation = await session.scalar(_INSTALLATION, {"platform": PLATFORM}) or {"left": {}, "not_checked": 0}
    for store_name, classes in installation["left"].items():
        for kind, number in classes.items():
            differences[store_name, kind] = differences.get((store_name, kind), 0) + int(number)
    skipped = sum(number for (place, _), number in differences.items() if place == _NOT_CHECKED)
    skipped += installation["not_checked"]
    differences = {key: number for key, number in differences.items() if key[0] != _NOT_CHECKED}
    times = (float(one.seconds), float(one.newest), float(one.oldest))
    return Overview(differences, one.checked, one.tenants, *times, int(one.repaired), skipped)


@dataclass(frozen=True)
class Removals:
    """Removals of one kind that are not done: how many, and the age of the oldest in seconds."""

    kind: str
    number: int
    oldest_s: float


async def removals(session: AsyncSession) -> list[Removals]:
    """Return what was deleted and is not purged yet, in an admin session."""
    return [Removals(row.kind, row.number, float(row.oldest_s)) for row in await session.execute(_REMOVALS)]
