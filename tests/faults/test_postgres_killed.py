"""Postgres killed while a worker's transaction is open: what was not committed never was, and is done again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import inside, victims

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess


async def test_what_was_under_way_is_done_again_once(stack: StackState, tenant: TenantAccess) -> None:
    data_dir = Path(stack.env["TESSERA_DATA_DIR"])
    await tenant.upload("The first mate keeps the log of the brig.", external_id="log")
    text = "\n\n".join(f"Page {n} of the log: wind from the north, {n} knots, sea calm." for n in range(300))
    answer = await tenant.client.post(
        "/v1/documents", files={"file": ("log.txt", text.encode())}, data={"external_id": "log"}
    )
    assert answer.status_code == 202, answer.text
    await inside.writing(stack)
    killed = victims.kill(data_dir, "postgres", whole=False)
    await victims.back(data_dir, "postgres", killed)
    while (await tenant.client.get("/v1/documents")).status_code == 503:
        await asyncio.sleep(0.1)
    job = await tenant.job(answer.json()["job"]["id"])
    assert job["state"] == "done", job
    listed = (await tenant.client.get("/v1/documents")).json()["items"]
    assert [(document["external_id"], document["active_version"]) for document in listed] == [("log", 2)]
    chunks = (await tenant.client.get(f"/v1/documents/{listed[0]['id']}/chunks", params={"limit": 100})).json()["items"]
    assert [chunk["position"] for chunk in chunks] == list(range(job["result"]["chunks"]))
    hits = await tenant.search("the log of the brig", k=100)
    assert sorted(hit["chunk_id"] for hit in hits) == sorted(chunk["chunk_id"] for chunk in chunks)
