"""Tables of the corpus: documents, their versions, searchable metadata fields, and chunks.

They live below both lines, because the write line fills them and the read line reads them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    and_,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenants.db import Base

Timestamp = DateTime(timezone=True)


class Document(Base):
    """One document of a tenant. State: pending, active, failed. `deleted_at` hides it from the moment of its commit."""

    __tablename__ = "documents"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        Index(
            "documents_external_id",
            "tenant_id",
            "external_id",
            unique=True,
            postgresql_where=text("deleted_at IS NULL AND external_id IS NOT NULL"),
        ),
        Index(
            "documents_content",
            "tenant_id",
            "content_sha256",
            unique=True,
            postgresql_where=text("deleted_at IS NULL AND external_id IS NULL"),
        ),
        Index("documents_listing", "tenant_id", "created_at", "id"),
        Index("documents_active", "tenant_id", "active_version_no"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    external_id: Mapped[str | None] = mapped_column(Text)
    title: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(Text)
    language: Mapped[str | None] = mapped_column(Text)
    doc_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)
    content_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    """Of the newest version; decides what counts as the same content."""
    original: Mapped[str] = mapped_column(Text, server_default="intact")
    """Of the newest version, as the last check of the stores found it: intact, missing, damaged."""
    latest_version: Mapped[int]
    active_version: Mapped[int | None]
    active_version_no: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    deleted_at: Mapped[datetime | None] = mapped_column(Timestamp)


class DocumentVersion(Base):
    """One uploaded content of a document; `version_no` is its key in the engines.

    State: pending, active, failed, replaced, kept (replaced, and only its original is still there).
    """

    __tablename__ = "document_versions"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "document_id"], ["documents.tenant_id", "documents.id"]),
        UniqueConstraint("tenant_id", "version_no"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    version_no: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    title: Mapped[str] = mapped_column(Text)
    title_given: Mapped[bool]
    """Whether the uploader chose the title; otherwise the one found in the document takes its place."""
    filename: Mapped[str] = mapped_column(Text)
    content_type: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    content_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    object_key: Mapped[str] = mapped_column(Text)
    doc_metadata: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB)
    state: Mapped[str] = mapped_column(Text)
    pages: Mapped[int | None]
    chunk_count: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    indexed_at: Mapped[datetime | None] = mapped_column(Timestamp)


class DocumentField(Base):
    """One value of one metadata field of one version, in a typed column that an index under RLS can serve."""

    __tablename__ = "document_fields"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "document_id", "version"],
            ["document_versions.tenant_id", "document_versions.document_id", "document_versions.version"],
        ),
        Index("document_fields_text", "tenant_id", "key", "text_value"),
        Index("document_fields_number", "tenant_id", "key", "number_value"),
        Index("document_fields_time", "tenant_id", "key", "time_value"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    text_value: Mapped[str | None] = mapped_column(Text)
    number_value: Mapped[float | None]
    bool_value: Mapped[bool | None]
    time_value: Mapped[datetime | None] = mapped_column(Timestamp)


class Chunk(Base):
    """One passage of one version: the only place its text is read from.

    While a tenant is moved to another embedding model or chunking, a version has chunks of two editions; questions are
    answered from that of the live generation.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "document_id", "version"],
            ["document_versions.tenant_id", "document_versions.document_id", "document_versions.version"],
        ),
        Index("chunks_order", "tenant_id", "document_id", "version", "edition", "position"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    document_id: Mapped[UUID]
    version: Mapped[int]
    edition: Mapped[int] = mapped_column(server_default=text("1"))
    position: Mapped[int]
    headings: Mapped[list[str]] = mapped_column(ARRAY(Text))
    text: Mapped[str] = mapped_column(Text)
    page: Mapped[int | None]
    span_start: Mapped[int]
    span_end: Mapped[int]
    tokens: Mapped[int]
    token_bits: Mapped[bytes] = mapped_column(LargeBinary)


SERVED = and_(
    Document.tenant_id == Chunk.tenant_id,
    Document.id == Chunk.document_id,
    Document.active_version == Chunk.version,
    Document.deleted_at.is_(None),
)
"""Joins a chunk to its document as long as it is shown: its version is the active one, the document not deleted."""
