"""A worker that has to end: it begins nothing new, and what it cannot end in time waits again, with no attempt lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from ingestion.batch import HOLDINGS, Batch, held
from ingestion.chunking import _Turn
from ingestion.models import Job
from ingestion.settings import IngestSettings
from tests.ingestion.queue_rows import Queue


@pytest.fixture(autouse=True)
def staying() -> Iterator[None]:
    """This process goes on after the test."""
    yield
    HOLDINGS.leaving = False


async def test_what_is_not_done_in_time_is_handed_back_and_counts_for_nothing(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    batch = await queue.give_out(tenant_id, 3)
    holding = asyncio.Event()

    async def work() -> str:
        async with held(queue.database, IngestSettings(), tenant_id, batch.batch_id) as mine:
            assert len(mine.jobs) == 3
            holding.set()
            await asyncio.sleep(600)
        return "ended in order"

    working = asyncio.create_task(work())
    await holding.wait()
    assert await queue.states(tenant_id) == {"running": 3}
    HOLDINGS.leave(0.05)
    HOLDINGS.leave(600)  # told twice, it does not take longer
    assert await asyncio.wait_for(working, 20) == "ended in order"
    async with queue.transaction(tenant_id) as session:
        rows = list(await session.scalars(select(Job).where(Job.tenant_id == tenant_id)))
    assert {(row.state, row.attempts, row.batch_id) for row in rows} == {("retrying", 0, None)}
    assert {(row.error or {})["code"] for row in rows} == {"worker_stopped"}, "what it wrote half-way is cleared first"


async def test_what_ends_in_time_is_left_alone(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    batch = await queue.give_out(tenant_id, 1)
    async with held(queue.database, IngestSettings(), tenant_id, batch.batch_id):
        HOLDINGS.leave(0.2)
    await asyncio.sleep(0.4)
    assert await queue.states(tenant_id) == {"running": 1}


async def test_a_worker_that_leaves_begins_no_further_document(queue: Queue) -> None:
    batch = Batch(queue.database, IngestSettings(), queue.tenants[0], queue.tenants[0])
    turn = _Turn(batch, time.monotonic())
    assert not turn.over()
    HOLDINGS.leave(600)
    assert turn.over()
