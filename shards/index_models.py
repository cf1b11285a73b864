"""Tables of a tenant's vector index: its generations, their micro-cells, and where every chunk lies."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKeyConstraint, Index, Integer, LargeBinary, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shards.names import Tier
from tenants.db import Base

Timestamp = DateTime(timezone=True)


class IndexGeneration(Base):
    """One generation of a tenant's vector index. State: building, embedding, live, retired, gone."""

    __tablename__ = "index_generations"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),
        Index("index_generations_live", "tenant_id", unique=True, postgresql_where=text("state = 'live'")),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(Text)
    collection: Mapped[str] = mapped_column(Text)
    """Name of the collection, as `shards.names.Space` makes it: to be read by people."""
    tier: Mapped[Tier] = mapped_column(Text)
    bucket: Mapped[int]
    endpoint: Mapped[str] = mapped_column(Text)
    edition: Mapped[int] = mapped_column(server_default=text("1"))
    """Of the chunks in it; see `shards.models.Chunk`."""
    embedder: Mapped[str] = mapped_column(Text)
    """Name of the embedding model."""
    chunk_tokens: Mapped[int | None]
    """Upper bound of a chunk; None follows the installation's setting."""
    dim: Mapped[int]
    rows: Mapped[int] = mapped_column(BigInteger)
    """Chunks in it: the sum of its micro-cells'."""
    cells: Mapped[int]
    """Partitions that hold its rows."""
    micros: Mapped[int]
    """Micro-cells ever made; 1 while nothing is known of where its rows lie."""
    next_cell: Mapped[int]
    """Number of the next cell: a number is never used again."""
    stamp: Mapped[int] = mapped_column(BigInteger)
    """Of the newest change to its micro-cells: what a reader has seen before it need not read again."""
    mark: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The vector store's time after the last write to it: what a search must have seen."""
    dimension: Mapped[float | None]
    """Effective dimension of rows around their micro-cell."""
    calibration: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    trained_rows: Mapped[int] = mapped_column(BigInteger)
    trained_residual: Mapped[float | None]
    """How far rows lay from their micro-cell's mean after the training; what drift is measured against."""
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    retired_at: Mapped[datetime | None] = mapped_column(Timestamp)


class MicroCell(Base):
    """One micro-cell of one generation: the partition that holds it, and the sum of its rows' vectors.

    `centroid` and `sum_vector` are float32 (dim,). The centroid stays as it was trained, so that a repeated write finds
    the same place; the sum follows the rows.
    """

    __tablename__ = "micro_cells"
    __table_args__ = (Index("micro_cells_stamp", "tenant_id", "generation", "stamp"),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    micro: Mapped[int] = mapped_column(primary_key=True)
    cell: Mapped[int]
    rows: Mapped[int] = mapped_column(BigInteger)
    stamp: Mapped[int] = mapped_column(BigInteger)
    sum_vector: Mapped[bytes] = mapped_column(LargeBinary)
    centroid: Mapped[bytes] = mapped_column(LargeBinary)


class CellChangeRow(Base):
    """Cells that become others; see `shards.catalog.CellChange`."""

    __tablename__ = "cell_changes"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int]
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    parents: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    children: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    changed_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())


class ChunkCell(Base):
    """The micro-cell of one chunk in one generation."""

    __tablename__ = "chunk_cells"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    generation: Mapped[int] = mapped_column(primary_key=True)
    version_no: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    chunk_id: Mapped[UUID] = mapped_column(primary_key=True)
    micro: Mapped[int]
