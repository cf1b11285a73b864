"""Sources over HTTP: register, change, pause, run, preview. Nothing is fetched here; the workers do that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.schemas import Accepted, job_out
from ingestion.source_schemas import (
    Removed,
    RunList,
    SourceIn,
    SourceList,
    SourceOut,
    SourcePatch,
    run_out,
    source_out,
)
from ingestion.sources import repository, runs
from ingestion.sources.config import check_places, parted, read_config, whole
from ingestion.sources.models import Source
from ingestion.sources.origin import origin_of
from ingestion.state import source_settings_of, vault_of
from tenants.auth import CurrentTenant
from tenants.errors import FieldError, InvalidRequest
from tenants.idempotency import IdempotentRoute
from tenants.state import cursors_of, database_of

router = APIRouter(prefix="/v1/sources", tags=["sources"], route_class=IdempotentRoute)
Limit = Annotated[int, Query(ge=1, le=100)]


@router.post("", status_code=201)
async def register_source(request: Request, response: Response, tenant: CurrentTenant, body: SourceIn) -> SourceOut:
    """Register a source. It is read when its schedule says so, or when a run is asked for."""
    settings = source_settings_of(request)
    config = read_config(body.kind, body.config)
    check_places(config, settings)
    shown, credentials = parted(config)
    source = repository.new_source(
        tenant.tenant_id,
        kind=body.kind,
        name=body.name,
        config=shown,
        cron=body.schedule.cron if body.schedule else None,
        timezone=body.schedule.timezone if body.schedule else None,
        on_vanish=body.on_vanish or ("keep" if config.keeps else "delete"),
        misses=body.misses or config.misses,
    )
    if credentials is not None:
        source.sealed = vault_of(request).seal(tenant.tenant_id, source.id, credentials)
    async with database_of(request).tenant(tenant.tenant_id) as session:
        clock = await repository.create(session, source, most=settings.per_tenant)
        await session.commit()
    response.headers["Location"] = f"/v1/sources/{source.id}"
    return source_out(source, clock, None)


@router.get("")
async def list_sources(
    request: Request, tenant: CurrentTenant, limit: Limit = 50, cursor: str | None = None
) -> SourceList:
    """List sources, newest first, each with its last run."""
    signer, scope = cursors_of(request), f"sources:{tenant.tenant_id}"
    after = signer.decode(scope, cursor) if cursor else None
    async with database_of(request).tenant(tenant.tenant_id) as session:
        found = await repository.list_sources(session, tenant.tenant_id, after=after, limit=limit)
        items, following = signer.page(scope, found, limit)
        ids = [source.id for source in items]
        clocks = await repository.clocks_of(session, tenant.tenant_id, ids)
        last = await runs.last_runs(session, tenant.tenant_id, ids)
    shown = [source_out(source, clocks[source.id], last.get(source.id)) for source in items]
    return SourceList(items=shown, next=following)


@router.get("/{source_id}")
async def get_source(request: Request, tenant: CurrentTenant, source_id: UUID) -> SourceOut:
    """Get one source with its last run."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        source = await repository.get(session, tenant.tenant_id, source_id)
        return await _rendered(session, source)


@router.patch("/{source_id}")
async def change_source(request: Request, tenant: CurrentTenant, source_id: UUID, body: SourcePatch) -> SourceOut:
    """Change a source. Its next run goes by it."""
    given = body.model_fields_set
    async with database_of(request).tenant(tenant.tenant_id) as session:
        source = await repository.get(session, tenant.tenant_id, source_id, lock=True)
        if body.name is not None and body.name != source.name:
            await repository.lock_names(session, tenant.tenant_id)
            await repository.require_free_name(session, tenant.tenant_id, body.name)
            await repository.rename_documents(session, source, body.name)
            source.name = body.name
        if body.config is not None:
            _change_config(request, source, body.config)
        if "schedule" in given:
            source.cron = body.schedule.cron if body.schedule else None
            source.timezone = body.schedule.timezone if body.schedule else None
        source.on_vanish = body.on_vanish or source.on_vanish
        source.misses = body.misses or source.misses
        source.updated_at = datetime.now(UTC)
        clock = await repository.clock_of(session, source)
        if "schedule" in given:
            clock.next_run_at = repository.due_next(source)
        shown = await _rendered(session, source)
        await session.commit()
    return shown


