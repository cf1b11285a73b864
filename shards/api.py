"""The admin API of the indexes: where a tenant's vectors lie and how well they are found."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter, Depends, Request

from shards.overview import OverviewOut, overview
from shards.report import ShardsOut, report
from shards.state import indexes_of
from tenants import repository
from tenants.auth import current_admin
from tenants.context import TenantSettings
from tenants.state import database_of

router = APIRouter(prefix="/v1/admin", tags=["admin"], dependencies=[Depends(current_admin)])


@router.get("/shards")
async def list_shards(request: Request) -> OverviewOut:
    """Return how the engines stand: room on each server, tenants by tier, those that take most."""
    async with database_of(request).admin() as session:
        return await overview(session, indexes_of(request))


@router.get("/tenants/{tenant_id}/shards")
async def show_shards(request: Request, tenant_id: UUID) -> ShardsOut:
    """Return how the index of a tenant stands: cells, heat, recall promised and measured, changes under way."""
    database = database_of(request)
    async with database.admin() as session:
        tenant = await repository.get_tenant(session, tenant_id)
        chosen = TenantSettings.model_validate(tenant.settings)
    async with database.tenant(tenant_id) as session:
        return await report(session, indexes_of(request), tenant_id, chosen.recall_target)
