"""Documents, versions and chunks for the write line. Every function takes an open session; none commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, insert, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from ingestion.metadata import field_rows
from ingestion.models import Job
from ingestion.objects import object_key
from shards.models import Chunk, Document, DocumentField, DocumentVersion
from tenants.cursor import Position
from tenants.errors import NotFound
from tenants.repository import newest_first

_LOCK_IDENTITY = text("SELECT pg_advisory_xact_lock(hashtextextended(:identity, 9))")


@dataclass(frozen=True)
class Upload:
    """What came with an upload, validated."""

    filename: str
    content_type: str
    format: str
    size_bytes: int
    sha256: bytes
    external_id: str | None
    title: str | None
    metadata: dict[str, Any] | None
    """None when the uploader said nothing about it."""


async def find_same(session: AsyncSession, tenant_id: UUID, upload: Upload) -> Document | None:
    """Return the document that an upload is about: by `external_id` when given, else by equal content.

    Takes a lock on that identity until the transaction ends, so two equal uploads at once make one document.
    """
    identity = f"{tenant_id}:{upload.external_id}" if upload.external_id else f"{tenant_id}={upload.sha256.hex()}"
    await session.execute(_LOCK_IDENTITY, {"identity": identity})
    query = select(Document).where(Document.tenant_id == tenant_id, Document.deleted_at.is_(None))
    if upload.external_id:
        query = query.where(Document.external_id == upload.external_id)
    else:
        query = query.where(Document.content_sha256 == upload.sha256, Document.external_id.is_(None))
    found: Document | None = await session.scalar(query)
    return found


async def add_version(
    session: AsyncSession, tenant_id: UUID, upload: Upload, document: Document | None
) -> tuple[Document, DocumentVersion]:
    """Add a pending version, and its document when there is none yet; both are flushed."""
    title = upload.title or upload.filename.rsplit(".", 1)[0] or upload.filename
    if document is None:
        document = Document(
            tenant_id=tenant_id,
            id=uuid7(),
            external_id=upload.external_id,
            title=title,
            state="pending",
            source="upload",
            format=upload.format,
            doc_metadata=upload.metadata or {},
            content_sha256=upload.sha256,
            latest_version=0,
        )
        session.add(document)
    document.latest_version += 1
    document.content_sha256 = upload.sha256
    if document.active_version is None:
        document.state = "pending"
    version = DocumentVersion(
        tenant_id=tenant_id,
        document_id=document.id,
        version=document.latest_version,
        title=title,
        title_given=upload.title is not None,
        filename=upload.filename,
        content_type=upload.content_type,
        format=upload.format,
        size_bytes=upload.size_bytes,
        content_sha256=upload.sha256,
        object_key=object_key(tenant_id, document.id, document.latest_version),
        doc_metadata=upload.metadata or {},
        state="pending",
    )
    await session.flush()
    session.add(version)
    await session.flush()
    await _insert_fields(session, version)
    return document, version


async def latest_version(session: AsyncSession, document: Document) -> DocumentVersion:
    """Return the newest version of a document."""
    return await session.get_one(DocumentVersion, (document.tenant_id, document.id, document.latest_version))


async def served_version(session: AsyncSession, document: Document) -> DocumentVersion:
    """Return the version whose original is served: the active one, or the newest while none is active."""
    number = document.active_version or document.latest_version
    return await session.get_one(DocumentVersion, (document.tenant_id, document.id, number))


async def replace_metadata(session: AsyncSession, version: DocumentVersion, metadata: dict[str, Any]) -> None:
    """Change a version's metadata in place: its content stays, so nothing is embedded again."""
    version.doc_metadata = metadata
    await session.execute(delete(DocumentField).where(*_of_version(DocumentField, version)))
    await _insert_fields(session, version)


async def _insert_fields(session: AsyncSession, version: DocumentVersion) -> None:
    rows = [
        {"tenant_id": version.tenant_id, "document_id": version.document_id, "version": version.version, **row}
        for row in field_rows(version.doc_metadata)
    ]
    if rows:
        await session.execute(insert(DocumentField), rows)


