"""Uploads over HTTP, one document or many in a request: the write line's door."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from ingestion import intake, upload_form
from ingestion.intake import Incoming, Taken
from ingestion.schemas import BulkOut, UploadOut, bulk_item, upload_out
from ingestion.state import ingest_settings_of, objects_of
from tenants.auth import CurrentTenant
from tenants.context import TenantContext
from tenants.idempotency import IdempotentRoute
from tenants.state import database_of

router = APIRouter(prefix="/v1", tags=["documents"], route_class=IdempotentRoute)


def _form_of(**parts: Any) -> dict[str, Any]:
    schema = {"type": "object", "required": ["file"], "properties": parts}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_FILE = {"type": "string", "format": "binary"}
_NAME = {"type": "string", "maxLength": 512}
_METADATA = "A JSON object; its keys can be filtered on."
_ONE = _form_of(file=_FILE, metadata={"type": "string", "description": _METADATA}, external_id=_NAME, title=_NAME)
_MANY = _form_of(
    file={"type": "array", "items": _FILE, "maxItems": upload_form.MAX_FILES},
    items={
        "type": "string",
        "description": "A JSON array with one object for each file, in their order:"
        " `{external_id?, title?, metadata?}`.",
    },
)


@router.post(
    "/documents",
    status_code=202,
    responses={200: {"model": UploadOut, "description": "The same content is there already"}},
    openapi_extra=_ONE,
)
async def upload_document(request: Request, response: Response, tenant: CurrentTenant) -> UploadOut:
    """Upload a document. It is searchable when its job is `done`."""
    settings = ingest_settings_of(request)
    async with upload_form.opened(request, settings, files=1) as form:
        incoming = await asyncio.to_thread(upload_form.read_one, form, settings)
        [taken] = await _take(request, tenant, [incoming])
    response.status_code = 202 if taken.new else 200
    if taken.job is not None:
        response.headers["Location"] = f"/v1/jobs/{taken.job.id}"
    return upload_out(taken)


@router.post(
    "/documents/bulk",
    status_code=202,
    responses={200: {"model": BulkOut, "description": "Nothing is new"}},
    openapi_extra=_MANY,
)
async def upload_documents(request: Request, response: Response, tenant: CurrentTenant) -> BulkOut:
    """Upload up to 100 documents, as large together as one may be.

    `items` of the answer says in the order of the files what became of each: one that is refused does not stop the
    others. All that are taken are taken at one instant.
    """
    settings = ingest_settings_of(request)
    async with upload_form.opened(request, settings, files=upload_form.MAX_FILES) as form:
        read = await asyncio.to_thread(upload_form.read_many, form, settings)
        accepted = [one for one in read if isinstance(one, Incoming)]
        taken = iter(await _take(request, tenant, accepted) if accepted else [])
    items = [bulk_item(next(taken) if isinstance(one, Incoming) else one) for one in read]
    response.status_code = 202 if any(item.new for item in items) else 200
    return BulkOut(items=items)


async def _take(request: Request, tenant: TenantContext, incoming: list[Incoming]) -> list[Taken]:
    async with database_of(request).tenant(tenant.tenant_id) as session:
        taken = await intake.take(session, objects_of(request), tenant.tenant_id, incoming)
        await session.commit()
    return taken
