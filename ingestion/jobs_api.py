"""Jobs over HTTP: how far long work is and how it ended, cancelling it, trying it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from ingestion import job_control, jobs
from ingestion.job_view import events, shown
from ingestion.models import Job
from ingestion.schemas import JobList, JobOut, JobState, RetryIn, RetryOut, job_out
from ingestion.state import closing_of, queue_orders_of, queue_watch_of, signs_of, viewers_of
from tenants.auth import CurrentCaller, CurrentTenant
from tenants.context import AdminContext, TenantContext
from tenants.errors import TesseraError
from tenants.idempotency import IdempotentRoute, caller_of
from tenants.state import cursors_of, database_of

router = APIRouter(prefix="/v1", tags=["jobs"], route_class=IdempotentRoute)
Limit = Annotated[int, Query(ge=1, le=100)]
_EVENTS = {
    "content": {"text/event-stream": {}},
    "description": "`progress` with the job, at last `done`; `reconnect` where the process is about to stop",
}


@router.get("/jobs")
async def list_jobs(
    request: Request,
    tenant: CurrentTenant,
    limit: Limit = 50,
    cursor: str | None = None,
    state: JobState | None = None,
) -> JobList:
    """List jobs, newest first."""
    signer, scope = cursors_of(request), f"jobs:{tenant.tenant_id}"
    after = signer.decode(scope, cursor) if cursor else None
    async with database_of(request).tenant(tenant.tenant_id) as session:
        found = await jobs.list_jobs(session, tenant.tenant_id, state=state, after=after, limit=limit)
        items, following = signer.page(scope, found, limit)
        told = await shown(
            session, tenant.tenant_id, items, signs_of(request), queue_orders_of(request), queue_watch_of(request)
        )
        return JobList(items=told, next=following)


@router.post("/jobs/retry")
async def retry_jobs(request: Request, tenant: CurrentTenant, body: RetryIn) -> RetryOut:
    """Try all failed jobs again, or those with one error code; what was deleted or replaced since is left out."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        retried = await job_control.retry_all(session, tenant.tenant_id, state=body.state, code=body.code)
        await session.commit()
    return RetryOut(retried=retried)


@router.get("/jobs/{job_id}")
async def get_job(request: Request, caller: CurrentCaller, job_id: UUID) -> JobOut:
    """Get one job; the operator gets those that erase tenants and work on their indexes."""
    return await _look(request, caller, job_id)


@router.get("/jobs/{job_id}/events", response_class=StreamingResponse, responses={200: _EVENTS})
async def get_events(request: Request, caller: CurrentCaller, job_id: UUID) -> StreamingResponse:
    """Follow a job as server-sent events until it has ended. A key that is refused meanwhile ends it with `error`."""
    await _look(request, caller, job_id)  # an unknown job is a 404, not a stream
    owner = caller.tenant_id if isinstance(caller, TenantContext) else UUID(int=0)
    place = AsyncExitStack()
    await place.enter_async_context(viewers_of(request).taken(owner))

    async def look() -> JobOut:
        await caller_of(request)  # raises when the key was revoked or its tenant suspended meanwhile
        return await _look(request, caller, job_id)

    async def stream() -> AsyncIterator[str]:
        try:
            async for event in events(look, closing_of(request)):
                yield event
        except TesseraError as error:
            # The response has begun, so the one handler cannot render this; the client asks for the job anew.
            yield f'event: error\ndata: {{"code": "{error.code}"}}\n\n'
        finally:
            await place.aclose()

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(request: Request, caller: CurrentCaller, job_id: UUID) -> JobOut:
    """Cancel a job that waits or runs. A document whose first ingestion is cancelled is `failed`."""
    owner, tenant_id = await _owner(request, caller, job_id)
    async with database_of(request).tenant(tenant_id) as session:
        job = await jobs.get_job(session, tenant_id, job_id)
        await job_control.cancel(session, job, caller=owner)
        await session.commit()
    return job_out(job)


@router.post("/jobs/{job_id}/retry")
async def retry_job(request: Request, caller: CurrentCaller, job_id: UUID) -> JobOut:
    """Queue a failed or cancelled job again, with all its attempts."""
    owner, tenant_id = await _owner(request, caller, job_id)
    async with database_of(request).tenant(tenant_id) as session:
        job = await jobs.get_job(session, tenant_id, job_id)
        await job_control.retry(session, job, caller=owner)
        await session.commit()
    return job_out(job)


async def _look(request: Request, caller: TenantContext | AdminContext, job_id: UUID) -> JobOut:
    _, tenant_id = await _owner(request, caller, job_id)
    async with database_of(request).tenant(tenant_id) as session:
        job = await jobs.get_job(session, tenant_id, job_id)
        return (
            await shown(session, tenant_id, [job], signs_of(request), queue_orders_of(request), queue_watch_of(request))
        )[0]


async def _owner(request: Request, caller: TenantContext | AdminContext, job_id: UUID) -> tuple[str, UUID]:
    """Return who calls, and the tenant whose job it is: the caller's own, or that of an operator's job."""
    if isinstance(caller, TenantContext):
        return "tenant", caller.tenant_id
    async with database_of(request).admin() as session:
        job: Job = await jobs.get_operators_job(session, job_id)
        return "operator", job.tenant_id
