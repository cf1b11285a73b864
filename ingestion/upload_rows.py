"""The rows of uploads: which documents they are about, and what is added. Open sessions are taken; none commits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, LargeBinary, Text, Uuid, any_, delete, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from ingestion.metadata import LANGUAGE, field_rows
from ingestion.objects import object_key
from shards.models import Document, DocumentField, DocumentVersion
from tenants.bulk import insert_all

Identity = str | bytes
"""What makes two uploads the same document: the `external_id` when given, else the SHA-256 of the content."""

# In the order of the keys, so that two requests with some of them in common do not wait for each other.
_LOCK = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


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
    source: str = "upload"
    """Where it comes from: the name of a source, or an upload."""

    @property
    def identity(self) -> Identity:
        """Return what tells its document from others."""
        return self.external_id or self.sha256


async def find_same(
    session: AsyncSession, tenant_id: UUID, uploads: Sequence[Upload]
) -> dict[Identity, tuple[Document, DocumentVersion]]:
    """Return the documents that uploads are about, each with its newest version, by `Upload.identity`.

    Takes a lock on every identity until the transaction ends, so two equal uploads at once make one document.
    """
    identities = {upload.identity for upload in uploads}
    await session.execute(_LOCK, {"keys": sorted(_lock_key(tenant_id, identity) for identity in identities)})
    names = [identity for identity in identities if isinstance(identity, str)]
    digests = [identity for identity in identities if isinstance(identity, bytes)]
    found: dict[Identity, tuple[Document, DocumentVersion]] = {}
    query = (
        select(Document, DocumentVersion)
        .join(
            DocumentVersion,
            (DocumentVersion.tenant_id == Document.tenant_id)
            & (DocumentVersion.document_id == Document.id)
            & (DocumentVersion.version == Document.latest_version),
        )
        .where(Document.tenant_id == tenant_id, Document.deleted_at.is_(None))
    )
    if names:
        same = query.where(Document.external_id == any_(literal(names, ARRAY(Text))))
        found |= {row.Document.external_id: tuple(row) for row in await session.execute(same)}
    if digests:
        alike = Document.content_sha256 == any_(literal(digests, ARRAY(LargeBinary)))
        same = query.where(Document.external_id.is_(None), alike)
        found |= {row.Document.content_sha256: tuple(row) for row in await session.execute(same)}
    if not found:
        return found
    # A delete that commits while this transaction is under way must not take the new version with it: from here on it
    # waits, and what it has deleted already is not the same document any more.
    ids = [document.id for document, _ in found.values()]
    present = select(Document.id).where(
        Document.tenant_id == tenant_id, Document.id == any_(literal(ids, ARRAY(Uuid))), Document.deleted_at.is_(None)
    )
    locked = set(await session.scalars(present.order_by(Document.id).with_for_update()))
    return {identity: pair for identity, pair in found.items() if pair[0].id in locked}


def new_version(tenant_id: UUID, upload: Upload, document: Document | None) -> tuple[Document, DocumentVersion]:
    """Return a pending version of a document, which is made when there is none yet."""
    now = datetime.now(UTC)
    title = upload.title or upload.filename.rsplit(".", 1)[0] or upload.filename
    if document is None:
        document = Document(
            tenant_id=tenant_id,
            id=uuid7(),
            external_id=upload.external_id,
            title=title,
            state="pending",
            source=upload.source,
            format=upload.format,
            doc_metadata=upload.metadata or {},
            content_sha256=upload.sha256,
            latest_version=0,
            active_version=None,
            created_at=now,
            updated_at=now,
        )
    document.latest_version += 1
    document.original = "intact"
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
        created_at=now,
    )
    return document, version


async def add_versions(session: AsyncSession, added: Sequence[tuple[Document, DocumentVersion]]) -> None:
    """Write new versions, with those of their documents that are new, and their fields."""
    documents = {document.id: document for document, _ in added if document not in session}
    versions = [version for _, version in added]
    await insert_all(session, list(documents.values()))
    await insert_all(session, versions)
    await _insert_fields(session, versions)


def describe(document: Document, version: DocumentVersion, metadata: dict[str, Any]) -> None:
    """Change the newest version's metadata in place: its content stays, so nothing is embedded again."""
    version.doc_metadata = metadata
    if document.active_version == version.version:
        document.doc_metadata, document.language = metadata, metadata.get(LANGUAGE)


async def replace_fields(session: AsyncSession, versions: Sequence[DocumentVersion]) -> None:
    """Write the fields of versions anew, after `describe`."""
    if versions:
        keys = [(version.document_id, version.version) for version in versions]
        of_version: ColumnElement[bool] = tuple_(DocumentField.document_id, DocumentField.version).in_(keys)
        await session.execute(delete(DocumentField).where(DocumentField.tenant_id == versions[0].tenant_id, of_version))
        await _insert_fields(session, versions)


async def _insert_fields(session: AsyncSession, versions: Sequence[DocumentVersion]) -> None:
    fields = [
        DocumentField(tenant_id=version.tenant_id, document_id=version.document_id, version=version.version, **row)
        for version in versions
        for row in field_rows(version.doc_metadata)
    ]
    await insert_all(session, fields)


def _lock_key(tenant_id: UUID, identity: Identity) -> int:
    kind, content = (b":", identity.encode()) if isinstance(identity, str) else (b"=", identity)
    digest = hashlib.sha256(tenant_id.bytes + kind + content).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
