"""A search engine that dies in operation: answers go on from the other, say so, and recover without a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.victims import kill

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess


async def search(tenant: TenantAccess) -> dict[str, Any]:
    answer = await tenant.client.post("/v1/search", json={"query": "Where is the ferry's winter berth?"})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_dead_vector_store_is_flagged_and_recovers(stack: StackState, tenant: TenantAccess) -> None:
    await tenant.upload("The winter berth of the ferry is at the north quay.")
    assert (await search(tenant))["degraded"] == []
    kill(Path(stack.env["TESSERA_DATA_DIR"]), "milvus", whole=True)
    body = await search(tenant)
    assert body["degraded"] == ["ann"]
    assert [hit["ranks"]["ann"] for hit in body["hits"]] == [None]
    assert "north quay" in body["hits"][0]["text"]
    for _ in range(300):
        if not (await search(tenant))["degraded"]:
            break
        await asyncio.sleep(0.1)
    assert (await search(tenant))["hits"][0]["ranks"]["ann"] == 1
    uploaded = await tenant.upload("In summer the ferry lies at the south quay.")
    assert uploaded["job"]["state"] == "done"
    assert len((await search(tenant))["hits"]) == 2
