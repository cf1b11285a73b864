"""Purging versions, deleting documents, erasing tenants: what goes from which store, with a receipt. None commits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Table, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import repository
from ingestion.models import Job
from ingestion.repository import Purgeable
from ingestion.runtime import Runtime
from shards.catalog_postgres import PostgresCatalog
from shards.placement import servers_of
from tenants.db import Base
from tenants.errors import TesseraError, Unavailable
from tenants.models import Tenant
from tenants.repository import placement_of, retention_of


class Incomplete(TesseraError):
    """Something of what was to be removed was found when it was looked for afterwards. It is removed again."""

    code = "removal_incomplete"
    retryable = True
    title = "Removal incomplete"


async def forget_document(
    session: AsyncSession, runtime: Runtime, tenant_id: UUID, document_id: UUID
) -> frozenset[int]:
    """Take the versions that `purge_document` removes out of the index's counts, and return their numbers; committed
    before it."""
    found = await _purgeable(session, tenant_id, document_id)
    if found.numbers:
        await runtime.indexes.forget_versions(PostgresCatalog(session, tenant_id), found.numbers)
    return frozenset(found.numbers)


async def purge_document(
    session: AsyncSession, runtime: Runtime, tenant_id: UUID, document_id: UUID, forgotten: frozenset[int]
) -> dict[str, Any]:
    """Remove the replaced versions of a document, or all of a deleted one, from every store; return the receipt.

    The receipt counts what was removed, and rests on looking for it in every store afterwards (`verified`: what was
    found then, all 0).

    Args:
        session: in the tenant's scope, under the writer lock.
        runtime: the stores.
        tenant_id: whose document it is.
        document_id: the document.
        forgotten: what `forget_document` returned.

    Raises:
        Unavailable: the document was deleted since then, which takes no lock: more is to go than was forgotten.
        Incomplete: something is still there.
    """
    found = await _purgeable(session, tenant_id, document_id)
    if not forgotten.issuperset(found.numbers):
        raise Unavailable("The document was deleted meanwhile.", code="document_busy")
    receipt: dict[str, Any] = {"vectors": 0, "lexical": 0, "objects": 0, "chunks": 0, "versions": 0, "kept": 0}
    catalog, keys = PostgresCatalog(session, tenant_id), [version.object_key for version in found.gone]
    if found.numbers:
        receipt |= await runtime.indexes.delete_versions(catalog, found.numbers)
        receipt["objects"] = await runtime.objects.delete(keys)
        receipt |= await repository.delete_versions(session, found.gone)
        receipt["chunks"] += await repository.keep_originals(session, found.kept)
        receipt["kept"] = len(found.kept)
    if found.deleted_at is not None:
        receipt |= await runtime.quotes.remove(session, tenant_id, document_id)
    await repository.delete_document_row(session, tenant_id, document_id)
    verified = await runtime.indexes.count_versions(catalog, found.numbers) if found.numbers else {}
    verified["objects"] = sum([await runtime.objects.head(key) is not None for key in keys])
    verified["rows"] = await repository.count_rows(session, found.gone)
    _require_nothing(verified)
    times = {"purged_at": datetime.now(UTC).isoformat()}
    if found.deleted_at is not None:
        times |= {"deleted_at": found.deleted_at.isoformat(), "invisible_since": found.deleted_at.isoformat()}
    return {**receipt, "verified": verified, **times}


async def _purgeable(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> Purgeable:
    retention = await retention_of(session, tenant_id)
    return await repository.purgeable_versions(session, tenant_id, document_id, keep=retention.keep_versions)


def _require_nothing(verified: Mapping[str, Any]) -> None:
    left = {store: count for store, count in verified.items() if count}
    if left:
        raise Incomplete(f"Still there after the removal: {left}. It is tried again.")


async def erase_tenant(session: AsyncSession, runtime: Runtime, tenant_id: UUID, keep_job: UUID) -> dict[str, Any]:
    """Remove a tenant from every store, in a `Database.erasure` session; return the receipt.

    The row of the erasure job itself stays: it carries the receipt and nothing of the tenant.
    """
    catalog = PostgresCatalog(session, tenant_id)
    servers = await servers_of(catalog, await placement_of(session, tenant_id))
    engines = await runtime.indexes.drop_tenant(catalog, endpoints=servers)
    objects = await runtime.objects.delete_tenant(tenant_id)
    rows: dict[str, int] = {}
    for table in reversed(Base.metadata.sorted_tables):
        if "tenant_id" in table.c:
            rows[table.name] = await _delete_rows(session, table, tenant_id, keep_job)
    await session.execute(delete(Tenant).where(Tenant.id == tenant_id))
    rows["tenants"] = 1
    verified = await _what_is_left(session, runtime, tenant_id, keep_job, servers)
    _require_nothing(verified)
    times = {"purged_at": datetime.now(UTC).isoformat()}
    return {"tenant_id": str(tenant_id), "rows": rows, "objects": objects, **engines, "verified": verified, **times}


async def _what_is_left(
    session: AsyncSession, runtime: Runtime, tenant_id: UUID, keep_job: UUID, servers: Collection[str]
) -> dict[str, int]:
    """Look for a tenant in every store."""
    rows = await session.scalar(select(func.count()).select_from(Tenant).where(Tenant.id == tenant_id)) or 0
    for table in Base.metadata.sorted_tables:
        if "tenant_id" in table.c:
            mine = _of_tenant(table, tenant_id, keep_job)
            rows += await session.scalar(select(func.count()).select_from(table).where(mine)) or 0
    # It counts, and finds nothing to drop.
    engines = await runtime.indexes.drop_tenant(PostgresCatalog(session, tenant_id), endpoints=servers)
    return {"rows": rows, "objects": len(await runtime.objects.list_tenant(tenant_id)), **engines}


async def _delete_rows(session: AsyncSession, table: Table, tenant_id: UUID, keep_job: UUID) -> int:
    mine = _of_tenant(table, tenant_id, keep_job)
    count = await session.scalar(select(func.count()).select_from(table).where(mine)) or 0
    await session.execute(delete(table).where(mine))
    return count


def _of_tenant(table: Table, tenant_id: UUID, keep_job: UUID) -> ColumnElement[bool]:
    mine: ColumnElement[bool] = table.c.tenant_id == tenant_id
    return mine & (table.c.id != keep_job) if table.name == Job.__tablename__ else mine
