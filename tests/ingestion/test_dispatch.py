"""The dispatcher on a real Postgres: fair, bounded, and nothing is lost when the broker or a worker is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import job_queue, jobs
from ingestion.dispatch import Dispatcher
from ingestion.models import Job, Lane, Priority
from ingestion.reembed_jobs import PAUSED
from ingestion.settings import IngestSettings
from tenants.db import Database
from tenants.errors import DocumentRejected, Unavailable
from tenants.models import Tenant

LEASE = timedelta(seconds=30)


class Broker:
    """Remembers what was sent; while it is `away`, nothing can be."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, UUID, UUID]] = []
        self.away = False

    def __call__(self, task: str, tenant_id: UUID, batch_id: UUID) -> None:
        if self.away:
            raise Unavailable("The broker does not answer.", code="broker_unavailable")
        self.sent.append((task, tenant_id, batch_id))


@pytest.fixture
async def tenants(worker_database: Database) -> AsyncIterator[list[UUID]]:
    """Three tenants, and no job of any other test."""
    ids = [uuid4() for _ in range(3)]
    async with worker_database.dispatcher() as session:
        owners = set(await session.scalars(select(Job.tenant_id)))
    for tenant_id in owners:
        await clear(worker_database, tenant_id)
    async with worker_database.admin() as session:
        for i in ids:
            session.add(Tenant(id=i, slug=str(i), name="n", plan="p", state="active", placement="auto", settings={}))
        await session.commit()
    yield ids
    for tenant_id in ids:
        await clear(worker_database, tenant_id)


async def clear(database: Database, tenant_id: UUID) -> None:
    async with database.tenant(tenant_id) as session:
        await session.execute(delete(Job).where(Job.tenant_id == tenant_id))
        await session.commit()


async def add(
    database: Database,
    tenant_id: UUID,
    count: int,
    *,
    kind: str = "ingest",
    cost: int = 1000,
    priority: Priority = Priority.INTERACTIVE,
    lane: Lane | None = None,
) -> None:
    added = [jobs.new_job(tenant_id, kind, cost=cost, priority=priority) for _ in range(count)]
    for job in added:
        job.lane = job.lane if lane is None else lane
    async with database.tenant(tenant_id) as session:
        session.add_all(added)
        await session.commit()


async def finish(database: Database, tenant_id: UUID, batch_id: UUID) -> int:
    """Do what a worker does."""
    async with database.tenant(tenant_id) as session:
        started = await jobs.claim(session, tenant_id, batch_id, lease=LEASE, max_attempts=3)
        await jobs.finish(session, tenant_id, {job.id: {} for job in started})
        await session.commit()
    return len(started)


async def states(database: Database, tenant_id: UUID) -> Counter[str]:
    async with database.tenant(tenant_id) as session:
        return Counter(await session.scalars(select(Job.state).where(Job.tenant_id == tenant_id)))


async def test_a_large_import_does_not_hold_back_a_small_one(worker_database: Database, tenants: list[UUID]) -> None:
    large, small, _ = tenants
    await add(worker_database, large, 400)
    broker = Broker()
    settings = IngestSettings(batch_documents=10, in_flight=2, in_flight_per_tenant=2)
    dispatcher = Dispatcher(worker_database, settings, broker)
    await dispatcher.tick()
    await add(worker_database, small, 1)
    seen = 0
    while (await states(worker_database, small))["done"] == 0:
        _, tenant_id, batch_id = broker.sent[seen]
        seen += 1
        await finish(worker_database, tenant_id, batch_id)
        await dispatcher.tick()
    assert seen <= 4, "the small tenant waited for more than the batches in flight and one turn"


async def test_two_large_imports_share_by_bytes(worker_database: Database, tenants: list[UUID]) -> None:
    heavy, light, _ = tenants
    await add(worker_database, heavy, 60, cost=50_000)
    await add(worker_database, light, 600, cost=5_000)
    broker, cost = Broker(), Counter[UUID]()
    settings = IngestSettings(batch_documents=50, batch_bytes=100_000, in_flight=1, in_flight_per_tenant=1)
    dispatcher = Dispatcher(worker_database, settings, broker)
    for _ in range(40):
        await dispatcher.tick()
        _, tenant_id, batch_id = broker.sent[-1]
        done = await finish(worker_database, tenant_id, batch_id)
        cost[tenant_id] += done * (50_000 if tenant_id == heavy else 5_000)
    assert 0.7 <= cost[heavy] / cost[light] <= 1.4


