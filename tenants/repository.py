"""Reads and writes of tenants and keys. Every function takes an open session; none commits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Select, bindparam, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from tenants import keys
from tenants.context import Placement, Retention, TenantSettings
from tenants.cursor import Position
from tenants.errors import Conflict, NotFound
from tenants.models import ApiKey, Tenant
from tenants.one_trip import Statement

ACTIVE_KEYS = 2


class HeldKey(NamedTuple):
    """An API key with its tenant, as `KEY` finds them."""

    digest: bytes
    revoked_at: datetime | None
    expires_at: datetime | None
    last_used_at: datetime | None
    tenant_id: UUID
    slug: str
    state: str
    settings: dict[str, Any]


KEY = Statement(
    select(
        ApiKey.digest,
        ApiKey.revoked_at,
        ApiKey.expires_at,
        ApiKey.last_used_at,
        Tenant.id,
        Tenant.slug,
        Tenant.state,
        Tenant.settings,
    )
    .join(Tenant, Tenant.id == ApiKey.tenant_id)
    .where(ApiKey.id == bindparam("key_id"))
)
"""The key with a public id; for `Database.read_of_key`."""


async def create_tenant(
    session: AsyncSession, *, slug: str, name: str, plan: str, settings: dict[str, Any], placement: Placement
) -> tuple[Tenant, bool]:
    """Return the tenant with this slug and whether it was made now.

    Raises:
        Conflict: the slug exists with another body (`slug_taken`) or is being deleted (`tenant_deleting`).
    """
    # Two requests with one slug at the same time: the second waits here and then finds the first's row.
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:slug, 7))"), {"slug": slug})
    found = await session.scalar(select(Tenant).where(Tenant.slug == slug))
    if found is None:
        where = {"placement": placement.tier, "endpoint": placement.endpoint}
        tenant = Tenant(id=uuid7(), slug=slug, name=name, plan=plan, state="active", settings=settings, **where)
        session.add(tenant)
        await session.flush()
        await session.refresh(tenant)
        return tenant, True
    if found.state == "deleting":
        raise Conflict("A tenant with this slug is being deleted; try again later.", code="tenant_deleting")
    if (found.name, found.plan, found.settings) != (name, plan, settings):
        raise Conflict("A tenant with this slug exists with another name, plan or settings.", code="slug_taken")
    return found, False


async def placement_of(session: AsyncSession, tenant_id: UUID) -> Placement:
    """Return where the operator wants the tenant's index."""
    query = select(Tenant.placement, Tenant.endpoint).where(Tenant.id == tenant_id)
    found = (await session.execute(query)).one_or_none()
    return Placement() if found is None else Placement(tier=found.placement, endpoint=found.endpoint)


async def retention_of(session: AsyncSession, tenant_id: UUID) -> Retention:
    """Return what is kept of a tenant's documents."""
    found = await session.scalar(select(Tenant.settings).where(Tenant.id == tenant_id))
    return TenantSettings.model_validate(found or {}).retention or Retention()


async def get_tenant(session: AsyncSession, tenant_id: UUID) -> Tenant:
    """Return a tenant; raise `NotFound` for an unknown id."""
    tenant = await session.get(Tenant, tenant_id)
    if tenant is None:
        raise NotFound("There is no tenant with this id.")
    return tenant


async def set_state(session: AsyncSession, tenant_id: UUID, state: str) -> Tenant:
    """Set a tenant's state; raise `Conflict` when it is being deleted."""
    tenant = await get_tenant(session, tenant_id)
    if tenant.state == "deleting":
        raise Conflict("The tenant is being deleted.", code="tenant_deleting")
    tenant.state = state
    tenant.updated_at = datetime.now(UTC)
    return tenant


async def list_tenants(session: AsyncSession, *, slug: str | None, after: Position | None, limit: int) -> list[Tenant]:
    """Return up to `limit` + 1 tenants, newest first; the extra one says that there are more."""
    query = select(Tenant) if slug is None else select(Tenant).where(Tenant.slug == slug)
    return await newest_first(session, query, Tenant, after=after, limit=limit)


async def newest_first(
    session: AsyncSession, query: Select[Any], model: Any, *, after: Position | None, limit: int
) -> list[Any]:
    """Run `query` over `model` newest first, from after a position; `limit` + 1 rows at most."""
    if after is not None:
        query = query.where(tuple_(model.created_at, model.id) < tuple_(after.created_at, after.id))
    query = query.order_by(model.created_at.desc(), model.id.desc()).limit(limit + 1)
    return list(await session.scalars(query))


async def create_key(
    session: AsyncSession, tenant_id: UUID, *, name: str, expires_at: datetime | None, pepper: str
) -> tuple[ApiKey, str]:
    """Return a new key's row and the key itself.

    Raises:
        Conflict: the tenant has two active keys already (`too_many_keys`).
    """
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:id, 8))"), {"id": str(tenant_id)})
    active = (
        select(func.count())
        .select_from(ApiKey)
        .where(
            ApiKey.tenant_id == tenant_id,
            ApiKey.revoked_at.is_(None),
            (ApiKey.expires_at.is_(None)) | (ApiKey.expires_at > func.now()),
        )
    )
    if (await session.scalar(active) or 0) >= ACTIVE_KEYS:
        raise Conflict(f"The tenant has {ACTIVE_KEYS} active keys already; revoke one first.", code="too_many_keys")
    parts, key = keys.generate_key()
    row = ApiKey(
        tenant_id=tenant_id, id=parts.id, name=name, digest=keys.digest(pepper, parts.secret), expires_at=expires_at
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row, key


async def list_keys(session: AsyncSession, tenant_id: UUID) -> list[ApiKey]:
    """Return every key of a tenant, newest first."""
    query = select(ApiKey).where(ApiKey.tenant_id == tenant_id).order_by(ApiKey.created_at.desc())
    return list(await session.scalars(query))


async def revoke_key(session: AsyncSession, tenant_id: UUID, key_id: str) -> None:
    """Revoke a key; raise `NotFound` for an unknown one. Revoking twice keeps the first time."""
    row = await session.get(ApiKey, (tenant_id, key_id))
    if row is None:
        raise NotFound("There is no key with this id.")
    if row.revoked_at is None:
        row.revoked_at = datetime.now(UTC)


async def touch_key(session: AsyncSession, tenant_id: UUID, key_id: str) -> None:
    """Note that a key was used."""
    await session.execute(
        update(ApiKey).where(ApiKey.tenant_id == tenant_id, ApiKey.id == key_id).values(last_used_at=func.now())
    )
