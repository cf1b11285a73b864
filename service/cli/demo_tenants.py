"""The demo's tenants: made once, found again by every later run."""

from __future__ import annotations

from eval.client import ApiProblem, TesseraClient
from service.cli.demo_keys import DemoKey
from service.cli.key import is_active
from tenants.errors import Conflict

KEY_NAME = "tessera demo"


async def provision(admin: TesseraClient, slug: str, name: str, kept: DemoKey | None) -> DemoKey:
    """Return a key that works for the tenant with this slug, and make tenant and key where they are missing.

    Raises:
        ApiProblem: the service refuses, for example because the tenant is suspended.
        Conflict: the tenant has two active keys, neither made by the demo.
    """
    tenant, _ = await admin.create_tenant(slug, name)
    if kept is not None and kept.tenant_id == tenant["id"] and await _works(admin.url, kept.key):
        return kept
    await _make_room(admin, tenant["id"], slug)
    made = await admin.create_key(tenant["id"], KEY_NAME)
    return DemoKey(tenant_id=tenant["id"], key_id=made["id"], key=made["key"])


async def _works(url: str, key: str) -> bool:
    async with TesseraClient(url, key) as client:
        try:
            async for _ in client.documents(page=1):
                break
        except ApiProblem as error:
            if error.status == 401:
                return False
            raise
    return True


async def _make_room(admin: TesseraClient, tenant_id: str, slug: str) -> None:
    # A key that the demo made and lost is of no use to anybody; a key that somebody else made may be in use.
    active = [key async for key in admin.keys(tenant_id) if is_active(key)]
    if len(active) < 2:
        return
    lost = [key for key in active if key["name"] == KEY_NAME]
    if not lost:
        raise Conflict(
            f"{slug} has two active keys that the demo did not make: revoke one with `tessera key revoke {slug} ID`.",
            code="too_many_keys",
        )
    await admin.revoke_key(tenant_id, lost[-1]["id"])
