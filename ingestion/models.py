"""The job table: the queue itself, since jobs wait in Postgres and not in the broker."""

from __future__ import annotations

from datetime import datetime
from enum import IntEnum
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, Index, SmallInteger, Text, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenants.db import Base

Timestamp = DateTime(timezone=True)
# Conditions of partial indexes. A query uses one if it says the same, in words and not in parameters.
UNFINISHED_STATES = ("queued", "retrying", "running")
UNFINISHED = f"state IN {UNFINISHED_STATES}"
OF_OPERATORS = "kind IN ('erase_tenant', 'partition', 'reembed', 'fsck')"
FORGETTABLE = "finished_at IS NOT NULL AND kind NOT IN ('delete', 'erase_tenant', 'fsck', 'retention')"
"""Ended jobs that are forgotten after a while. What proves a deletion stays; checks and sweeps are told by their own
jobs when they are due, which `regular.py` looks after."""


class Priority(IntEnum):
    """Which of a tenant's documents go first."""

    INTERACTIVE = 0
    """Somebody waits for it: a single upload."""
    BULK = 1
    """One of many: an import."""
    BACKGROUND = 2
    """Nobody asked just now: a source on its schedule."""


class Lane(IntEnum):
    """Queues with workers of their own, so that what takes long holds up nothing that does not."""

    MAIN = 0
    """Uploads and removals."""
    SLOW = 1
    """Documents whose parsing takes longer than the others of their batch should wait."""
    BACKGROUND = 2
    """Work on indexes, sources and checks."""


class Job(Base):
    """A unit of long work. Kinds: ingest, delete, purge, partition (upkeep of the index), reembed, release,
    drop_generation, erase_tenant, sync (a run of a source), preview (of one), retention, fsck (of a
    tenant's stores, or under `PLATFORM` of the whole installation).

    State: queued, running, retrying, done, failed, cancelled. `batch_id` is the fence: whoever finishes a job must
    still hold the batch under which it was given out.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index(
            "jobs_waiting",
            "tenant_id",
            "lane",
            "priority",
            "created_at",
            "id",
            postgresql_where=text("state IN ('queued', 'retrying') AND batch_id IS NULL"),
        ),
        Index(
            "jobs_upkeep",
            "tenant_id",
            "created_at",
            "id",
            postgresql_where=text("state IN ('queued', 'retrying') AND batch_id IS NULL AND kind <> 'ingest'"),
        ),
        Index("jobs_given_out", "tenant_id", "batch_id", postgresql_where=text("batch_id IS NOT NULL")),
        Index("jobs_listing", "tenant_id", "created_at", "id"),
        Index("jobs_document", "tenant_id", "document_id"),
        Index("jobs_unfinished", "tenant_id", "created_at", "id", postgresql_where=text(UNFINISHED)),
        Index("jobs_errands", "kind", "tenant_id", postgresql_where=text(f"kind <> 'ingest' AND {UNFINISHED}")),
        Index(
            "jobs_ended_badly",
            "tenant_id",
            "created_at",
            "id",
            postgresql_where=text("state IN ('failed', 'cancelled')"),
        ),
        Index("jobs_failed_upkeep", "tenant_id", postgresql_where=text("kind = 'partition' AND state = 'failed'")),
        Index("jobs_of_operators", "id", postgresql_where=text(OF_OPERATORS)),
        Index("jobs_ended", "finished_at", postgresql_where=text(FORGETTABLE)),
        Index(
            "jobs_regular",
            "tenant_id",
            "kind",
            "created_at",
            postgresql_where=text("kind IN ('fsck', 'retention', 'partition')"),
        ),
        Index(
            "jobs_one_partition",
            "tenant_id",
            "kind",
            unique=True,
            postgresql_where=text("kind = 'partition' AND state IN ('queued', 'running', 'retrying')"),
        ),
        Index(
            "jobs_one_reembed",
            "tenant_id",
            "kind",
            unique=True,
            postgresql_where=text("kind = 'reembed' AND state IN ('queued', 'running', 'retrying')"),
        ),
    )

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    stage: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[float] = mapped_column(server_default=text("0"))
    priority: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    lane: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    document_id: Mapped[UUID | None]
    version: Mapped[int | None]
    cost: Mapped[int] = mapped_column(server_default=text("0"))
    """Bytes of the content: what the dispatcher shares fairly and bounds batches by."""
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    batch_id: Mapped[UUID | None]
    lease_until: Mapped[datetime | None] = mapped_column(Timestamp)
    not_before: Mapped[datetime | None] = mapped_column(Timestamp)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=func.now())
    started_at: Mapped[datetime | None] = mapped_column(Timestamp)
    finished_at: Mapped[datetime | None] = mapped_column(Timestamp)
