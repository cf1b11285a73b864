"""Versions of documents whose originals are kept, and deleting many documents at once."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ingestion import repository
from ingestion.api import attachment
from ingestion.deletes import delete_documents
from ingestion.models import Priority
from ingestion.schemas import JobOut, VersionList, job_out, version_out
from ingestion.state import filter_place, objects_of
from shards.filters import compile_filter, parse_filter
from tenants.auth import CurrentTenant
from tenants.idempotency import IdempotentRoute
from tenants.plain_text import PlainText
from tenants.state import cursors_of, database_of

router = APIRouter(prefix="/v1/documents", tags=["documents"], route_class=IdempotentRoute)
MOST_DELETED = 500
Ids = Annotated[list[UUID], Field(min_length=1, max_length=MOST_DELETED)]
Name = Annotated[PlainText, Field(min_length=1, max_length=512)]
Names = Annotated[list[Name], Field(min_length=1, max_length=MOST_DELETED)]


class DeleteManyIn(BaseModel):
    """Which documents to delete: by one of the three. An empty list names none and is refused."""

    model_config = ConfigDict(extra="forbid")

    ids: Ids | None = None
    external_ids: Names | None = None
    filter: dict[str, Any] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of_three(self) -> DeleteManyIn:
        if sum(one is not None for one in (self.ids, self.external_ids, self.filter)) != 1:
            raise ValueError("give one of ids, external_ids and filter")
        return self


class Deleted(BaseModel):
    """A document that is invisible from this answer on, and the job that removes it."""

    id: UUID
    external_id: str | None
    job: JobOut


class DeletedList(BaseModel):
    """What was deleted. `more` says that a filter matches further documents: send the request again."""

    items: list[Deleted]
    more: bool


@router.post("/delete", status_code=202)
async def delete_many(request: Request, tenant: CurrentTenant, body: DeleteManyIn) -> DeletedList:
    """Delete documents by id, external id or filter, up to 500 at one instant. Unknown ones are passed over."""
    condition = compile_filter(parse_filter(body.filter)) if body.filter is not None else None
    place = filter_place(request, tenant.tenant_id, condition)
    async with place, database_of(request).tenant(tenant.tenant_id) as session:
        found = await repository.lock_documents(
            session,
            tenant.tenant_id,
            ids=body.ids,
            external_ids=body.external_ids,
            condition=condition,
            limit=MOST_DELETED + 1,
        )
        named = dict(found[:MOST_DELETED])
        jobs = await delete_documents(session, tenant.tenant_id, list(named), priority=Priority.BULK)
        await session.commit()
    items = [Deleted(id=one, external_id=name, job=job_out(jobs[one])) for one, name in named.items()]
    return DeletedList(items=items, more=len(found) > MOST_DELETED)


@router.get("/{document_id}/versions")
async def list_versions(
    request: Request,
    tenant: CurrentTenant,
    document_id: UUID,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: str | None = None,
) -> VersionList:
    """List the versions whose originals can be downloaded, newest first. The tenant's retention says how many."""
    signer, scope = cursors_of(request), f"versions:{tenant.tenant_id}:{document_id}"
    before = signer.decode_number(scope, cursor) if cursor else None
    async with database_of(request).tenant(tenant.tenant_id) as session:
        document = await repository.get_document(session, tenant.tenant_id, document_id)
        found = await repository.list_versions(session, document, before=before, limit=limit)
    items = found[:limit]
    following = signer.encode_number(scope, items[-1].version) if len(found) > limit else None
    return VersionList(items=[version_out(version, document) for version in items], next=following)


@router.get(
    "/{document_id}/versions/{version}/content",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}, "description": "The original, as uploaded"}},
)
async def get_version_content(
    request: Request, tenant: CurrentTenant, document_id: UUID, version: int
) -> StreamingResponse:
    """Download the original of one version."""
    async with database_of(request).tenant(tenant.tenant_id) as session:
        document = await repository.get_document(session, tenant.tenant_id, document_id)
        found = await repository.get_version(session, document, version)
    return await attachment(objects_of(request), found)
