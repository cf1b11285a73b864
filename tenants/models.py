"""Tables of the floor: tenants, their API keys, and remembered answers to idempotent requests."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, ForeignKeyConstraint, Index, LargeBinary, Text, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenants.db import Base

Timestamp = DateTime(timezone=True)


class Tenant(Base):
    """A customer of the installation. State: active, suspended, deleting."""

    __tablename__ = "tenants"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    plan: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    placement: Mapped[str] = mapped_column(Text)
    """The tier that the operator chose, or `auto`."""
    endpoint: Mapped[str] = mapped_column(Text, server_default="")
    settings: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class ApiKey(Base):
    """An API key: only the HMAC of its secret is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        Index("api_keys_id", "id"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    expires_at: Mapped[datetime | None] = mapped_column(Timestamp)
    revoked_at: Mapped[datetime | None] = mapped_column(Timestamp)
    last_used_at: Mapped[datetime | None] = mapped_column(Timestamp)


class IdempotentAnswer(Base):
    """The first answer to a request with an `Idempotency-Key`, replayed for 24 hours."""

    __tablename__ = "idempotent_answers"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int | None]
    body: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """`text` and `media_type`; while the request is under way, and `status` is empty, `claim`: which request."""
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class AnswerQuote(Base):
    """Which version of which documents a remembered answer quotes."""

    __tablename__ = "answer_quotes"
    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "route", "key"],
            ["idempotent_answers.tenant_id", "idempotent_answers.route", "idempotent_answers.key"],
            ondelete="CASCADE",
        ),
        Index("answer_quotes_owner", "tenant_id", "route", "key"),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    document_id: Mapped[UUID] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int]
