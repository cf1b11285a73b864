"""Documents and jobs over HTTP: the write line's door."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Annotated, BinaryIO
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import ColumnElement, func
from starlette.datastructures import FormData, UploadFile

from ingestion import intake, jobs, repository
from ingestion.metadata import parse_metadata
from ingestion.objects import Objects
from ingestion.parse.detect import detect_format
from ingestion.repository import Upload
from ingestion.schemas import (
    ChunkList,
    DeleteOut,
    DocumentList,
    DocumentOut,
    DocumentState,
    UploadOut,
    chunk_out,
    document_out,
    job_out,
)
from ingestion.settings import IngestSettings
from shards.filters import compile_filter, parse_filter
from tenants.auth import CurrentTenant
from tenants.cursor import CursorSigner
from tenants.db import Database
from tenants.errors import FieldError, InvalidFilter, InvalidRequest
from tenants.idempotency import IdempotentRoute

router = APIRouter(prefix="/v1", route_class=IdempotentRoute)
Limit = Annotated[int, Query(ge=1, le=100)]
_UPLOAD_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "metadata": {"type": "string", "description": "A JSON object; its keys can be filtered on."},
                        "external_id": {"type": "string", "maxLength": 512},
                        "title": {"type": "string", "maxLength": 512},
                    },
                }
            }
        },
    }
}


@router.post(
    "/documents",
    status_code=202,
    tags=["documents"],
    responses={200: {"model": UploadOut, "description": "The same content is there already"}},
    openapi_extra=_UPLOAD_FORM,
)
async def upload_document(request: Request, response: Response, tenant: CurrentTenant) -> UploadOut:
    """Upload a document. It is searchable when its job is `done`."""
    async with _form(request) as form:
        upload, content = await _read_form(form, request.state.ingest_settings)
        async with _database(request).tenant(tenant.tenant_id) as session:
            taken = await intake.take(session, _objects(request), tenant.tenant_id, upload, content)
            await session.commit()
    response.status_code = 202 if taken.new else 200
    if taken.job is not None:
        response.headers["Location"] = f"/v1/jobs/{taken.job.id}"
    return UploadOut(
        document=document_out(taken.document, pending=taken.version), job=job_out(taken.job) if taken.job else None
    )


@router.get("/documents", tags=["documents"])
async def list_documents(
    request: Request,
    tenant: CurrentTenant,
    limit: Limit = 50,
    cursor: str | None = None,
    state: DocumentState | None = None,
    filter: Annotated[str | None, Query(description="A metadata filter, as JSON")] = None,
) -> DocumentList:
    """List documents, newest first."""
    signer, scope = _cursors(request), f"documents:{tenant.tenant_id}"
    async with _database(request).tenant(tenant.tenant_id) as session:
        found = await repository.list_documents(
            session,
            tenant.tenant_id,
            condition=_condition(filter),
            state=state,
            after=signer.decode(scope, cursor) if cursor else None,
            limit=limit,
        )
    items, following = signer.page(scope, found, limit)
    return DocumentList(items=[document_out(document) for document in items], next=following)


@router.get("/documents/{document_id}", tags=["documents"])
async def get_document(request: Request, tenant: CurrentTenant, document_id: UUID) -> DocumentOut:
    """Get one document."""
    async with _database(request).tenant(tenant.tenant_id) as session:
        return document_out(await repository.get_document(session, tenant.tenant_id, document_id))


@router.get(
    "/documents/{document_id}/content",
    tags=["documents"],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The original, as uploaded"}},
)
async def get_content(request: Request, tenant: CurrentTenant, document_id: UUID) -> StreamingResponse:
    """Download the original: of the active version, or of the newest while none is active."""
    async with _database(request).tenant(tenant.tenant_id) as session:
        document = await repository.get_document(session, tenant.tenant_id, document_id)
        version = await repository.served_version(session, document)
    blocks = await _objects(request).open(version.object_key)
    headers = {
        "Content-Disposition": _attachment(version.filename),
        "Content-Length": str(version.size_bytes),
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(blocks, media_type="application/octet-stream", headers=headers)


@router.get("/documents/{document_id}/chunks", tags=["documents"])
async def list_chunks(
    request: Request, tenant: CurrentTenant, document_id: UUID, limit: Limit = 50, cursor: str | None = None
) -> ChunkList:
    """List the chunks of the active version, in order."""
    signer, scope = _cursors(request), f"chunks:{tenant.tenant_id}:{document_id}"
    after = signer.decode_number(scope, cursor) if cursor else -1
    async with _database(request).tenant(tenant.tenant_id) as session:
        document = await repository.get_document(session, tenant.tenant_id, document_id)
        found = await repository.list_chunks(session, document, after_position=after, limit=limit)
    items = found[:limit]
    following = signer.encode_number(scope, items[-1].position) if len(found) > limit else None
    return ChunkList(items=[chunk_out(chunk) for chunk in items], next=following)


@router.delete("/documents/{document_id}", status_code=202, tags=["documents"])
async def delete_document(request: Request, response: Response, tenant: CurrentTenant, document_id: UUID) -> DeleteOut:
    """Delete a document: invisible from the moment of this answer; the job removes it from every store."""
    async with _database(request).tenant(tenant.tenant_id) as session:
        document = await repository.get_document(session, tenant.tenant_id, document_id)
        document.deleted_at = func.now()
        job = jobs.new_job(tenant.tenant_id, "delete", document_id=document_id)
        session.add(job)
        await session.commit()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return DeleteOut(job=job_out(job))


def _form(request: Request) -> AbstractAsyncContextManager[FormData]:
    settings: IngestSettings = request.state.ingest_settings
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequest(
            "Send the document as multipart/form-data with a part named `file`.",
            fields=(FieldError("body", "is not multipart/form-data"),),
        )
    return request.form(max_files=1, max_fields=8, max_part_size=settings.max_metadata_bytes * 4)


async def _read_form(form: FormData, settings: IngestSettings) -> tuple[Upload, BinaryIO]:
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise InvalidRequest("The form has no file.", fields=(FieldError("body.file", "is missing"),))
    unknown = set(form) - {"file", "metadata", "external_id", "title"}
    if unknown:
        name = sorted(unknown)[0]
        raise InvalidRequest(f"The form has an unknown part {name!r}.", fields=(FieldError(f"body.{name}", "unknown"),))
    external_id, title = _text_part(form.get("external_id"), "external_id"), _text_part(form.get("title"), "title")
    metadata = parse_metadata(_raw_part(form.get("metadata"), "metadata"), max_bytes=settings.max_metadata_bytes)
    size, digest, head = await intake.measure(file.file, limit=settings.max_upload_bytes)
    filename = _safe_filename(file.filename or "document")
    upload = Upload(
        filename=filename,
        content_type=file.content_type or "application/octet-stream",
        format=detect_format(head, filename, file.content_type),
        size_bytes=size,
        sha256=digest,
        external_id=external_id,
        title=title,
        metadata=metadata,
    )
    return upload, file.file


def _raw_part(value: UploadFile | str | None, name: str) -> str | None:
    if isinstance(value, UploadFile):
        raise InvalidRequest(f"`{name}` must be text.", fields=(FieldError(f"body.{name}", "is a file"),))
    return value


def _text_part(value: UploadFile | str | None, name: str) -> str | None:
    text = (_raw_part(value, name) or "").strip()
    if len(text) > 512 or any(ord(character) < 32 for character in text):
        detail = "takes at most 512 characters, without control characters"
        raise InvalidRequest(f"`{name}` {detail}.", fields=(FieldError(f"body.{name}", detail),))
    return text or None


def _safe_filename(name: str) -> str:
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(character for character in last if character.isprintable())[:255] or "document"


def _attachment(filename: str) -> str:
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


def _database(request: Request) -> Database:
    database: Database = request.state.database
    return database


def _objects(request: Request) -> Objects:
    objects: Objects = request.state.objects
    return objects


def _cursors(request: Request) -> CursorSigner:
    signer: CursorSigner = request.state.cursors
    return signer