async def test_the_broker_never_holds_more_than_the_bound(worker_database: Database, tenants: list[UUID]) -> None:
    for tenant_id in tenants:
        await add(worker_database, tenant_id, 100)
    broker = Broker()
    settings = IngestSettings(batch_documents=5, in_flight=4, in_flight_per_tenant=2)
    dispatcher = Dispatcher(worker_database, settings, broker)
    for _ in range(5):
        await dispatcher.tick()
    assert len(broker.sent) == 4
    assert max(Counter(tenant_id for _, tenant_id, _ in broker.sent).values()) <= 2


async def test_what_a_lost_worker_held_is_given_out_again_alone(worker_database: Database, tenants: list[UUID]) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 3)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(in_flight=8, in_flight_per_tenant=8), broker)
    await dispatcher.tick()
    (_, _, first) = broker.sent[0]
    async with worker_database.tenant(tenant_id) as session:
        assert len(await jobs.claim(session, tenant_id, first, lease=LEASE, max_attempts=3)) == 3
        await session.execute(update(Job).values(lease_until=datetime.now(UTC) - LEASE))
        await session.commit()
    await dispatcher.tick()
    assert len(broker.sent) == 4, "each of the three alone, so that a poisonous one takes no other with it"
    assert await finish(worker_database, tenant_id, first) == 0, "the lost worker's batch is void"
    async with worker_database.tenant(tenant_id) as session, session.begin():
        [again, *_] = [batch_id for _, _, batch_id in broker.sent[1:]]
        [job] = await jobs.claim(session, tenant_id, again, lease=LEASE, max_attempts=3)
        assert await jobs.hold(session, tenant_id, first, [job.id]) == set(), "and what it still does is not its own"
        assert await jobs.hold(session, tenant_id, again, [job.id]) == {job.id}
        await jobs.finish(session, tenant_id, {job.id: {}})
    for _, _, batch_id in broker.sent[2:]:
        assert await finish(worker_database, tenant_id, batch_id) == 1
    assert await states(worker_database, tenant_id) == {"done": 3}


async def claimed(database: Database, tenant_id: UUID, batch_id: UUID) -> list[UUID]:
    """Begin a batch and let its lease run out; return its jobs, oldest first."""
    async with database.tenant(tenant_id) as session, session.begin():
        begun = await jobs.claim(session, tenant_id, batch_id, lease=-LEASE, max_attempts=3)
    return [job.id for job in begun]


async def test_who_is_in_the_middle_of_something_long_holds_up_no_dispatch(
    worker_database: Database, tenants: list[UUID]
) -> None:
    busy, other, _ = tenants
    await add(worker_database, busy, 2)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(), broker)
    await dispatcher.tick()
    [(_, _, batch_id)] = broker.sent
    held, free = await claimed(worker_database, busy, batch_id)
    await add(worker_database, other, 1)
    async with worker_database.tenant(busy) as session:
        assert await jobs.hold(session, busy, batch_id, [held]) == {held}
        await asyncio.wait_for(dispatcher.tick(), 10)
        assert [tenant_id for _, tenant_id, _ in broker.sent[1:]] == [other]
        assert await jobs.hold(session, busy, batch_id, [held, free]) == {held, free}, "all of the batch is left alone"
        await jobs.finish(session, busy, {held: {}})
        await session.commit()
    await dispatcher.tick()
    assert await states(worker_database, busy) == {"done": 1, "retrying": 1}, "and what is lost comes back"


async def test_a_beat_passes_over_what_is_held_and_renews_the_rest(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 2)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(), broker)
    await dispatcher.tick()
    [(_, _, batch_id)] = broker.sent
    held, free = await claimed(worker_database, tenant_id, batch_id)

    async def beat() -> bool:
        async with worker_database.tenant(tenant_id) as session, session.begin():
            return await jobs.report(session, tenant_id, batch_id, lease=LEASE, stage="writing", progress=0.5)

    async with worker_database.tenant(tenant_id) as session:
        await jobs.hold(session, tenant_id, batch_id, [held])
        assert await asyncio.wait_for(beat(), 10)
        await jobs.hold(session, tenant_id, batch_id, [held, free])
        assert await asyncio.wait_for(beat(), 10), "a batch is not lost because all of it is held"
        await jobs.finish(session, tenant_id, {held: {}})
        await session.commit()
    await dispatcher.tick()
    assert await states(worker_database, tenant_id) == {"done": 1, "running": 1}, "the other's lease was renewed"
    async with worker_database.tenant(tenant_id) as session, session.begin():
        await jobs.finish(session, tenant_id, {free: {}})
    assert not await beat()


