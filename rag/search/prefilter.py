"""Metadata pre-filter in Postgres: which versions may match. The engines obey it exactly."""

from __future__ import annotations

from uuid import UUID

import numpy as np
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shards.filters import Filter, compile_filter
from shards.models import Document
from shards.vectors import VersionScope


async def allowed_versions(session: AsyncSession, tenant_id: UUID, tree: Filter) -> VersionScope:
    """Return the active versions of the documents that match, under row-level security."""
    query = select(Document.active_version_no).where(
        Document.tenant_id == tenant_id,
        Document.deleted_at.is_(None),
        Document.active_version_no.is_not(None),
        compile_filter(tree),
    )
    numbers = [number for number in await session.scalars(query) if number is not None]
    return VersionScope(np.array(sorted(numbers), dtype=np.int64))
