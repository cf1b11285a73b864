"""`DELETE /v1/admin/tenants/{id}`: its keys stop at once, the job removes every trace and ends in a receipt."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from ingestion import jobs
from ingestion.schemas import DeleteOut, job_out
from tenants import repository
from tenants.auth import current_admin, no_longer_believed
from tenants.state import database_of

_REQUESTS_END = timedelta(seconds=2)
"""Requests that were let in before the keys stopped have ended when the erasure begins."""
router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[Depends(current_admin)])


@router.delete("/tenants/{tenant_id}", status_code=202)
async def delete_tenant(request: Request, response: Response, tenant_id: UUID) -> DeleteOut:
    """Delete a tenant with everything it has. The job's `result` is the receipt of what was removed."""
    async with database_of(request).admin() as session:
        await repository.set_state(session, tenant_id, "deleting")
        job = jobs.new_job(tenant_id, "erase_tenant", delay=_REQUESTS_END)
        session.add(job)
        await session.commit()
    await no_longer_believed()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return DeleteOut(job=job_out(job))
