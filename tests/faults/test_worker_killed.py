"""A worker killed in the middle of a document: the document is finished after the restart, once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.inside import superuser
from tests.faults.victims import kill

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess

PARAGRAPH = "Entry {n} of the ledger: on day {n} the warehouse received {n} crates of the {n}th kind of lamp oil."


async def test_a_document_whose_worker_is_killed_is_finished_once(stack: StackState, tenant: TenantAccess) -> None:
    text = "# Ledger\n\n" + "\n\n".join(PARAGRAPH.format(n=n) for n in range(2500))
    answer = await tenant.client.post("/v1/documents", files={"file": ("ledger.md", text.encode())})
    job_id = answer.json()["job"]["id"]
    while (await tenant.client.get(f"/v1/jobs/{job_id}")).json()["stage"] != "embedding":
        await asyncio.sleep(0.05)
    kill(Path(stack.env["TESSERA_DATA_DIR"]), "worker", whole=True)
    with superuser(stack) as connection:
        # The only worker's next life knows that nobody holds this, whatever the lease says.
        connection.execute("UPDATE jobs SET lease_until = now() + interval '1 hour' WHERE id = %s", [job_id])
    job = await tenant.job(job_id)
    assert (job["state"], job["attempts"]) == ("done", 2), job
    document_id = answer.json()["document"]["id"]
    positions: list[int] = []
    cursor: str | None = None
    while True:
        params = {"limit": 100, **({"cursor": cursor} if cursor else {})}
        page = (await tenant.client.get(f"/v1/documents/{document_id}/chunks", params=params)).json()
        positions += [chunk["position"] for chunk in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert positions == list(range(job["result"]["chunks"]))
    hits = await tenant.search("crates received on day 1777", k=100)
    assert len({hit["chunk_id"] for hit in hits}) == len(hits)
    receipt = (await tenant.client.delete(f"/v1/documents/{document_id}")).json()
    removed = (await tenant.job(receipt["job"]["id"]))["result"]
    assert removed["vectors"] == removed["lexical"] == removed["chunks"] == len(positions), "each chunk is stored once"