@router.delete("/{source_id}")
async def remove_source(
    request: Request,
    tenant: CurrentTenant,
    source_id: UUID,
    documents: Annotated[Literal["keep", "delete"], Query(description="What becomes of its documents")] = "keep",
) -> Removed:
    """Remove a source with its history. Its documents stay unless they are to be deleted too."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        source = await repository.get(session, tenant.tenant_id, source_id, lock=True)
        deleted = await repository.remove(session, source, documents=documents == "delete")
        await session.commit()
    return Removed(id=source_id, deleted_documents=deleted)


@router.post("/{source_id}/run", status_code=202)
async def run_source(request: Request, response: Response, tenant: CurrentTenant, source_id: UUID) -> Accepted:
    """Read a source now, also while it is paused. While a run is under way the answer is that run's job."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        source = await repository.get(session, tenant.tenant_id, source_id, lock=True)
        _, job = await runs.queue(session, source, runs.MANUAL)
        await session.commit()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return Accepted(job=job_out(job))


@router.post("/{source_id}/preview", status_code=202)
async def preview_source(request: Request, response: Response, tenant: CurrentTenant, source_id: UUID) -> Accepted:
    """Find out what a run would do, from the first 100 entries; the job's `result` says it. Nothing is changed. While a
    preview is under way the answer is its job."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        source = await repository.get(session, tenant.tenant_id, source_id, lock=True)
        job = await runs.queue_preview(session, source)
        await session.commit()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return Accepted(job=job_out(job))


@router.post("/{source_id}/pause")
async def pause_source(request: Request, tenant: CurrentTenant, source_id: UUID) -> SourceOut:
    """Let the schedule of a source rest. A run that is under way goes on."""
    return await _set_state(request, tenant.tenant_id, source_id, "paused")


@router.post("/{source_id}/resume")
async def resume_source(request: Request, tenant: CurrentTenant, source_id: UUID) -> SourceOut:
    """Let the schedule of a source go on, from its next time."""
    return await _set_state(request, tenant.tenant_id, source_id, "active")


@router.get("/{source_id}/runs")
async def list_runs(
    request: Request, tenant: CurrentTenant, source_id: UUID, limit: Limit = 50, cursor: str | None = None
) -> RunList:
    """List the runs of a source, newest first; the last 100 are kept."""
    signer, scope = cursors_of(request), f"runs:{tenant.tenant_id}:{source_id}"
    async with database_of(request).tenant(tenant.tenant_id) as session:
        source = await repository.get(session, tenant.tenant_id, source_id)
        after = signer.decode(scope, cursor) if cursor else None
        found = await runs.list_runs(session, tenant.tenant_id, source.id, after=after, limit=limit)
    items, following = signer.page(scope, found, limit)
    return RunList(items=[run_out(run) for run in items], next=following)


def _change_config(request: Request, source: Source, given: dict[str, Any]) -> None:
    """Take over a configuration; credentials stay unless the new one has some, or null for none.

    They stay for whom they were given for: sent elsewhere, they would be shown to whoever may change the source.
    """
    config = read_config(source.kind, given)
    check_places(config, source_settings_of(request))
    kept = source.sealed is not None and "credentials" not in given
    if kept and origin_of(config) != origin_of(whole(source.kind, source.config, None)):
        where = FieldError("body.config.credentials", "must be given again, or null, when the source moves elsewhere")
        raise InvalidRequest("The credentials were given for another place.", fields=(where,))
    source.config, credentials = parted(config)
    if credentials is not None:
        source.sealed = vault_of(request).seal(source.tenant_id, source.id, credentials)
    elif not kept:
        source.sealed = None
    source.cursor = {}


async def _set_state(request: Request, tenant_id: UUID, source_id: UUID, state: str) -> SourceOut:
    async with database_of(request).tenant(tenant_id) as session:
        source = await repository.get(session, tenant_id, source_id, lock=True)
        if source.state != state:
            source.state, source.updated_at = state, datetime.now(UTC)
            clock = await repository.clock_of(session, source)
            clock.next_run_at = repository.due_next(source)
        shown = await _rendered(session, source)
        await session.commit()
    return shown


async def _rendered(session: AsyncSession, source: Source) -> SourceOut:
    last = await runs.last_runs(session, source.tenant_id, [source.id])
    return source_out(source, await repository.clock_of(session, source), last.get(source.id))
