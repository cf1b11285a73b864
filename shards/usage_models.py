"""Tables of how a tenant's index is used."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, Index, LargeBinary, Uuid, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from tenants.db import Base

Timestamp = DateTime(timezone=True)


class IndexUse(Base):
    """When a tenant searched or wrote last, and how often it searched; whether its cells should be looked at; since
    when its index is released from memory, how long the last wake took, and the recall that its samples show."""

    __tablename__ = "index_use"
    __table_args__ = (
        Index("index_use_due", "tenant_id", postgresql_where=text("upkeep_due")),
        Index("index_use_awake", "used_at", postgresql_where=text("released_at IS NULL")),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    used_at: Mapped[datetime] = mapped_column(Timestamp)
    searches: Mapped[int] = mapped_column(BigInteger)
    upkeep_due: Mapped[bool]
    released_at: Mapped[datetime | None] = mapped_column(Timestamp)
    woke_ms: Mapped[float | None]
    samples: Mapped[int] = mapped_column(server_default=text("0"))
    """Questions that the running recall rests on, and that recall@10 with its 95% confidence interval."""
    recall: Mapped[float | None]
    recall_low: Mapped[float | None]
    recall_high: Mapped[float | None]


class CellHeat(Base):
    """Visits of a cell, each counting half after every half-life, as of `counted_at`."""

    __tablename__ = "cell_heat"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    cell: Mapped[int] = mapped_column(primary_key=True)
    heat: Mapped[float]
    counted_at: Mapped[datetime] = mapped_column(Timestamp)


class ProbeSample(Base):
    """A question that was asked again of every cell: its vector (float16), its true best chunks, and what the cells
    that were visited had found of them."""

    __tablename__ = "probe_samples"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int]
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    truth: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    recall: Mapped[float]
    predicted: Mapped[float]
    rows_share: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
