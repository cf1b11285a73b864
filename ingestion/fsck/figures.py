"""What checks leave behind: the figures of each tenant's newest one. No function commits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

_STORE = text(
    "INSERT INTO store_checks (tenant_id, checked_at, seconds, chunks, differences, repaired)"
    " SELECT t.id, now(), :seconds, :chunks, :differences, :repaired FROM tenants t WHERE t.id = :tenant"
    " ON CONFLICT (tenant_id) DO UPDATE SET checked_at = excluded.checked_at, seconds = excluded.seconds,"
    " chunks = excluded.chunks, differences = excluded.differences, repaired = excluded.repaired"
).bindparams(bindparam("differences", type_=JSONB))


async def store(session: AsyncSession, tenant_id: UUID, result: dict[str, Any]) -> None:
    """Keep the figures of a check, unless the tenant was erased meanwhile."""
    values = {
        "tenant": tenant_id,
        "seconds": result["seconds"],
        "chunks": result["checked"].get("chunks", 0),
        "differences": result["left"],
        "repaired": result["repaired"],
    }
    await session.execute(_STORE, values)
