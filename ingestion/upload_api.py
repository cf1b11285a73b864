"""Uploads over HTTP, one document or many in a request: the write line's door."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ingestion import intake, upload_form
from ingestion.admission import in_time
from ingestion.intake import Incoming, Taken
from ingestion.models import Priority
from ingestion.schemas import BulkOut, PriorityName, UploadOut, bulk_item, upload_out
from ingestion.state import admission_of, ingest_settings_of, objects_of
from tenants.auth import PLATFORM, CurrentTenant
from tenants.context import TenantContext
from tenants.idempotency import Handler, IdempotentRoute, caller_of
from tenants.state import database_of


class AdmittedRoute(IdempotentRoute):
    """A route whose body is read when there is room for it, and as long as it comes."""

    def get_route_handler(self) -> Handler:
        """Wrap the handler of an idempotent route, which reads the body as well."""
        handler = super().get_route_handler()

        async def admitted(request: Request) -> Response:
            tenant_id = await caller_of(request)
            if tenant_id is None or tenant_id == PLATFORM:
                return await handler(request)  # it refuses
            upload_form.require_utf8(request)
            length = request.headers.get("content-length", "")
            async with admission_of(request).admitted(tenant_id, int(length) if length.isdigit() else None):
                timely = in_time(request.receive, ingest_settings_of(request))
                return await handler(Request(request.scope, timely))

        return admitted


router = APIRouter(prefix="/v1", tags=["documents"], route_class=AdmittedRoute)
PriorityQuery = Annotated[
    PriorityName | None, Query(description="Which of the tenant's documents go first; by default as said above")
]


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
async def upload_document(
    request: Request, response: Response, tenant: CurrentTenant, priority: PriorityQuery = None
) -> UploadOut:
    """Upload a document. It is searchable when its job is `done`. It goes before imports (`priority` interactive)."""
    settings = ingest_settings_of(request)
    async with upload_form.opened(request, settings, files=1) as form:
        incoming = await asyncio.to_thread(upload_form.read_one, form, settings)
        [taken] = await _take(request, tenant, [incoming], priority or "interactive")
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
async def upload_documents(
    request: Request, response: Response, tenant: CurrentTenant, priority: PriorityQuery = None
) -> BulkOut:
    """Upload up to 100 documents, as large together as one may be.

    `items` of the answer says in the order of the files what became of each: one that is refused does not stop the
    others. All that are taken are taken at one instant. They go after single uploads (`priority` bulk).
    """
    settings = ingest_settings_of(request)
    async with upload_form.opened(request, settings, files=upload_form.MAX_FILES) as form:
        read = await asyncio.to_thread(upload_form.read_many, form, settings)
        accepted = [one for one in read if isinstance(one, Incoming)]
        taken = iter(await _take(request, tenant, accepted, priority or "bulk") if accepted else [])
    items = [bulk_item(next(taken) if isinstance(one, Incoming) else one) for one in read]
    response.status_code = 202 if any(item.new for item in items) else 200
    return BulkOut(items=items)


async def _take(
    request: Request, tenant: TenantContext, incoming: list[Incoming], priority: PriorityName
) -> list[Taken]:
    async with admission_of(request).turn(), database_of(request).tenant(tenant.tenant_id) as session:
        taken = await intake.take(
            session, objects_of(request), tenant.tenant_id, incoming, priority=Priority[priority.upper()]
        )
        await session.commit()
    new = [one.version.size_bytes for one in taken if one.new]
    admission_of(request).taken(tenant.tenant_id, len(new), sum(new))
    return taken