async def test_a_broker_that_forgot_is_served_while_a_worker_begins_a_batch(
    worker_database: Database, tenants: list[UUID]
) -> None:
    begun, forgotten, _ = tenants
    for tenant_id in (begun, forgotten):
        await add(worker_database, tenant_id, 1)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(), broker)
    await dispatcher.tick()
    batches = {tenant_id: batch_id for _, tenant_id, batch_id in broker.sent}
    async with worker_database.tenant(begun) as session:
        await jobs.claim(session, begun, batches[begun], lease=LEASE, max_attempts=3)
        assert await asyncio.wait_for(dispatcher.broker_forgot(), 10) == 1
        await session.commit()
    assert await states(worker_database, begun) == {"running": 1}


async def test_a_job_that_loses_its_worker_every_time_fails_with_the_cause(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 1)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(), broker)
    for _ in range(4):
        await dispatcher.tick()
        async with worker_database.tenant(tenant_id) as session:
            await jobs.claim(session, tenant_id, broker.sent[-1][2], lease=LEASE, max_attempts=3)
            await session.execute(
                update(Job).where(Job.state == "running").values(lease_until=datetime.now(UTC) - LEASE)
            )
            await session.commit()
    async with worker_database.tenant(tenant_id) as session:
        job = await session.scalar(select(Job).where(Job.tenant_id == tenant_id))
    assert (job.state, job.attempts, job.error["code"]) == ("failed", 3, "worker_lost")


async def test_what_a_broker_that_is_away_did_not_take_waits_no_longer_than_it(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 3)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(), broker)
    broker.away = True
    with pytest.raises(Unavailable):
        await dispatcher.tick()
    broker.away = False
    assert await dispatcher.tick() == 1
    assert await finish(worker_database, tenant_id, broker.sent[0][2]) == 3


async def test_what_a_broker_forgot_is_given_out_again_and_what_runs_is_left_alone(
    worker_database: Database, tenants: list[UUID]
) -> None:
    begun, forgotten, _ = tenants
    await add(worker_database, begun, 2)
    await add(worker_database, forgotten, 3)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(), broker)
    await dispatcher.tick()
    batches = {tenant_id: batch_id for _, tenant_id, batch_id in broker.sent}
    async with worker_database.tenant(begun) as session, session.begin():
        await jobs.claim(session, begun, batches[begun], lease=LEASE, max_attempts=3)
    assert await dispatcher.broker_forgot() == 3
    await dispatcher.tick()
    assert [tenant_id for _, tenant_id, _ in broker.sent[2:]] == [forgotten]
    assert await finish(worker_database, forgotten, batches[forgotten]) == 0, "the message that was lost came after all"
    assert await finish(worker_database, forgotten, broker.sent[2][2]) == 3
    async with worker_database.tenant(begun) as session:
        assert await jobs.hold(session, begun, batches[begun], await _ids(session, begun))


async def test_what_the_only_worker_held_is_given_out_when_it_starts_anew(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 2)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(), broker)
    await dispatcher.tick()
    async with worker_database.tenant(tenant_id) as session, session.begin():
        await jobs.claim(session, tenant_id, broker.sent[0][2], lease=LEASE, max_attempts=3)
    async with worker_database.dispatcher() as session, session.begin():
        assert await job_queue.return_lost(session) == 0
        assert await job_queue.return_lost(session, all_of_it=True) == 2
    assert await states(worker_database, tenant_id) == {"retrying": 2}


async def test_a_batch_that_no_worker_begins_is_given_out_again(worker_database: Database, tenants: list[UUID]) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 1)
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(lease_s=1.1), broker)
    for _ in range(100):
        await dispatcher.tick()
        if len(broker.sent) > 1:
            break
        await asyncio.sleep(0.1)
    assert await finish(worker_database, tenant_id, broker.sent[1][2]) == 1
    async with worker_database.tenant(tenant_id) as session:
        assert await session.scalar(select(Job.attempts).where(Job.tenant_id == tenant_id)) == 1, "it was no attempt"


async def _ids(session: AsyncSession, tenant_id: UUID) -> list[UUID]:
    return list(await session.scalars(select(Job.id).where(Job.tenant_id == tenant_id)))


