"""Checks of a tenant whose chunks are of another edition than the first: damage alone is found, and mended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from shards.lexical import ChunkText
from shards.names import lexical_name
from tests.ingestion.damage import Stores, finds, fsck, opened

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess

TEXT = "\n\n".join(f"Berth {n} is reserved for the pilot boat number {n * 3}, which sails at dawn." for n in range(12))


@pytest.fixture(scope="module")
async def stores(stack: StackState) -> AsyncIterator[Stores]:
    async with opened(stack) as found:
        yield found


async def test_an_edition_of_other_chunks(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores) -> None:
    document = (await tenant.upload(TEXT, "berths.md", external_id="berths"))["document"]["id"]
    await tenant.upload("The lighthouse is white.", "light.txt")
    before = len(await stores.chunks(tenant, document))
    asked = await admin.post(f"/v1/admin/tenants/{tenant.id}/reindex", json={"chunk_tokens": 40})
    assert asked.status_code == 202, asked.text
    assert (await tenant.job(asked.json()["job"]["id"]))["state"] == "done"
    assert (await fsck(admin, tenant))["total"] == 0
    rows = await stores.sql(tenant, "SELECT id, edition FROM chunks WHERE document_id = :d", d=document)
    second = [row.id for row in rows if row.edition == 2]
    assert len(second) > before
    index = lexical_name(UUID(tenant.id), 2)
    served = [row.id for row in await stores.sql(tenant, "SELECT id FROM chunks WHERE edition = 2 ORDER BY id")]
    await stores.lexical.delete_chunks(index, second[:2])
    await stores.lexical.insert(index, [ChunkText(uuid4(), 10**12, "x", "y")])
    await finds(admin, tenant, {"lexical": {"missing": 2, "orphan": 1}})
    hits = await tenant.search("Which pilot boat has berth 7?", k=3)
    assert {hit["external_id"] for hit in hits} == {"berths"}
    assert any("Berth 7 is" in hit["text"] for hit in hits)

    await stores.sql(tenant, "DELETE FROM index_generations WHERE state = 'live'")
    await fsck(admin, tenant, repair=True)
    assert (await stores.live(tenant)).edition == 2, "that of the chunks that were read"
    assert [row.id for row in await stores.sql(tenant, "SELECT id FROM chunks WHERE edition = 2 ORDER BY id")] == served
    hits = await tenant.search("Which pilot boat has berth 7?", k=3)
    assert any("Berth 7 is" in hit["text"] for hit in hits)
