"""Deleting documents: whoever asks for it, invisible at the commit, and removed by a job each. None commits."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import any_, func, literal, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs
from ingestion.models import Job, Priority
from shards.models import Document
from tenants.bulk import insert_all


async def delete_documents(
    session: AsyncSession, tenant_id: UUID, document_ids: Sequence[UUID], *, priority: Priority = Priority.INTERACTIVE
) -> dict[UUID, Job]:
    """Delete documents: invisible when the caller commits. Return the jobs that remove them from every store, by
    document; those that were deleted already are left out."""
    gone = await session.scalars(
        update(Document)
        .where(
            Document.tenant_id == tenant_id,
            Document.id == any_(literal(list(document_ids), ARRAY(Document.id.type))),
            Document.deleted_at.is_(None),
        )
        .values(deleted_at=func.now())
        .returning(Document.id)
        .execution_options(synchronize_session=False)
    )
    made = {one: jobs.new_job(tenant_id, "delete", document_id=one, priority=priority) for one in gone}
    await insert_all(session, list(made.values()))
    return made