async def get_document(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> Document:
    """Return a document that is not deleted; raise `NotFound` otherwise."""
    document = await session.get(Document, (tenant_id, document_id))
    if document is None or document.deleted_at is not None:
        raise NotFound("There is no document with this id.")
    return document


async def list_documents(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    condition: ColumnElement[bool] | None,
    state: str | None,
    after: Position | None,
    limit: int,
) -> list[Document]:
    """Return up to `limit` + 1 documents, newest first."""
    query = select(Document).where(Document.tenant_id == tenant_id, Document.deleted_at.is_(None))
    if condition is not None:
        query = query.where(condition)
    if state is not None:
        query = query.where(Document.state == state)
    return await newest_first(session, query, Document, after=after, limit=limit)


async def list_chunks(session: AsyncSession, document: Document, *, after_position: int, limit: int) -> Sequence[Chunk]:
    """Return up to `limit` + 1 chunks of the active version, in order."""
    query = (
        select(Chunk)
        .where(
            Chunk.tenant_id == document.tenant_id,
            Chunk.document_id == document.id,
            Chunk.version == document.active_version,
            Chunk.position > after_position,
        )
        .order_by(Chunk.position)
        .limit(limit + 1)
    )
    return list(await session.scalars(query))


async def pending_versions(session: AsyncSession, jobs: Sequence[Job]) -> dict[UUID, DocumentVersion]:
    """Return the version that each ingest job is about, by job id; jobs of deleted documents are left out."""
    wanted = {(job.document_id, job.version): job.id for job in jobs}
    query = (
        select(DocumentVersion)
        .join(
            Document,
            (Document.tenant_id == DocumentVersion.tenant_id) & (Document.id == DocumentVersion.document_id),
        )
        .where(
            DocumentVersion.tenant_id == jobs[0].tenant_id,
            DocumentVersion.document_id.in_([job.document_id for job in jobs]),
            Document.deleted_at.is_(None),
        )
    )
    found = await session.scalars(query)
    return {wanted[key]: row for row in found if (key := (row.document_id, row.version)) in wanted}


@dataclass(frozen=True)
class Flip:
    """What an ingestion found out about a version that is to become the active one."""

    version: DocumentVersion
    title: str
    pages: int | None
    chunk_count: int


async def lock_current(session: AsyncSession, versions: Sequence[DocumentVersion]) -> dict[UUID, Document]:
    """Lock the documents for which these versions may still become active, by document id.

    A document that was deleted meanwhile, or already serves a newer version, is left out.
    """
    query = (
        select(Document)
        .where(
            Document.tenant_id == versions[0].tenant_id,
            Document.id.in_([version.document_id for version in versions]),
            Document.deleted_at.is_(None),
        )
        .order_by(Document.id)
        .with_for_update()
    )
    newest = {version.document_id: version.version for version in versions}
    found = await session.scalars(query)
    return {doc.id: doc for doc in found if (doc.active_version or 0) <= newest[doc.id]}


async def store_chunks(session: AsyncSession, tenant_id: UUID, rows: list[dict[str, Any]]) -> None:
    """Write chunks; a repeat replaces what an interrupted attempt may have left."""
    if not rows:
        return
    versions = {(row["document_id"], row["version"]) for row in rows}
    await session.execute(
        delete(Chunk).where(Chunk.tenant_id == tenant_id, tuple_(Chunk.document_id, Chunk.version).in_(versions))
    )
    await session.execute(insert(Chunk), rows)


async def flip_active(session: AsyncSession, documents: dict[UUID, Document], flips: Sequence[Flip]) -> list[UUID]:
    """Make versions the active ones of their locked documents: the only commit point of an ingestion.

    Returns the documents whose former version was replaced and is to be purged.
    """
    query = select(DocumentVersion).where(
        DocumentVersion.tenant_id == flips[0].version.tenant_id,
        DocumentVersion.document_id.in_(list(documents)),
        DocumentVersion.state.in_(("pending", "active", "failed")),
    )
    rows = {(row.document_id, row.version): row for row in await session.scalars(query)}
    now, replaced = datetime.now(UTC), []
    for flip in flips:
        document, version = documents[flip.version.document_id], rows[flip.version.document_id, flip.version.version]
        for (document_id, number), row in rows.items():
            if document_id == document.id and number < version.version:
                row.state = "replaced"
                replaced.append(document_id)
        version.pages, version.chunk_count, version.indexed_at = flip.pages, flip.chunk_count, now
        version.state, version.title = "active", flip.title
        document.state, document.title, document.format = "active", flip.title, version.format
        document.doc_metadata = version.doc_metadata
        document.active_version, document.active_version_no = version.version, version.version_no
        document.updated_at = now
    return replaced


async def drop_superseded(session: AsyncSession, version: DocumentVersion) -> None:
    """Mark a version that did not become active, so that it is purged."""
    await session.execute(
        update(DocumentVersion).where(*_of_version(DocumentVersion, version)).values(state="replaced")
    )


async def fail_version(session: AsyncSession, version: DocumentVersion) -> None:
    """Mark a version failed; its document too, unless an older version serves."""
    await session.execute(update(DocumentVersion).where(*_of_version(DocumentVersion, version)).values(state="failed"))
    await session.execute(
        update(Document)
        .where(
            Document.tenant_id == version.tenant_id,
            Document.id == version.document_id,
            Document.active_version.is_(None),
            Document.latest_version == version.version,
        )
        .values(state="failed", updated_at=func.now())
    )


async def purgeable_versions(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> list[DocumentVersion]:
    """Return the versions whose traces may go: all of a deleted document, else the replaced ones."""
    document = await session.get(Document, (tenant_id, document_id))
    query = select(DocumentVersion).where(
        DocumentVersion.tenant_id == tenant_id, DocumentVersion.document_id == document_id
    )
    if document is None or document.deleted_at is None:
        query = query.where(DocumentVersion.state == "replaced")
    return list(await session.scalars(query))


async def delete_versions(session: AsyncSession, versions: Sequence[DocumentVersion]) -> dict[str, int]:
    """Delete the rows of versions, and of their document when it is deleted; return the counts."""
    counts = {"chunks": 0, "versions": 0}
    for version in versions:
        gone = await session.execute(delete(Chunk).where(*_of_version(Chunk, version)).returning(Chunk.id))
        counts["chunks"] += len(gone.all())
        await session.execute(delete(DocumentField).where(*_of_version(DocumentField, version)))
        await session.execute(delete(DocumentVersion).where(*_of_version(DocumentVersion, version)))
        counts["versions"] += 1
    return counts


async def delete_document_row(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> None:
    """Delete the row of a deleted document whose versions are gone."""
    await session.execute(
        delete(Document).where(
            Document.tenant_id == tenant_id, Document.id == document_id, Document.deleted_at.is_not(None)
        )
    )


async def count_active_chunks(session: AsyncSession, tenant_id: UUID) -> int:
    """Return how many chunks the tenant's active versions have."""
    total = select(func.coalesce(func.sum(DocumentVersion.chunk_count), 0)).where(
        DocumentVersion.tenant_id == tenant_id, DocumentVersion.state == "active"
    )
    return int(await session.scalar(total) or 0)


def _of_version(model: Any, version: DocumentVersion) -> tuple[ColumnElement[bool], ...]:
    return (
        model.tenant_id == version.tenant_id,
        model.document_id == version.document_id,
        model.version == version.version,
    )
