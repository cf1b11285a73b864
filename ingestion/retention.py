"""What a tenant's retention says is done to its documents. No function commits."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs
from ingestion.deletes import delete_documents
from ingestion.models import UNFINISHED, Priority
from ingestion.sources.models import SourceEntry
from shards.models import Document, DocumentVersion
from tenants.bulk import insert_all
from tenants.repository import retention_of

AT_ONCE = 500
_TOO_MANY = text(
    "SELECT v.document_id FROM document_versions v JOIN documents d ON d.tenant_id = v.tenant_id"  # noqa: S608 - constants
    " AND d.id = v.document_id AND d.deleted_at IS NULL WHERE v.tenant_id = :tenant AND v.state IN ('active', 'kept')"
    " AND NOT EXISTS (SELECT FROM jobs j WHERE j.tenant_id = v.tenant_id AND j.document_id = v.document_id"
    f" AND j.{UNFINISHED}) GROUP BY v.document_id"
    " HAVING count(*) > :keep AND bool_or(v.state = 'kept') LIMIT :most"
)


async def delete_aged(session: AsyncSession, tenant_id: UUID) -> int:
    """Delete, as their owner would, up to `AT_ONCE` documents that were not updated for too long; return how many.

    A version that was taken in is an update, whether or not it was ingested yet. What a source lists is as its source
    has it: it goes when it vanishes there.
    """
    days = (await retention_of(session, tenant_id)).max_age_days
    if days is None:
        return 0
    limit = func.now() - timedelta(days=days)
    # "The newest is old", not "none is young": a version that commits while its document is being locked is not seen,
    # but that it is not the newest any more is.
    newest_is_old = exists().where(
        DocumentVersion.tenant_id == Document.tenant_id,
        DocumentVersion.document_id == Document.id,
        DocumentVersion.version == Document.latest_version,
        DocumentVersion.created_at < limit,
    )
    listed = exists().where(SourceEntry.tenant_id == Document.tenant_id, SourceEntry.document_id == Document.id)
    aged = (
        select(Document.id)
        .where(
            Document.tenant_id == tenant_id,
            Document.deleted_at.is_(None),
            Document.updated_at < limit,
            newest_is_old,
            ~listed,
        )
        .order_by(Document.id)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    gone = list(await session.scalars(aged))
    await delete_documents(session, tenant_id, gone, priority=Priority.BACKGROUND)
    return len(gone)


async def queue_purges(session: AsyncSession, tenant_id: UUID) -> int:
    """Queue the purge of up to `AT_ONCE` documents that have more versions than are to be kept; return how many."""
    keep = (await retention_of(session, tenant_id)).keep_versions
    found = await session.scalars(_TOO_MANY, {"tenant": tenant_id, "keep": keep, "most": AT_ONCE})
    purges = [jobs.new_job(tenant_id, "purge", document_id=one, priority=Priority.BACKGROUND) for one in found]
    await insert_all(session, purges)
    return len(purges)
