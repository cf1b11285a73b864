"""The broker loses what it held, or delivers it twice: each document is ingested once, and soon."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis

from ingestion.dispatch import TASKS
from service.broker import make_celery
from service.redis_access import RedisAddress
from tests.faults import inside, victims

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess

PARAGRAPH = "Entry {n} of the ledger: on day {n} the warehouse received {n} crates of the {n}th kind of lamp oil."


async def send(tenant: TenantAccess, text: str, name: str) -> dict[str, Any]:
    answer = await tenant.client.post("/v1/documents", files={"file": (name, text.encode())})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_what_a_flushed_broker_forgot_is_noticed(stack: StackState, tenant: TenantAccess) -> None:
    data_dir = Path(stack.env["TESSERA_DATA_DIR"])
    log = victims.child_of(data_dir, "scheduler").log
    noticed = log.read_text().count("lost its memory")
    async with victims.held_still(data_dir, "worker"):
        sent = []
        for n in range(3):
            sent.append(await send(tenant, f"The pilot of boat {n} waits for the tide.", f"boat{n}.txt"))
            await inside.batch_of(stack, sent[-1]["job"]["id"])  # else the next would go with it
        redis = Redis.from_url(stack.env["TESSERA_REDIS_URL"])
        while redis.llen("tessera:tessera") < len(sent) - 1:  # the first is on its way to the worker already
            await asyncio.sleep(0.02)
        redis.flushall()
    jobs = [await tenant.job(one["job"]["id"]) for one in sent]
    assert [(job["state"], job["attempts"]) for job in jobs] == [("done", 1)] * 3
    assert log.read_text().count("lost its memory") == noticed + 1, "else they came back when their lease ran out"
    hits = await tenant.search("Which pilot waits for the tide?")
    assert sorted(hit["document_id"] for hit in hits) == sorted(one["document"]["id"] for one in sent)


async def test_a_message_that_comes_twice_changes_nothing(stack: StackState, tenant: TenantAccess) -> None:
    text = "# Ledger\n\n" + "\n\n".join(PARAGRAPH.format(n=n) for n in range(600))
    sent = await send(tenant, text, "ledger.md")
    job_id, document_id = sent["job"]["id"], sent["document"]["id"]
    message = {"tenant_id": tenant.id, "batch_id": str(await inside.batch_of(stack, job_id))}
    while (await tenant.client.get(f"/v1/jobs/{job_id}")).json()["state"] != "running":
        await asyncio.sleep(0.01)
    celery = make_celery(RedisAddress("TESSERA_REDIS_URL", stack.env["TESSERA_REDIS_URL"]))
    for _ in range(5):
        celery.send_task(TASKS["ingest"], kwargs=message)
    done = await tenant.job(job_id)
    assert (done["state"], done["attempts"]) == ("done", 1), done
    chunks = await chunk_positions(tenant, document_id)
    assert chunks == list(range(done["result"]["chunks"]))
    celery.send_task(TASKS["ingest"], kwargs=message)
    await tenant.upload("The worker has been through the queue when this is searchable.")
    again = await tenant.job(job_id)
    assert {**again, "position": None} == {**done, "position": None}
    assert await chunk_positions(tenant, document_id) == chunks


async def chunk_positions(tenant: TenantAccess, document_id: str) -> list[int]:
    positions: list[int] = []
    params: dict[str, Any] = {"limit": 100}
    while True:
        page = (await tenant.client.get(f"/v1/documents/{document_id}/chunks", params=params)).json()
        positions += [chunk["position"] for chunk in page["items"]]
        if page["next"] is None:
            return positions
        params["cursor"] = page["next"]
