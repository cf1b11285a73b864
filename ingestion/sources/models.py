"""Tables of sources: what a tenant registered, what was found in it, each run, and the clock that says when it is due.

The clock is apart from the rest because the scheduler and the operator's metrics read it over all tenants: it says
when, never what.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKeyConstraint, Index, LargeBinary, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenants.db import Base

Timestamp = DateTime(timezone=True)
_OF_SOURCE = (["tenant_id", "source_id"], ["sources.tenant_id", "sources.id"])


class Source(Base):
    """Something outside that documents come from. State: active, paused. `config` holds no credentials."""

    __tablename__ = "sources"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        Index("sources_name", "tenant_id", "name", unique=True),
        Index("sources_listing", "tenant_id", "created_at", "id"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    config: Mapped[dict[str, Any]] = mapped_column(JSONB)
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The credentials, as `Vault` sealed them."""
    cron: Mapped[str | None] = mapped_column(Text)
    timezone: Mapped[str | None] = mapped_column(Text)
    on_vanish: Mapped[str] = mapped_column(Text)
    misses: Mapped[int]
    """In how many runs in a row an entry has to be missing before it counts as vanished."""
    state: Mapped[str] = mapped_column(Text)
    cursor: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    """What the last run that went through knows of the source as a whole; empty once a later one has written."""
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class SourceClock(Base):
    """When a source is due, and how its runs went."""

    __tablename__ = "source_clocks"
    __table_args__ = (
        ForeignKeyConstraint(*_OF_SOURCE),
        Index("source_clocks_due", "next_run_at", postgresql_where=text("next_run_at IS NOT NULL")),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    source_id: Mapped[UUID] = mapped_column(primary_key=True)
    next_run_at: Mapped[datetime | None] = mapped_column(Timestamp)
    """None without a schedule and while paused."""
    last_success_at: Mapped[datetime | None] = mapped_column(Timestamp)
    runs_done: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    runs_failed: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))


class SourceEntry(Base):
    """One entry of a source as the last run that met it found it; its document, unless none came of it."""

    __tablename__ = "source_entries"
    __table_args__ = (
        ForeignKeyConstraint(*_OF_SOURCE),
        Index("source_entries_document", "tenant_id", "document_id"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    source_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    document_id: Mapped[UUID | None]
    etag: Mapped[str | None] = mapped_column(Text)
    last_modified: Mapped[str | None] = mapped_column(Text)
    stamp: Mapped[str | None] = mapped_column(Text)
    content_sha256: Mapped[bytes | None] = mapped_column(LargeBinary)
    run_id: Mapped[UUID]
    """The last run that dealt with it: a run that is repeated does not do so twice."""
    misses: Mapped[int] = mapped_column(server_default=text("0"))
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class SourceRun(Base):
    """One reading of a source. State: queued, running, done, failed, cancelled."""

    __tablename__ = "source_runs"
    __table_args__ = (
        ForeignKeyConstraint(*_OF_SOURCE),
        Index("source_runs_listing", "tenant_id", "source_id", "created_at", "id"),
        Index(
            "source_runs_one",
            "tenant_id",
            "source_id",
            unique=True,
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    source_id: Mapped[UUID]
    job_id: Mapped[UUID]
    cause: Mapped[str] = mapped_column(Text)
    """manual or schedule."""
    state: Mapped[str] = mapped_column(Text)
    added: Mapped[int] = mapped_column(server_default=text("0"))
    changed: Mapped[int] = mapped_column(server_default=text("0"))
    unchanged: Mapped[int] = mapped_column(server_default=text("0"))
    vanished: Mapped[int] = mapped_column(server_default=text("0"))
    failed: Mapped[int] = mapped_column(server_default=text("0"))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    """The first entries that failed, each with its code and a sentence."""
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    started_at: Mapped[datetime | None] = mapped_column(Timestamp)
    finished_at: Mapped[datetime | None] = mapped_column(Timestamp)
