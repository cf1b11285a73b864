"""`POST /v1/admin/tenants`: a tenant is accepted when the engines have room for it. Nothing is made for it in them yet:
its first document does that, so creating one is a row in Postgres."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from shards.room import require_room
from shards.state import indexes_of
from tenants import repository
from tenants.api import TenantIn, TenantOut, require_known_models, tenant_out
from tenants.auth import current_admin
from tenants.idempotency import IdempotentRoute
from tenants.state import database_of, models_of

router = APIRouter(
    prefix="/v1/admin", tags=["admin"], dependencies=[Depends(current_admin)], route_class=IdempotentRoute
)


@router.post("/tenants", status_code=201, responses={200: {"model": TenantOut, "description": "It existed already"}})
async def create_tenant(request: Request, response: Response, body: TenantIn) -> TenantOut:
    """Create a tenant. The same slug with the same body again gives the same tenant and 200."""
    require_known_models(body.settings, models_of(request))
    async with database_of(request).admin() as session:
        tenant, created = await repository.create_tenant(
            session,
            slug=body.slug,
            name=body.name,
            plan=body.plan,
            settings=body.settings.model_dump(exclude_none=True),
            placement=body.placement,
        )
        if created:
            await require_room(session, indexes_of(request).vectors.budgets, body.placement)
        await session.commit()
    response.status_code = 201 if created else 200
    return tenant_out(tenant)