async def test_a_message_that_comes_twice_finds_nothing_the_second_time(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 2)
    broker = Broker()
    await Dispatcher(worker_database, IngestSettings(), broker).tick()
    batch_id = broker.sent[0][2]
    async with worker_database.tenant(tenant_id) as session, session.begin():
        assert len(await jobs.claim(session, tenant_id, batch_id, lease=LEASE, max_attempts=3)) == 2
    for _ in range(4):
        async with worker_database.tenant(tenant_id) as session, session.begin():
            assert await jobs.claim(session, tenant_id, batch_id, lease=LEASE, max_attempts=3) == []
    async with worker_database.tenant(tenant_id) as session:
        found = list(await session.scalars(select(Job).where(Job.tenant_id == tenant_id)))
    assert {(job.state, job.attempts, job.batch_id) for job in found} == {("running", 1, batch_id)}


async def test_a_suspended_tenants_jobs_wait(worker_database: Database, tenants: list[UUID]) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 2)
    async with worker_database.admin() as session:
        await session.execute(update(Tenant).where(Tenant.id == tenant_id).values(state="suspended"))
        await session.commit()
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(), broker)
    assert await dispatcher.tick() == 0
    async with worker_database.admin() as session:
        await session.execute(update(Tenant).where(Tenant.id == tenant_id).values(state="active"))
        await session.commit()
    assert await dispatcher.tick() == 1


async def become(database: Database, tenant_id: UUID, state: str) -> None:
    async with database.admin() as session, session.begin():
        await session.execute(update(Tenant).where(Tenant.id == tenant_id).values(state=state))


async def given_out(database: Database, broker: Broker) -> list[str]:
    """Dispatch until nothing is given out, finishing each batch; return the kinds of work in order."""
    dispatcher = Dispatcher(database, IngestSettings(in_flight=1, background_in_flight=1), broker)
    while await dispatcher.tick():
        for _, tenant_id, batch_id in broker.sent[-2:]:
            await finish(database, tenant_id, batch_id)
    return [task.removeprefix("ingestion.") for task, _, _ in broker.sent]


async def test_of_a_tenant_that_is_being_deleted_the_erasure_comes_first_and_nothing_else_goes_on(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    for kind in ("ingest", "delete", "purge", "erase_tenant", "sync", "reembed", "fsck"):
        await add(worker_database, tenant_id, 2 if kind == "delete" else 1, kind=kind)
    await become(worker_database, tenant_id, "deleting")
    assert sorted(await given_out(worker_database, Broker())) == ["erase_tenant", "fsck"]


async def test_of_a_suspended_tenant_what_was_deleted_still_leaves_the_stores(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    for kind in ("ingest", "delete", "sync", "purge", "reembed", "partition"):
        await add(worker_database, tenant_id, 1, kind=kind)
    await become(worker_database, tenant_id, "suspended")
    assert await given_out(worker_database, Broker()) == ["purge", "purge"]
    assert await states(worker_database, tenant_id) == {"done": 2, "queued": 4}


async def test_the_erasure_of_a_suspended_tenant_comes_before_its_removals(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 3, kind="delete")
    await add(worker_database, tenant_id, 1, kind="erase_tenant")
    await become(worker_database, tenant_id, "suspended")
    broker = Broker()
    await Dispatcher(worker_database, IngestSettings(in_flight=1), broker).tick()
    assert [task for task, _, _ in broker.sent] == ["ingestion.erase_tenant"]


async def test_only_retryable_errors_are_tried_again(worker_database: Database, tenants: list[UUID]) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 2)
    async with worker_database.tenant(tenant_id) as session:
        one, two = await session.scalars(select(Job).where(Job.tenant_id == tenant_id))
        await session.execute(update(Job).where(Job.tenant_id == tenant_id).values(attempts=1))
        errors = {one.id: Unavailable("away"), two.id: DocumentRejected("empty", code="document_empty")}
        assert await jobs.fail(session, tenant_id, errors, max_attempts=3) == {two.id}
        for job in (one, two):
            await session.refresh(job)
        assert (one.state, one.finished_at, one.error["code"]) == ("retrying", None, "unavailable")
        assert timedelta(0) < one.not_before - datetime.now(UTC) < timedelta(seconds=2)
        assert (two.state, two.error["code"]) == ("failed", "document_empty")
        await session.execute(update(Job).where(Job.id == one.id).values(attempts=3))
        assert await jobs.fail(session, tenant_id, {one.id: Unavailable("away")}, max_attempts=3) == {one.id}
        await session.rollback()


async def test_upkeep_goes_before_an_import_and_alone(worker_database: Database, tenants: list[UUID]) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 2)
    await add(worker_database, tenant_id, 1, kind="delete")
    await add(worker_database, tenant_id, 2)
    await add(worker_database, tenant_id, 1, kind="partition")
    broker = Broker()
    dispatcher = Dispatcher(worker_database, IngestSettings(in_flight=8, in_flight_per_tenant=8), broker)
    await dispatcher.tick()
    assert [task for task, _, _ in broker.sent] == ["ingestion.purge", "ingestion.ingest", "ingestion.partition"]
    assert await finish(worker_database, tenant_id, broker.sent[1][2]) == 4


