"""Jobs over HTTP: how far long work is, and how it ended."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from ingestion import jobs
from ingestion.schemas import JobList, JobOut, JobState, job_out
from tenants.auth import CurrentCaller, CurrentTenant
from tenants.context import AdminContext
from tenants.cursor import CursorSigner
from tenants.db import Database

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
    signer, scope = _cursors(request), f"jobs:{tenant.tenant_id}"
    after = signer.decode(scope, cursor) if cursor else None
    async with _database(request).tenant(tenant.tenant_id) as session:
        found = await jobs.list_jobs(session, tenant.tenant_id, state=state, after=after, limit=limit)
    items, following = signer.page(scope, found, limit)
    return JobList(items=[job_out(job) for job in items], next=following)


@router.get("/jobs/{job_id}")
async def get_job(request: Request, caller: CurrentCaller, job_id: UUID) -> JobOut:
    """Get one job; the operator gets the jobs that erase tenants."""
    if isinstance(caller, AdminContext):
        async with _database(request).admin() as session:
            return job_out(await jobs.get_erasure(session, job_id))
    async with _database(request).tenant(caller.tenant_id) as session:
        return job_out(await jobs.get_job(session, caller.tenant_id, job_id))


def _database(request: Request) -> Database:
    database: Database = request.state.database
    return database


def _cursors(request: Request) -> CursorSigner:
    signer: CursorSigner = request.state.cursors
    return signer
