"""Purging versions, deleting documents, erasing tenants: what goes from which store, with a receipt. None commits."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Table, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import repository
from ingestion.models import Job
from ingestion.runtime import Runtime
from shards.catalog_postgres import PostgresCatalog
from tenants.db import Base
from tenants.models import Tenant


async def forget_document(session: AsyncSession, runtime: Runtime, tenant_id: UUID, document_id: UUID) -> None:
    """Take the versions that `purge_document` removes out of the index's counts; committed before it."""
    versions = await repository.purgeable_versions(session, tenant_id, document_id)
    if versions:
        numbers = [version.version_no for version in versions]
        await runtime.indexes.forget_versions(PostgresCatalog(session, tenant_id), numbers)


async def purge_document(session: AsyncSession, runtime: Runtime, tenant_id: UUID, document_id: UUID) -> dict[str, int]:
    """Remove the replaced versions of a document, or all of a deleted one, from every store; return the receipt."""
    versions = await repository.purgeable_versions(session, tenant_id, document_id)
    receipt: dict[str, int] = {"vectors": 0, "lexical": 0, "objects": 0, "chunks": 0, "versions": 0}
    if versions:
        numbers = [version.version_no for version in versions]
        receipt |= await runtime.indexes.delete_versions(PostgresCatalog(session, tenant_id), numbers)
        receipt["objects"] = await runtime.objects.delete([version.object_key for version in versions])
        receipt |= await repository.delete_versions(session, versions)
    await repository.delete_document_row(session, tenant_id, document_id)
    return receipt


async def erase_tenant(session: AsyncSession, runtime: Runtime, tenant_id: UUID, keep_job: UUID) -> dict[str, Any]:
    """Remove a tenant from every store, in a `Database.erasure` session; return the receipt.

    The row of the erasure job itself stays: it carries the receipt and nothing of the tenant.
    """
    engines = await runtime.indexes.drop_tenant(PostgresCatalog(session, tenant_id))
    objects = await runtime.objects.delete(await runtime.objects.list_tenant(tenant_id))
    rows: dict[str, int] = {}
    for table in reversed(Base.metadata.sorted_tables):
        if "tenant_id" in table.c:
            rows[table.name] = await _delete_rows(session, table, tenant_id, keep_job)
    await session.execute(delete(Tenant).where(Tenant.id == tenant_id))
    rows["tenants"] = 1
    return {"tenant_id": str(tenant_id), "rows": rows, "objects": objects, **engines}


async def _delete_rows(session: AsyncSession, table: Table, tenant_id: UUID, keep_job: UUID) -> int:
    mine = table.c.tenant_id == tenant_id
    if table.name == Job.__tablename__:
        mine = mine & (table.c.id != keep_job)
    count = await session.scalar(select(func.count()).select_from(table).where(mine)) or 0
    await session.execute(delete(table).where(mine))
    return count
