"""How the engines stand as a whole: room on each server, tenants by tier, those that take most."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from shards.index import TenantIndexes
from shards.index_models import IndexGeneration
from shards.names import Tier
from shards.room import rooms
from shards.usage_models import IndexUse
from tenants.models import Tenant

_LARGEST = 50
_USE = ("searches", "used_at", "released_at", "samples", "recall", "recall_low", "recall_high")


class ServerOut(BaseModel):
    """One Milvus server; `endpoint` is empty for the main one. Partitions taken or promised, of so many."""

    endpoint: str
    partitions: int
    budget: int
    databases: int


class TierOut(BaseModel):
    """The tenants of one tier. `released` are out of the engine's memory until their next question."""

    tier: Tier
    tenants: int
    rows: int
    cells: int
    released: int


class TenantShardsOut(BaseModel):
    """One tenant's part."""

    tenant_id: UUID
    slug: str
    tier: Tier
    endpoint: str
    rows: int
    cells: int
    searches: int = 0
    used_at: datetime | None = None
    released_at: datetime | None = None
    samples: int = 0
    recall: float | None = None
    """Mean recall@10 of the sampled questions, with its 95% confidence interval."""
    recall_low: float | None = None
    recall_high: float | None = None


class OverviewOut(BaseModel):
    """All indexes; `largest` are the tenants with most cells, then most rows."""

    servers: list[ServerOut]
    tiers: list[TierOut]
    largest: list[TenantShardsOut]


async def overview(session: AsyncSession, indexes: TenantIndexes) -> OverviewOut:
    """Return how the engines stand, in an admin session."""
    held = await rooms(session, indexes.vectors.budgets)
    servers = [
        ServerOut(endpoint=room.endpoint, partitions=room.partitions, budget=room.budget, databases=room.databases)
        for room in held.values()
    ]
    return OverviewOut(servers=servers, tiers=await tiers(session), largest=await _largest(session))


async def tiers(session: AsyncSession) -> list[TierOut]:
    """Return the tiers that have tenants, in an admin session."""
    live = IndexGeneration
    query = (
        select(
            live.tier,
            func.count().label("tenants"),
            func.sum(live.rows).label("rows"),
            func.sum(live.cells).label("cells"),
            func.count(IndexUse.released_at).label("released"),
        )
        .outerjoin(IndexUse, IndexUse.tenant_id == live.tenant_id)
        .where(live.state == "live")
        .group_by(live.tier)
        .order_by(live.tier)
    )
    return [
        TierOut(tier=row.tier, tenants=row.tenants, rows=int(row.rows), cells=int(row.cells), released=row.released)
        for row in await session.execute(query)
    ]


async def _largest(session: AsyncSession) -> list[TenantShardsOut]:
    live = IndexGeneration
    query = (
        select(Tenant.slug, live.tenant_id, live.tier, live.endpoint, live.rows, live.cells, IndexUse)
        .join(Tenant, Tenant.id == live.tenant_id)
        .outerjoin(IndexUse, IndexUse.tenant_id == live.tenant_id)
        .where(live.state == "live")
        .order_by(live.cells.desc(), live.rows.desc(), Tenant.slug)
        .limit(_LARGEST)
    )
    found = []
    for slug, tenant_id, tier, endpoint, rows, cells, use in await session.execute(query):
        known = {name: getattr(use, name) for name in _USE} if use else {}
        size: dict[str, Any] = {"rows": rows, "cells": cells}
        found.append(TenantShardsOut(tenant_id=tenant_id, slug=slug, tier=tier, endpoint=endpoint, **size, **known))
    return found
