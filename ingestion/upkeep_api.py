"""What an operator may ask of a tenant's index: another placement, training anew, calibration. Each is a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import job_control, jobs, reembed_jobs
from ingestion.models import Job
from ingestion.schemas import Accepted, job_out
from shards.catalog_postgres import PostgresCatalog
from shards.embed_models import check_recipe
from shards.room import require_partitions, require_room
from shards.settings import MOST_CELLS
from shards.state import indexes_of, models_of
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
    """How the next generation of an index is to be made. With a model or a size of chunks, every document is cut and
    embedded anew; without, the vectors that there are get new cells."""

    model_config = ConfigDict(extra="forbid")

    embedding_model: str | None = Field(default=None, min_length=1, max_length=200)
    """The name of an embedding model of this installation."""
    chunk_tokens: int | None = Field(default=None, ge=32, le=8192)
    """Upper bound of a chunk's own text, in tokens."""

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
    """Make the next generation of a tenant's index beside the live one: other cells, or every document embedded by
    another model or cut into other chunks. Queries and uploads go on meanwhile; the switch is one commit."""
    if body.embedding_model is None and body.chunk_tokens is None:
        return await _queue(request, response, tenant_id, {"cells": body.cells or 0})
    await _require_active(request, tenant_id)
    async with database_of(request).tenant(tenant_id) as session:
        live = await PostgresCatalog(session, tenant_id).live()
        recipe = indexes_of(request).first_recipe if live is None else live.recipe
        check_recipe(models_of(request), recipe, body.embedding_model, body.chunk_tokens)
        async with database_of(request).admin() as beside:
            await require_partitions(beside, indexes_of(request).vectors.budgets, live)
        job = await reembed_jobs.ask(session, tenant_id, body.model_dump(exclude_none=True))
        await session.commit()
    return _accepted(response, job)


@router.post("/reindex/pause", status_code=202)
async def pause_reindex(request: Request, response: Response, tenant_id: UUID) -> Accepted:
    """Pause the move to another model or chunking, before its next commit. What was done stays."""
    return await _told(request, response, tenant_id, lambda session: reembed_jobs.wish(session, tenant_id, "pause"))


@router.post("/reindex/resume", status_code=202)
async def resume_reindex(request: Request, response: Response, tenant_id: UUID) -> Accepted:
    """Go on with a move that was paused, where it was."""
    return await _told(request, response, tenant_id, lambda session: reembed_jobs.wish(session, tenant_id, "go"))


@router.post("/reindex/cancel", status_code=202)
async def cancel_reindex(request: Request, response: Response, tenant_id: UUID) -> Accepted:
    """Give up the move to another model or chunking; what was made of it is dropped."""

    async def cancel(session: AsyncSession) -> Job:
        job = await reembed_jobs.unfinished(session, tenant_id)
        await job_control.cancel(session, job, caller="operator")
        return job

    return await _told(request, response, tenant_id, cancel)


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
    await _require_active(request, tenant_id)
    async with database_of(request).tenant(tenant_id) as session:
        job = await jobs.ask_for_upkeep(session, tenant_id, payload)
        if choose is not None:
            await choose()
        await session.commit()
    return _accepted(response, job)


async def _told(
    request: Request, response: Response, tenant_id: UUID, tell: Callable[[AsyncSession], Awaitable[Job]]
) -> Accepted:
    async with database_of(request).admin() as session:
        await repository.get_tenant(session, tenant_id)
    async with database_of(request).tenant(tenant_id) as session:
        job = await tell(session)
        await session.commit()
    return _accepted(response, job)


async def _require_active(request: Request, tenant_id: UUID) -> None:
    async with database_of(request).admin() as session:
        if (await repository.get_tenant(session, tenant_id)).state == "deleting":
            raise Conflict("The tenant is being deleted.", code="tenant_deleting")


def _accepted(response: Response, job: Job) -> Accepted:
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return Accepted(job=job_out(job))
