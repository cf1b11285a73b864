"""Documents over HTTP: listing, reading, deleting. (Uploads are in `upload_api.py`.)"""

from __future__ import annotations

import json
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import ColumnElement

from ingestion import repository
from ingestion.deletes import delete_documents
from ingestion.objects import Objects
from ingestion.schemas import (
    ChunkList,
    DeleteOut,
    DocumentList,
    DocumentOut,
    DocumentState,
    chunk_out,
    document_out,
    job_out,
)
from ingestion.state import filter_place, objects_of
from shards.filters import compile_filter, parse_filter
from shards.models import DocumentVersion
from tenants.auth import CurrentTenant
from tenants.errors import FieldError, InvalidFilter, NotFound
from tenants.state import cursors_of, database_of

router = APIRouter(prefix="/v1", tags=["documents"])
Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/documents")
async def list_documents(
    request: Request,
    tenant: CurrentTenant,
    limit: Limit = 50,
    cursor: str | None = None,
    state: DocumentState | None = None,
    filter: Annotated[str | None, Query(description="A metadata filter, as JSON")] = None,
) -> DocumentList:
    """List documents, newest first."""
    signer, scope = cursors_of(request), f"documents:{tenant.tenant_id}"
    condition = _condition(filter)
    place = filter_place(request, tenant.tenant_id, condition)
    async with place, database_of(request).tenant(tenant.tenant_id) as session:
        found = await repository.list_documents(
            session,
            tenant.tenant_id,
            condition=condition,
            state=state,
            after=signer.decode(scope, cursor) if cursor else None,
            limit=limit,
        )
    items, following = signer.page(scope, found, limit)
    return DocumentList(items=[document_out(document) for document in items], next=following)


@router.get("/documents/{document_id}")
async def get_document(request: Request, tenant: CurrentTenant, document_id: UUID) -> DocumentOut:
    """Get one document."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        return document_out(await repository.get_document(session, tenant.tenant_id, document_id))


@router.get(
    "/documents/{document_id}/content",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The original, as uploaded"}},
)
async def get_content(request: Request, tenant: CurrentTenant, document_id: UUID) -> StreamingResponse:
    """Download the original: of the active version, or of the newest while none is active."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        document = await repository.get_document(session, tenant.tenant_id, document_id)
        version = await repository.served_version(session, document)
    return await attachment(objects_of(request), version)


@router.get("/documents/{document_id}/chunks")
async def list_chunks(
    request: Request, tenant: CurrentTenant, document_id: UUID, limit: Limit = 50, cursor: str | None = None
) -> ChunkList:
    """List the chunks of the active version, in order."""
    signer, scope = cursors_of(request), f"chunks:{tenant.tenant_id}:{document_id}"
    after = signer.decode_number(scope, cursor) if cursor else -1
    async with database_of(request).tenant(tenant.tenant_id) as session:
        document = await repository.get_document(session, tenant.tenant_id, document_id)
        found = await repository.list_chunks(session, document, after_position=after, limit=limit)
    items = found[:limit]
    following = signer.encode_number(scope, items[-1].position) if len(found) > limit else None
    return ChunkList(items=[chunk_out(chunk) for chunk in items], next=following)


@router.delete("/documents/{document_id}", status_code=202)
async def delete_document(request: Request, response: Response, tenant: CurrentTenant, document_id: UUID) -> DeleteOut:
    """Delete a document: invisible from the moment of this answer; the job removes it from every store."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        job = (await delete_documents(session, tenant.tenant_id, [document_id])).get(document_id)
        if job is None:
            raise NotFound("There is no document with this id.")
        await session.commit()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return DeleteOut(job=job_out(job))


async def attachment(objects: Objects, version: DocumentVersion) -> StreamingResponse:
    """Return the original of a version as a download; raise `NotFound` when it is missing."""
    blocks = await objects.open(version.object_key)
    headers = {
        "Content-Disposition": _disposition(version.filename),
        "Content-Length": str(version.size_bytes),
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(blocks, media_type="application/octet-stream", headers=headers)


def _disposition(filename: str) -> str:
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._- ") else "_" for c in filename)
    encoded = "".join(
        chr(b) if (chr(b).isalnum() and b < 128) or chr(b) in "._-" else f"%{b:02X}" for b in filename.encode()
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def _condition(raw: str | None) -> ColumnElement[bool] | None:
    if raw is None:
        return None
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidFilter("The filter is not JSON.", fields=(FieldError("filter", "is not JSON"),)) from error
    return compile_filter(parse_filter(parsed))
