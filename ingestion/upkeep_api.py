"""What an operator may ask of a tenant's index: another placement, training anew, calibration. Each is a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ingestion import jobs
from ingestion.schemas import Accepted, job_out
from shards.catalog_postgres import PostgresCatalog
from shards.room import require_room
from shards.settings import MOST_CELLS
from shards.state import indexes_of
from tenants import repository
from tenants.auth import current_admin
from tenants.context import Placement
from tenants.errors import Conflict
from tenants.idempotency import IdempotentRoute
from tenants.state import database_of

router = APIRouter(
    prefix="/v1/admin/tenants/{tenant_id}",
    tags=["admin"],
    dependencies=[Depends(current_admin)],
    route_class=IdempotentRoute,
)


class ReindexIn(BaseModel):
    """How the next generation of an index is to be made."""

    model_config = ConfigDict(extra="forbid")

    cells: int | None = Field(default=None, ge=1, le=MOST_CELLS)
    """So many cells; as many as its size asks for without it."""


@router.post("/placement", status_code=202)
async def place(request: Request, response: Response, tenant_id: UUID, body: Placement) -> Accepted:
    """Move a tenant's index to another tier, or let its size decide (`auto`). Queries and uploads go on meanwhile."""
    indexes = indexes_of(request)
    async with database_of(request).tenant(tenant_id) as session:
        live = await indexes.live(PostgresCatalog(session, tenant_id))
    rows = 0 if live is None else live.rows
    if body.tier == "pooled" and rows >= indexes.settings.pooled_rows:
        raise Conflict(
            f"The tenant has {rows:,} chunks; a pool takes those of fewer than {indexes.settings.pooled_rows:,}.",
            code="too_large_for_pool",
        )

    async def choose() -> None:
        async with database_of(request).admin() as session:
            tenant = await repository.get_tenant(session, tenant_id)
            moved = (tenant.placement, tenant.endpoint) != (body.tier, body.endpoint)
            tenant.placement, tenant.endpoint, tenant.updated_at = body.tier, body.endpoint, datetime.now(UTC)
            await session.flush()
            if moved:
                await require_room(session, indexes.vectors.budgets, body)
            await session.commit()

    return await _queue(request, response, tenant_id, {}, choose)


@router.post("/reindex", status_code=202)
async def reindex(request: Request, response: Response, tenant_id: UUID, body: ReindexIn) -> Accepted:
    """Train the tenant's cells anew, as a new generation beside the live one."""
    return await _queue(request, response, tenant_id, {"cells": body.cells or 0})


@router.post("/calibrate", status_code=202)
async def calibrate(request: Request, response: Response, tenant_id: UUID) -> Accepted:
    """Calibrate the tenant's recall anew, from the questions that were sampled or, while they are few, from sentences
    of its chunks."""
    return await _queue(request, response, tenant_id, {"calibrate": True})


async def _queue(
    request: Request,
    response: Response,
    tenant_id: UUID,
    payload: dict[str, Any],
    choose: Callable[[], Awaitable[None]] | None = None,
) -> Accepted:
    """Queue the upkeep; what it goes by is chosen once it is certain that the job will see it."""
    async with database_of(request).admin() as session:
        if (await repository.get_tenant(session, tenant_id)).state == "deleting":
            raise Conflict("The tenant is being deleted.", code="tenant_deleting")
    async with database_of(request).tenant(tenant_id) as session:
        job = await jobs.ask_for_upkeep(session, tenant_id, payload)
        if choose is not None:
            await choose()
        await session.commit()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return Accepted(job=job_out(job))
