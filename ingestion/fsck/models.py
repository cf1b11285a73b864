"""The table of what the newest check of each tenant found."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, ForeignKeyConstraint, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from tenants.db import Base


class StoreCheck(Base):
    """The newest check of one tenant's stores."""

    __tablename__ = "store_checks"
    __table_args__ = (ForeignKeyConstraint(["tenant_id"], ["tenants.id"]),)

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    checked_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    """The epoch of one that could not be checked yet."""
    seconds: Mapped[float]
    chunks: Mapped[int] = mapped_column(BigInteger)
    differences: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """Counts by store and class, of what was left after a repair; `not_checked` stands among the stores for what could
    not be looked at."""
    repaired: Mapped[int] = mapped_column(BigInteger)
    """Differences that the check found and mended."""
