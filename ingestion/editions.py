"""Which edition of a tenant's chunks is read (see `shards.editions`)."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

_SERVED_EDITION = (
    "(SELECT c.edition FROM documents d JOIN chunks c ON c.tenant_id = d.tenant_id AND c.document_id = d.id"
    " AND c.version = d.active_version WHERE d.tenant_id = :tenant AND d.deleted_at IS NULL"
    " AND NOT EXISTS (SELECT FROM index_generations g WHERE g.tenant_id = :tenant AND g.edition = c.edition"
    " AND g.state = 'embedding')"
    " GROUP BY c.edition ORDER BY count(DISTINCT c.document_id) DESC, c.edition DESC LIMIT 1)"
)
LIVE_EDITION = (
    "coalesce((SELECT e.edition FROM index_generations e WHERE e.tenant_id = :tenant AND e.state = 'live'),"  # noqa: S608 - constants
    f" {_SERVED_EDITION}, 1)"
)
"""The edition of a tenant's chunks that is read, in SQL that takes `tenant`. Where the live generation is lost it is
that of most documents; the first while there is none."""


def live_edition(tenant_id: UUID) -> TextClause:
    """Return the expression for the edition of a tenant's chunks that is read."""
    return text(LIVE_EDITION).bindparams(tenant=tenant_id)


async def served_edition(session: AsyncSession, tenant_id: UUID) -> int | None:
    """Return the edition of the chunks that would be read if there were an index, None where no document has any."""
    edition: int | None = await session.scalar(text(f"SELECT {_SERVED_EDITION}"), {"tenant": tenant_id})
    return edition
