"""Jobs over HTTP: how far long work is, and how it ended."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from ingestion import jobs
from ingestion.schemas import JobList, JobOut, JobState, job_out
from tenants.auth import CurrentCaller, CurrentTenant
from tenants.context import AdminContext
from tenants.state import cursors_of, database_of

router = APIRouter(prefix="/v1", tags=["jobs"])
Limit = Annotated[int, Query(ge=1, le=100)]


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
    return JobList(items=[job_out(job) for job in items], next=following)


@router.get("/jobs/{job_id}")
async def get_job(request: Request, caller: CurrentCaller, job_id: UUID) -> JobOut:
    """Get one job; the operator gets those that erase tenants and work on their indexes."""
    if isinstance(caller, AdminContext):
        async with database_of(request).admin() as session:
            return job_out(await jobs.get_operators_job(session, job_id))
    async with database_of(request).tenant(caller.tenant_id) as session:
        return job_out(await jobs.get_job(session, caller.tenant_id, job_id))
