"""Documents, versions and chunks for the write line; uploads are in `upload_rows.py`. No function commits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Uuid,
    any_,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.editions import live_edition
from ingestion.models import Job
from shards.index_models import IndexGeneration
from shards.models import Chunk, Document, DocumentField, DocumentVersion
from tenants.cursor import Position
from tenants.errors import NotFound
from tenants.repository import newest_first

_FLIPS = "unnest(CAST(:documents AS uuid[]), CAST(:versions AS integer[])) AS f (document_id, version)"
_REPLACE = text(
    f"UPDATE document_versions v SET state = 'replaced' FROM {_FLIPS} WHERE v.tenant_id = :tenant"  # noqa: S608 - constants
    " AND v.document_id = f.document_id AND v.version < f.version AND v.state IN ('pending', 'active', 'failed')"
    " RETURNING v.document_id"
)
_ACTIVATE = text(
    "UPDATE document_versions v SET state = 'active', indexed_at = clock_timestamp(), title = f.title,"
    " pages = f.pages, chunk_count = f.chunks FROM unnest(CAST(:documents AS uuid[]), CAST(:versions AS integer[]),"
    " CAST(:titles AS text[]), CAST(:pages AS integer[]), CAST(:chunks AS integer[]))"
    " AS f (document_id, version, title, pages, chunks)"
    " WHERE v.tenant_id = :tenant AND v.document_id = f.document_id AND v.version = f.version"
)
_SERVE = text(
    "UPDATE documents d SET state = 'active', title = v.title, format = v.format, metadata = v.metadata,"  # noqa: S608 - constants
    " language = v.metadata ->> 'language',"
    " active_version = v.version, active_version_no = v.version_no, updated_at = v.indexed_at"
    f" FROM document_versions v, {_FLIPS} WHERE d.tenant_id = :tenant AND d.id = f.document_id"
    " AND v.tenant_id = :tenant AND v.document_id = f.document_id AND v.version = f.version"
)

_DOCUMENTS_AT_ONCE = 500
_LAST = 2**31 - 1
"""The largest number of a version that there can be."""


async def served_version(session: AsyncSession, document: Document) -> DocumentVersion:
    """Return the version whose original is served: the active one, or the newest while none is active."""
    number = document.active_version or document.latest_version
    return await session.get_one(DocumentVersion, (document.tenant_id, document.id, number))


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


_DOWNLOADABLE = ("pending", "active", "failed", "kept")


async def list_versions(
    session: AsyncSession, document: Document, *, before: int | None, limit: int
) -> list[DocumentVersion]:
    """Return up to `limit` + 1 versions whose originals are there, newest first, from before a version."""
    query = select(DocumentVersion).where(
        DocumentVersion.tenant_id == document.tenant_id,
        DocumentVersion.document_id == document.id,
        DocumentVersion.state.in_(_DOWNLOADABLE),
    )
    if before is not None:
        query = query.where(DocumentVersion.version < before)
    return list(await session.scalars(query.order_by(DocumentVersion.version.desc()).limit(limit + 1)))


async def get_version(session: AsyncSession, document: Document, version: int) -> DocumentVersion:
    """Return a version whose original is there; raise `NotFound` otherwise."""
    key = (document.tenant_id, document.id, version)
    found = await session.get(DocumentVersion, key) if 0 < version <= _LAST else None
    if found is None or found.state not in _DOWNLOADABLE:
        raise NotFound("There is no such version of this document, or its original is not kept.")
    return found


async def lock_documents(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    ids: Sequence[UUID] | None,
    external_ids: Sequence[str] | None,
    condition: ColumnElement[bool] | None,
    limit: int,
) -> list[tuple[UUID, str | None]]:
    """Lock documents that are not deleted, chosen by one of the three; return their ids and external ids."""
    query = select(Document.id, Document.external_id).where(
        Document.tenant_id == tenant_id, Document.deleted_at.is_(None)
    )
    if ids is not None:
        query = query.where(Document.id.in_(ids))
    elif external_ids is not None:
        query = query.where(Document.external_id.in_(external_ids))
    else:
        assert condition is not None
        query = query.where(condition)
    rows = await session.execute(query.order_by(Document.id).limit(limit).with_for_update(of=Document))
    return [(row.id, row.external_id) for row in rows]


async def list_chunks(session: AsyncSession, document: Document, *, after_position: int, limit: int) -> Sequence[Chunk]:
    """Return up to `limit` + 1 chunks of the active version, in order."""
    query = (
        select(Chunk)
        .where(
            Chunk.tenant_id == document.tenant_id,
            Chunk.document_id == document.id,
            Chunk.version == document.active_version,
            Chunk.edition == live_edition(document.tenant_id),
            Chunk.position > after_position,
        )
        .order_by(Chunk.position)
        .limit(limit + 1)
    )
    return list(await session.scalars(query))


async def pending_versions(session: AsyncSession, jobs: Sequence[Job]) -> dict[UUID, DocumentVersion]:
    """Return the version that each ingest job is about, by job id; jobs of deleted documents are left out."""
    if not jobs:
        return {}
    wanted = {(job.document_id, job.version): job.id for job in jobs}
    query = (
        select(DocumentVersion)
        .join(
            Document,
            (Document.tenant_id == DocumentVersion.tenant_id) & (Document.id == DocumentVersion.document_id),
        )
        .where(
            DocumentVersion.tenant_id == jobs[0].tenant_id,
            DocumentVersion.document_id == any_(literal([job.document_id for job in jobs], ARRAY(Uuid))),
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


async def lock_current(session: AsyncSession, tenant_id: UUID, versions: Sequence[DocumentVersion]) -> set[int]:
    """Lock the documents of these versions; return the numbers (`version_no`) of those that may still become active.

    A version of a document that was deleted meanwhile, or already serves a newer version, is left out.
    """
    query = (
        select(Document.id, Document.active_version)
        .where(
            Document.tenant_id == tenant_id,
            Document.id == any_(literal([version.document_id for version in versions], ARRAY(Uuid))),
            Document.deleted_at.is_(None),
        )
        .order_by(Document.id)
        .with_for_update()
    )
    active = {row.id: row.active_version or 0 for row in await session.execute(query)}
    return {
        version.version_no
        for version in versions
        if version.document_id in active and active[version.document_id] <= version.version
    }


async def store_chunks(session: AsyncSession, tenant_id: UUID, rows: list[dict[str, Any]]) -> None:
    """Write chunks; a repeat replaces what an interrupted attempt may have left."""
    if not rows:
        return
    versions = {(row["document_id"], row["version"], row["edition"]) for row in rows}
    key = tuple_(Chunk.document_id, Chunk.version, Chunk.edition)
    await session.execute(delete(Chunk).where(Chunk.tenant_id == tenant_id, key.in_(versions)))
    await session.execute(insert(Chunk), rows)


async def flip_active(session: AsyncSession, flips: Sequence[Flip]) -> set[UUID]:
    """Make versions the active ones of their locked documents, one each: the only commit point of an ingestion.

    Returns the documents whose former version was replaced and is to be purged.
    """
    values = {
        "tenant": flips[0].version.tenant_id,
        "documents": [flip.version.document_id for flip in flips],
        "versions": [flip.version.version for flip in flips],
    }
    replaced = set(await session.scalars(_REPLACE, values))
    found = {
        "titles": [flip.title for flip in flips],
        "pages": [flip.pages for flip in flips],
        "chunks": [flip.chunk_count for flip in flips],
    }
    await session.execute(_ACTIVATE, values | found)
    await session.execute(_SERVE, values)
    return replaced


async def drop_superseded(session: AsyncSession, versions: Sequence[DocumentVersion]) -> set[UUID]:
    """Mark versions that did not become active; return their documents, which are to be purged of them."""
    for version in versions:
        await session.execute(
            update(DocumentVersion).where(*_of_version(DocumentVersion, version)).values(state="replaced")
        )
    return {version.document_id for version in versions}


async def fail_version(session: AsyncSession, version: DocumentVersion) -> None:
    """Mark a waiting version failed; its document too, unless an older version serves. One that serves already, and
    was to be read again, stays as it is."""
    mine = (*_of_version(DocumentVersion, version), DocumentVersion.state == "pending")
    await session.execute(update(DocumentVersion).where(*mine).values(state="failed"))
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


@dataclass(frozen=True)
class Purgeable:
    """The versions of a document of which something may go, and when it was deleted."""

    deleted_at: datetime | None
    gone: list[DocumentVersion]
    """Of which nothing stays."""
    kept: list[DocumentVersion]
    """Of which the original stays, to be downloaded."""
    failed: list[DocumentVersion]
    """Of which an attempt may have left something in the engines."""

    @property
    def numbers(self) -> list[int]:
        """Return the versions that no engine should hold."""
        return [version.version_no for version in (*self.gone, *self.kept, *self.failed)]


async def purgeable_versions(session: AsyncSession, tenant_id: UUID, document_id: UUID, *, keep: int) -> Purgeable:
    """Return the versions whose traces may go: all of a deleted document, else those replaced beyond the newest
    `keep`."""
    document = await session.get(Document, (tenant_id, document_id))
    query = select(DocumentVersion).where(
        DocumentVersion.tenant_id == tenant_id, DocumentVersion.document_id == document_id
    )
    versions = list(await session.scalars(query.order_by(DocumentVersion.version.desc())))
    if document is not None and document.deleted_at is not None:
        return Purgeable(document.deleted_at, versions, [], [])
    room = keep - sum(version.state == "active" for version in versions)
    former = [version for version in versions if version.state in ("replaced", "kept")]
    return Purgeable(
        None,
        former[max(room, 0) :],
        [version for version in former[: max(room, 0)] if version.state == "replaced"],
        [version for version in versions if version.state == "failed"],
    )


async def keep_originals(session: AsyncSession, versions: Sequence[DocumentVersion]) -> int:
    """Delete the chunks and fields of replaced versions whose original stays; return how many chunks there were."""
    chunks = 0
    for version in versions:
        gone = await session.execute(delete(Chunk).where(*_of_version(Chunk, version)).returning(Chunk.id))
        chunks += len(gone.all())
        await session.execute(delete(DocumentField).where(*_of_version(DocumentField, version)))
        kept = update(DocumentVersion).where(*_of_version(DocumentVersion, version))
        await session.execute(kept.values(state="kept"))
    return chunks


async def count_rows(session: AsyncSession, versions: Sequence[DocumentVersion]) -> int:
    """Return how many rows there are of versions, of their chunks and of their fields."""
    found = 0
    for version in versions:
        for model in (Chunk, DocumentField, DocumentVersion):
            found += await session.scalar(select(func.count()).where(*_of_version(model, version))) or 0
    return found


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


async def delete_editions(session: AsyncSession, tenant_id: UUID, editions: Sequence[int]) -> int:
    """Delete the chunks of editions; return how many there were."""
    if not editions:
        return 0
    gone = delete(Chunk).where(Chunk.tenant_id == tenant_id, Chunk.edition.in_(editions))
    return len((await session.execute(gone.returning(Chunk.id))).all())


async def delete_editions_of_some(
    session: AsyncSession, tenant_id: UUID, editions: Sequence[int], *, after: UUID
) -> UUID | None:
    """Delete the chunks of editions of the documents next `after` an id; return the last of these, None at the end."""
    some = select(Document.id).where(Document.tenant_id == tenant_id, Document.id > after)
    documents = list(await session.scalars(some.order_by(Document.id).limit(_DOCUMENTS_AT_ONCE)))
    among = any_(literal(documents, ARRAY(Uuid)))
    await session.execute(
        delete(Chunk).where(Chunk.tenant_id == tenant_id, Chunk.document_id == among, Chunk.edition.in_(editions))
    )
    return documents[-1] if documents else None


async def count_documents(session: AsyncSession, tenant_id: UUID) -> int:
    """Return how many documents are searched."""
    searched = (Document.tenant_id == tenant_id, Document.active_version_no.is_not(None), Document.deleted_at.is_(None))
    return int(await session.scalar(select(func.count()).select_from(Document).where(*searched)) or 0)


async def count_chunks(session: AsyncSession, tenant_id: UUID) -> int:
    """Return how many chunks the tenant's live index holds."""
    live = (IndexGeneration.tenant_id == tenant_id, IndexGeneration.state == "live")
    return int(await session.scalar(select(IndexGeneration.rows).where(*live)) or 0)


def _of_version(model: Any, version: DocumentVersion) -> tuple[ColumnElement[bool], ...]:
    return (
        model.tenant_id == version.tenant_id,
        model.document_id == version.document_id,
        model.version == version.version,
    )
