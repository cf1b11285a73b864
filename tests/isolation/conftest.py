"""Two tenants of the running stack, each with a canary in everything that a tenant can name."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from tests.conftest import TenantAccess


@dataclass(frozen=True)
class Canaried:
    """A tenant, its canary, and the ids of everything it owns by path parameter."""

    access: TenantAccess
    canary: str
    ids: dict[str, str]


@pytest.fixture(scope="session")
async def canaried(admin: httpx.AsyncClient, make_tenant: Any) -> AsyncIterator[tuple[Canaried, Canaried]]:
    """Two tenants with the same kind of content and different canaries."""
    made = []
    for name in ("amber", "birch"):
        access = await make_tenant(name)
        made.append(await fill(admin, access))
    yield (made[0], made[1])
    for tenant in made:
        await tenant.access.client.aclose()


async def fill(admin: httpx.AsyncClient, access: TenantAccess) -> Canaried:
    canary = f"canary{secrets.token_hex(6)}"
    text = f"# Vault code {canary}\n\nThe code of the vault is {canary}. Only the archivist may know {canary}.\n"
    uploaded = await access.upload(
        text,
        f"{canary}.md",
        title=f"Vault {canary}",
        external_id=f"vault-{canary}",
        metadata=json.dumps({"secret": canary, "tags": [canary], "shared": "same"}),
    )
    assert uploaded["job"]["state"] == "done", uploaded
    answer = await access.client.post("/v1/chat", json={"message": f"What is {canary}?", "stream": False})
    assert answer.status_code == 200, answer.text
    source = await access.client.post(
        "/v1/sources",
        json={
            "kind": "feed",
            "name": f"feed {canary}",
            "config": {"url": f"https://example.com/{canary}"},
            "schedule": {"cron": "0 0 29 2 *"},
        },
    )
    assert source.status_code == 201, source.text
    keys = (await admin.get(f"/v1/admin/tenants/{access.id}/keys")).json()["items"]
    return Canaried(
        access,
        canary,
        {
            "document_id": uploaded["document"]["id"],
            "job_id": uploaded["job"]["id"],
            "conversation_id": answer.json()["conversation_id"],
            "source_id": source.json()["id"],
            "tenant_id": access.id,
            "key_id": keys[0]["id"],
            "version": "1",
        },
    )
