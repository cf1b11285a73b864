"""`POST /v1/admin/fsck`: compare the stores with Postgres, of one tenant or of the whole installation."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict

from ingestion import jobs
from ingestion.schemas import Accepted, job_out
from tenants import repository
from tenants.auth import PLATFORM, current_admin
from tenants.errors import Conflict
from tenants.idempotency import IdempotentRoute
from tenants.state import database_of

router = APIRouter(
    prefix="/v1/admin", tags=["admin"], dependencies=[Depends(current_admin)], route_class=IdempotentRoute
)


class FsckIn(BaseModel):
    """What is to be checked, and how."""

    model_config = ConfigDict(extra="forbid")

    tenant_id: UUID | None = None
    """One tenant; without it every tenant, one after another, and what belongs to none."""
    repair: bool = False
    """Mend what differs: what is missing is made again from Postgres, what is too many is removed."""
    deep: bool = False
    """Read the originals and compare their SHA-256, and ask the lexical index for the words of each chunk."""


@router.post("/fsck", status_code=202)
async def fsck(request: Request, response: Response, body: FsckIn) -> Accepted:
    """Compare Postgres, object store, vectors and lexical index by keys and digests. The job's `result` is the report:
    `differences` by store and class, examples of them, how much was compared, what is `left` after a repair, and what
    could not be looked at (`not_checked`). It may run at any time."""
    database = database_of(request)
    if body.tenant_id is not None:
        async with database.admin() as session:
            if (await repository.get_tenant(session, body.tenant_id)).state == "deleting":
                raise Conflict("The tenant is being deleted.", code="tenant_deleting")
    owner = body.tenant_id or PLATFORM
    async with database.tenant(owner) as session:
        job = jobs.new_job(owner, "fsck", payload={"repair": body.repair, "deep": body.deep, "tenants": True})
        session.add(job)
        await session.commit()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return Accepted(job=job_out(job))