async def test_an_interactive_upload_goes_before_an_import_that_does_not_starve(
    worker_database: Database, tenants: list[UUID]
) -> None:
    tenant_id = tenants[0]
    await add(worker_database, tenant_id, 3, priority=Priority.BULK)
    await add(worker_database, tenant_id, 6)
    await add(worker_database, tenant_id, 1, kind="purge")
    broker, order = Broker(), []
    settings = IngestSettings(batch_documents=1, in_flight=1, in_flight_per_tenant=1)
    dispatcher = Dispatcher(worker_database, settings, broker)
    while await dispatcher.tick():
        async with worker_database.tenant(tenant_id) as session:
            job = await session.scalar(select(Job).where(Job.batch_id == broker.sent[-1][2]))
        order.append("purge" if job.kind == "purge" else job.priority)
        await finish(worker_database, tenant_id, broker.sent[-1][2])
    assert order == ["purge", 0, 0, 1, 0, 0, 0, 1, 0, 1]


async def test_slow_documents_and_upkeep_take_no_place_from_uploads(
    worker_database: Database, tenants: list[UUID]
) -> None:
    one, two, three = tenants
    await add(worker_database, one, 5, kind="release")
    await add(worker_database, two, 5, lane=Lane.SLOW)
    await add(worker_database, three, 1)
    broker = Broker()
    settings = IngestSettings(in_flight=1, slow_in_flight=2, background_in_flight=1)
    dispatcher = Dispatcher(worker_database, settings, broker)
    await dispatcher.tick()
    await dispatcher.tick()
    assert Counter(tenant_id for _, tenant_id, _ in broker.sent) == {one: 1, two: 2, three: 1}


async def test_a_long_queue_is_looked_at_by_its_index(worker_database: Database, tenants: list[UUID]) -> None:
    for tenant_id in tenants:
        await add(worker_database, tenant_id, 300)
    await add(worker_database, tenants[0], 1, kind="partition")
    async with worker_database.dispatcher() as session:
        found = await job_queue.waiting(session)
        plan = "\n".join(await session.scalars(text(f"EXPLAIN {job_queue._WAITING.text}")))
    assert found == {Lane.MAIN: sorted(tenants), Lane.BACKGROUND: [tenants[0]]}
    assert "Seq Scan on jobs" not in plan
    assert "jobs_waiting" in plan


async def test_what_is_not_due_has_no_age(worker_database: Database, tenants: list[UUID]) -> None:
    now = datetime.now(UTC)
    paused, retried = jobs.new_job(tenants[0], "reembed"), jobs.new_job(tenants[0], "ingest")
    paused.created_at, paused.not_before = now - timedelta(days=3), PAUSED
    retried.created_at, retried.not_before, retried.state = (
        now - timedelta(hours=2),
        now - timedelta(hours=1),
        "retrying",
    )
    async with worker_database.tenant(tenants[0]) as session:
        session.add_all([paused, retried])
        await session.commit()
    await add(worker_database, tenants[1], 1)
    async with worker_database.dispatcher() as session:
        found = {(depth.lane, depth.state): depth for depth in await job_queue.depths(session)}
    assert (found[Lane.BACKGROUND, "queued"].jobs, found[Lane.BACKGROUND, "queued"].oldest_s) == (1, 0)
    assert 3600 <= found[Lane.MAIN, "retrying"].oldest_s < 7200
    assert 0 <= found[Lane.MAIN, "queued"].oldest_s < 600


async def test_a_move_whose_worker_was_lost_too_often_is_cleared_away(
    worker_database: Database, tenants: list[UUID]
) -> None:
    """In the transaction that fails it: its worker may die before it comes to that."""
    tenant_id, batch_id = tenants[0], uuid4()
    async with worker_database.tenant(tenant_id) as session:
        job = jobs.new_job(tenant_id, "reembed", batch_id=batch_id)
        job.attempts = 3
        session.add(job)
        await session.commit()
        assert await jobs.claim(session, tenant_id, batch_id, lease=LEASE, max_attempts=3) == []
        await session.commit()
        rows = await session.execute(select(Job.kind, Job.state).where(Job.tenant_id == tenant_id))
        assert sorted(tuple(row) for row in rows) == [("drop_generation", "queued"), ("reembed", "failed")]
