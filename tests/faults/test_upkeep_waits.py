"""A vector store that goes away while an index is worked on: the work waits for it, and does not fail."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import update

from ingestion import jobs
from ingestion.models import Job
from tenants.errors import Unavailable
from tests.faults.victims import kill

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tenants.db import Database
    from tests.conftest import TenantAccess


def kill_milvus(stack: StackState) -> None:
    kill(Path(stack.env["TESSERA_DATA_DIR"]), "milvus", whole=True)


async def test_upkeep_waits_for_the_vector_store(
    stack: StackState, tenant: TenantAccess, admin: httpx.AsyncClient
) -> None:
    await tenant.upload("The lighthouse keeper counts the ships at dusk.")
    kill_milvus(stack)
    answer = await admin.post(f"/v1/admin/tenants/{tenant.id}/placement", json={"tier": "dedicated"})
    seen: list[dict[str, Any]] = []
    while len(seen) < 1200:
        seen.append((await admin.get(answer.headers["location"])).json())
        if seen[-1]["state"] in ("done", "failed"):
            break
        if not any(job["state"] == "retrying" for job in seen):
            kill_milvus(stack)  # it comes back by itself; keep it away until the job has seen that
        await asyncio.sleep(0.1)
    waited = next(job for job in seen if job["state"] == "retrying")
    assert waited["error"]["code"] == "vectors_unavailable"
    assert waited["attempts"] == 0, "to wait is no attempt"
    assert seen[-1]["state"] == "done", seen[-1]
    assert seen[-1]["result"]["tier"] == "dedicated"
    found = await tenant.search("Who counts the ships?")
    assert "lighthouse" in found[0]["text"]


async def test_waiting_does_not_use_up_the_attempts(worker_database: Database) -> None:
    tenant_id, batch_id = uuid4(), uuid4()
    async with worker_database.tenant(tenant_id) as session, session.begin():
        await jobs.queue_partition(session, tenant_id)
    for _ in range(7):
        async with worker_database.tenant(tenant_id) as session, session.begin():
            await session.execute(update(Job).values(batch_id=batch_id))
            [job] = await jobs.claim(session, tenant_id, batch_id, lease=timedelta(minutes=1), max_attempts=3)
            assert job.attempts == 1
        async with worker_database.tenant(tenant_id) as session, session.begin():
            await jobs.wait(session, tenant_id, batch_id, Unavailable("away", code="vectors_unavailable"))
    async with worker_database.tenant(tenant_id) as session:
        [waiting] = await jobs.list_jobs(session, tenant_id, state="retrying", after=None, limit=5)
        assert (waiting.attempts, waiting.batch_id, waiting.error) == (
            0,
            None,
            {"code": "vectors_unavailable", "detail": "away"},
        )
        assert waiting.not_before is not None
