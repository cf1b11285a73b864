"""The admin API: tenants and their keys. (Creating a tenant is in `shards/provisioning_api.py`: the engines need room
for it. Deleting one is in `ingestion/erasure_api.py`: it is long work.)"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tenants import repository
from tenants.auth import current_admin, no_longer_believed
from tenants.context import Placement, TenantSettings
from tenants.errors import FieldError, InvalidRequest
from tenants.idempotency import IdempotentRoute
from tenants.models import ApiKey, Tenant
from tenants.plain_text import PlainText
from tenants.state import cursors_of, database_of, models_of

router = APIRouter(
    prefix="/v1/admin", tags=["admin"], dependencies=[Depends(current_admin)], route_class=IdempotentRoute
)
Limit = Annotated[int, Query(ge=1, le=100)]


class TenantIn(BaseModel):
    """A tenant to create."""

    model_config = ConfigDict(extra="forbid")

    slug: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", examples=["acme"])
    name: PlainText = Field(min_length=1, max_length=200, examples=["Acme Ltd"])
    plan: str = Field(default="standard", pattern=r"^[a-z][a-z0-9_]{0,31}$")
    settings: TenantSettings = Field(default_factory=TenantSettings)
    placement: Placement = Field(default_factory=Placement)


class TenantPatch(BaseModel):
    """What may be changed of a tenant; what is absent stays."""

    model_config = ConfigDict(extra="forbid")

    name: PlainText | None = Field(default=None, min_length=1, max_length=200)
    plan: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]{0,31}$")
    settings: TenantSettings | None = None


class TenantOut(BaseModel):
    """A tenant as the operator sees it."""

    id: UUID
    slug: str
    name: str
    plan: str
    state: Literal["active", "suspended", "deleting"]
    placement: Literal["auto", "pooled", "dedicated", "isolated"]
    """Where the operator wants its index; `auto` goes by its size."""
    endpoint: str
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class TenantList(BaseModel):
    """A page of tenants, newest first."""

    items: list[TenantOut]
    next: str | None


class KeyIn(BaseModel):
    """A key to create."""

    model_config = ConfigDict(extra="forbid")

    name: PlainText = Field(min_length=1, max_length=200, examples=["web site"])
    expires_at: AwareDatetime | None = None


class KeyOut(BaseModel):
    """A key without its secret."""

    id: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKey(KeyOut):
    """A key on the one occasion on which it is shown."""

    key: str


class KeyList(BaseModel):
    """The keys of a tenant, newest first."""

    items: list[KeyOut]
    next: None = None


@router.get("/tenants")
async def list_tenants(
    request: Request, limit: Limit = 50, cursor: str | None = None, slug: PlainText | None = None
) -> TenantList:
    """List tenants, newest first; with `slug` the one that has it."""
    signer = cursors_of(request)
    after = signer.decode("tenants", cursor) if cursor else None
    async with database_of(request).admin() as session:
        found = await repository.list_tenants(session, slug=slug, after=after, limit=limit)
    items, following = signer.page("tenants", found, limit)
    return TenantList(items=[tenant_out(tenant) for tenant in items], next=following)


@router.get("/tenants/{tenant_id}")
async def get_tenant(request: Request, tenant_id: UUID) -> TenantOut:
    """Get one tenant."""
    async with database_of(request).admin() as session:
        return tenant_out(await repository.get_tenant(session, tenant_id))


@router.patch("/tenants/{tenant_id}")
async def change_tenant(request: Request, tenant_id: UUID, body: TenantPatch) -> TenantOut:
    """Change a tenant's name, plan or settings."""
    async with database_of(request).admin() as session:
        tenant = await repository.get_tenant(session, tenant_id)
        tenant.name = body.name or tenant.name
        tenant.plan = body.plan or tenant.plan
        if body.settings is not None:
            require_known_models(body.settings, models_of(request))
            tenant.settings = body.settings.model_dump(exclude_none=True)
        tenant.updated_at = datetime.now(UTC)
        await session.commit()
    return tenant_out(tenant)


@router.post("/tenants/{tenant_id}/suspend")
async def suspend_tenant(request: Request, tenant_id: UUID) -> TenantOut:
    """Suspend a tenant: from this answer on its keys answer 403, on every process; nothing is lost."""
    tenant = await _set_state(request, tenant_id, "suspended")
    await no_longer_believed()
    return tenant


@router.post("/tenants/{tenant_id}/resume")
async def resume_tenant(request: Request, tenant_id: UUID) -> TenantOut:
    """Resume a suspended tenant."""
    return await _set_state(request, tenant_id, "active")


@router.post("/tenants/{tenant_id}/keys", status_code=201)
async def create_key(request: Request, tenant_id: UUID, body: KeyIn) -> NewKey:
    """Create a key. The answer is the only place where the key is ever shown; two may be active at a time."""
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        raise InvalidRequest(
            "The key would have expired already.", fields=(FieldError("body.expires_at", "lies in the past"),)
        )
    await _require_tenant(request, tenant_id)
    async with database_of(request).tenant(tenant_id) as session:
        row, key = await repository.create_key(
            session, tenant_id, name=body.name, expires_at=body.expires_at, pepper=request.state.pepper
        )
        await session.commit()
    request.state.shown_once = True
    return NewKey(**_key_out(row).model_dump(), key=key)


@router.get("/tenants/{tenant_id}/keys")
async def list_keys(request: Request, tenant_id: UUID) -> KeyList:
    """List a tenant's keys, revoked ones too."""
    await _require_tenant(request, tenant_id)
    async with database_of(request).tenant(tenant_id) as session:
        return KeyList(items=[_key_out(row) for row in await repository.list_keys(session, tenant_id)])


@router.delete("/tenants/{tenant_id}/keys/{key_id}", status_code=204)
async def revoke_key(request: Request, tenant_id: UUID, key_id: PlainText) -> None:
    """Revoke a key: from this answer on it is refused, on every process."""
    await _require_tenant(request, tenant_id)
    async with database_of(request).tenant(tenant_id) as session:
        await repository.revoke_key(session, tenant_id, key_id)
        await session.commit()
    await no_longer_believed()


async def _set_state(request: Request, tenant_id: UUID, state: str) -> TenantOut:
    async with database_of(request).admin() as session:
        tenant = await repository.set_state(session, tenant_id, state)
        await session.commit()
    return tenant_out(tenant)


async def _require_tenant(request: Request, tenant_id: UUID) -> None:
    async with database_of(request).admin() as session:
        await repository.get_tenant(session, tenant_id)


def require_known_models(settings: TenantSettings, declared: frozenset[str]) -> None:
    """Raise `InvalidRequest` (`unknown_model`) for a model that the installation does not declare."""
    for place, name in enumerate(settings.generation_models or ()):
        if name not in declared:
            raise InvalidRequest(
                f"The installation declares no model {name!r}; it declares {', '.join(sorted(declared))}.",
                code="unknown_model",
                fields=(FieldError(f"body.settings.generation_models.{place}", "is not declared"),),
            )


def tenant_out(tenant: Tenant) -> TenantOut:
    """Render a tenant's row."""
    return TenantOut.model_validate(tenant, from_attributes=True)


def _key_out(row: ApiKey) -> KeyOut:
    return KeyOut.model_validate(row, from_attributes=True)
