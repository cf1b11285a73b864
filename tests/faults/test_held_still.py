"""What is there and does not answer (SIGSTOP): work waits for a store, and a worker thought dead wakes to no harm."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from service.local.stores import STORES
from tests.faults import inside, victims
from tests.faults.rounds import trial

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess

STILL_S = 1.5
"""`make faults` holds each store still for half a minute."""
PARAGRAPH = "Line {n} of the inventory: {n} barrels of tar, {n} coils of rope, {n} lanterns of the {n}th kind."


async def test_nothing_is_lost_while_stores_do_not_answer(stack: StackState) -> None:
    async with trial(stack, seed=1, writers=2, readers=1) as made:
        await made.hold_still(STORES, STILL_S)


async def test_a_worker_that_wakes_after_its_lease_writes_nothing_twice(
    stack: StackState, tenant: TenantAccess
) -> None:
    text = "# Inventory\n\n" + "\n\n".join(PARAGRAPH.format(n=n) for n in range(500))
    answer = await tenant.client.post("/v1/documents", files={"file": ("inventory.md", text.encode())})
    job_id, document_id = answer.json()["job"]["id"], answer.json()["document"]["id"]
    while (await tenant.client.get(f"/v1/jobs/{job_id}")).json()["state"] != "running":
        await asyncio.sleep(0.01)
    first = await inside.batch_of(stack, job_id)
    async with victims.held_still(Path(stack.env["TESSERA_DATA_DIR"]), "worker"):
        with inside.superuser(stack) as connection:
            connection.execute("UPDATE jobs SET lease_until = now() WHERE id = %s AND state = 'running'", [job_id])
        while await inside.batch_of(stack, job_id) == first:
            await asyncio.sleep(0.02)
    job = await tenant.job(job_id)
    assert (job["state"], job["attempts"]) == ("done", 2), job
    receipt = (await tenant.client.delete(f"/v1/documents/{document_id}")).json()
    removed = (await tenant.job(receipt["job"]["id"]))["result"]
    chunks = job["result"]["chunks"]
    assert (removed["vectors"], removed["lexical"], removed["chunks"]) == (chunks,) * 3, "each chunk was stored once"
