"""The dispatcher on a real Postgres: who is next in each lane, and how much of it the broker holds."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from ingestion import job_queue, jobs
from ingestion.models import Lane, Priority
from ingestion.reembed_jobs import PAUSED
from tests.ingestion.queue_rows import Queue


async def test_a_large_import_does_not_hold_back_a_small_one(queue: Queue) -> None:
    large, small, _ = queue.tenants
    queue.start(batch_documents=10, in_flight=2, in_flight_per_tenant=2)
    await queue.add(large, 100)
    await queue.tick()
    await queue.add(small)
    seen = 0
    while (await queue.states(small))["done"] == 0:
        await queue.finish(queue.sent[seen])
        seen += 1
        await queue.tick()
    assert seen <= 4, "the small tenant waited for more than the batches in flight and one turn"


async def test_two_large_imports_share_by_bytes(queue: Queue) -> None:
    heavy, light, _ = queue.tenants
    queue.start(batch_documents=50, batch_bytes=100_000, in_flight=1, in_flight_per_tenant=1)
    await queue.add(heavy, 40, cost=50_000)
    await queue.add(light, 400, cost=5_000)
    cost = Counter[UUID]()
    for _ in range(20):
        await queue.tick()
        batch = queue.sent[-1]
        cost[batch.tenant_id] += await queue.finish(batch) * (50_000 if batch.tenant_id == heavy else 5_000)
    assert 0.7 <= cost[heavy] / cost[light] <= 1.4


async def test_the_broker_never_holds_more_than_the_bound(queue: Queue) -> None:
    queue.start(batch_documents=5, in_flight=4, in_flight_per_tenant=2)
    for tenant_id in queue.tenants:
        await queue.add(tenant_id, 100)
    for _ in range(5):
        await queue.tick()
    assert len(queue.sent) == 4
    assert max(Counter(batch.tenant_id for batch in queue.sent).values()) <= 2


async def test_upkeep_goes_before_an_import_and_alone(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    queue.start(in_flight=8, in_flight_per_tenant=8)
    await queue.add(tenant_id, 2)
    await queue.add(tenant_id, kind="delete")
    await queue.add(tenant_id, 2)
    await queue.add(tenant_id, kind="partition")
    await queue.tick()
    assert [batch.task for batch in queue.sent] == ["ingestion.purge", "ingestion.ingest", "ingestion.partition"]
    assert await queue.finish(queue.sent[1]) == 4


async def test_an_interactive_upload_goes_before_an_import_that_does_not_starve(queue: Queue) -> None:
    tenant_id, order = queue.tenants[0], []
    queue.start(batch_documents=1, in_flight=1, in_flight_per_tenant=1)
    await queue.add(tenant_id, 3, priority=Priority.BULK)
    await queue.add(tenant_id, 6)
    await queue.add(tenant_id, kind="purge")
    while await queue.tick():
        [job] = [job for job in await queue.jobs(tenant_id) if job.batch_id == queue.sent[-1].batch_id]
        order.append("purge" if job.kind == "purge" else job.priority)
        await queue.finish(queue.sent[-1])
    assert order == ["purge", 0, 0, 1, 0, 0, 0, 1, 0, 1]


async def test_slow_documents_and_upkeep_take_no_place_from_uploads(queue: Queue) -> None:
    one, two, three = queue.tenants
    queue.start(in_flight=1, slow_in_flight=2, background_in_flight=1)
    await queue.add(one, 5, kind="release")
    await queue.add(two, 5, lane=Lane.SLOW)
    await queue.add(three)
    await queue.tick()
    await queue.tick()
    assert Counter(batch.tenant_id for batch in queue.sent) == {one: 1, two: 2, three: 1}


async def test_a_long_queue_is_looked_at_by_its_index(queue: Queue) -> None:
    for tenant_id in queue.tenants:
        await queue.add(tenant_id, 300)
    await queue.add(queue.tenants[0], kind="partition")
    async with queue.database.dispatcher() as session:
        found = await job_queue.waiting(session)
        await session.execute(text("SET LOCAL enable_seqscan = off"))  # a few hundred jobs are quicker read in a row
        plan = "\n".join(await session.scalars(text(f"EXPLAIN {job_queue._WAITING.text}")))
    assert found == {Lane.MAIN: sorted(queue.tenants), Lane.BACKGROUND: [queue.tenants[0]]}
    assert "Seq Scan on jobs" not in plan
    assert "jobs_waiting" in plan


async def test_what_is_not_due_has_no_age(queue: Queue) -> None:
    now, (tenant_id, other, _) = datetime.now(UTC), queue.tenants
    paused, retried = jobs.new_job(tenant_id, "reembed"), jobs.new_job(tenant_id, "ingest")
    paused.created_at, paused.not_before = now - timedelta(days=3), PAUSED
    retried.created_at, retried.not_before = now - timedelta(hours=2), now - timedelta(hours=1)
    retried.state = "retrying"
    async with queue.transaction(tenant_id) as session:
        session.add_all([paused, retried])
    await queue.add(other)
    async with queue.database.dispatcher() as session:
        found = {(depth.lane, depth.state): depth for depth in await job_queue.depths(session)}
    assert (found[Lane.BACKGROUND, "queued"].jobs, found[Lane.BACKGROUND, "queued"].oldest_s) == (1, 0)
    assert 3600 <= found[Lane.MAIN, "retrying"].oldest_s < 7200
    assert 0 <= found[Lane.MAIN, "queued"].oldest_s < 600
