"""Where waiting jobs stand, asked by many: one reading of the queue for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs
from ingestion.job_view import LOOK_AT_QUEUED_S, LOOK_EVERY_S, next_pause
from ingestion.models import Priority
from ingestion.queue_order import KEPT_S, MISSED_S, Order, QueueOrders
from ingestion.schemas import job_out
from tenants.db import Database


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def session(app_database: Database) -> AsyncIterator[AsyncSession]:
    """A session of a tenant of its own; nothing of it is committed."""
    async with app_database.tenant(uuid4()) as opened:
        yield opened
        await opened.rollback()


async def tenant_of(session: AsyncSession) -> UUID:
    return UUID(await session.scalar(text("SELECT current_setting('app.tenant_id')")))


async def waiting(session: AsyncSession, count: int) -> list[UUID]:
    tenant_id = await tenant_of(session)
    added = [jobs.new_job(tenant_id, "ingest") for _ in range(count)]
    session.add_all(added)
    await session.flush()
    return [job.id for job in added]


async def test_positions_follow_the_order_of_the_queue(session: AsyncSession) -> None:
    tenant_id = await tenant_of(session)
    bulk = jobs.new_job(tenant_id, "ingest", priority=Priority.BULK)
    later, first = jobs.new_job(tenant_id, "ingest"), jobs.new_job(tenant_id, "ingest")
    first.created_at -= timedelta(seconds=5)
    aside, given_out = jobs.new_job(tenant_id, "partition"), jobs.new_job(tenant_id, "ingest")
    given_out.batch_id = uuid4()
    session.add_all([bulk, later, first, aside, given_out])
    await session.flush()
    asked = [one.id for one in (bulk, later, first, aside, given_out)]
    found = await QueueOrders().positions(session, tenant_id, asked)
    assert found == {first.id: 1, later.id: 2, bulk.id: 3, aside.id: 1}


async def test_many_looks_read_the_queue_once(session: AsyncSession) -> None:
    tenant_id, clock, readings = await tenant_of(session), Clock(), []
    ids = await waiting(session, 30)
    orders = QueueOrders(clock=clock)

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        readings.append(statement)

    event.listen(session.get_bind(), "before_cursor_execute", hear)
    try:
        looks = await asyncio.gather(*(orders.positions(session, tenant_id, [job_id]) for job_id in ids))
        assert looks == [{job_id: place} for place, job_id in enumerate(ids, start=1)]
        assert len(readings) == 1
        clock.now += KEPT_S / 2
        assert await orders.positions(session, tenant_id, ids) == {job_id: n for n, job_id in enumerate(ids, start=1)}
        assert len(readings) == 1
        clock.now += KEPT_S
        await orders.positions(session, tenant_id, ids)
        assert len(readings) == 2, "in time it is read again"
    finally:
        event.remove(session.get_bind(), "before_cursor_execute", hear)


async def test_a_job_that_is_newer_than_what_was_read_has_its_place_soon(session: AsyncSession) -> None:
    tenant_id, clock = await tenant_of(session), Clock()
    orders = QueueOrders(clock=clock)
    await orders.positions(session, tenant_id, await waiting(session, 1))
    [newer] = await waiting(session, 1)
    assert await orders.positions(session, tenant_id, [newer]) == {}
    clock.now += MISSED_S
    assert await orders.positions(session, tenant_id, [newer]) == {newer: 2}


async def test_what_is_remembered_is_bounded_and_each_tenants_own(app_database: Database) -> None:
    clock, tenants = Clock(), [uuid4() for _ in range(3)]
    orders = QueueOrders(most_bytes=16 * 5, clock=clock)
    for tenant_id in tenants:
        async with app_database.tenant(tenant_id) as session:
            ids = await waiting(session, 2)
            assert await orders.positions(session, tenant_id, ids) == {ids[0]: 1, ids[1]: 2}
            await session.rollback()
    assert set(orders._orders) == set(tenants[1:]), "the bound leaves room for two"
    async with app_database.tenant(tenants[0]) as session:
        assert await orders.positions(session, tenants[0], ids) == {}, "not the ones of another tenant"
        clock.now += KEPT_S + 1
        await orders.positions(session, tenants[0], [uuid4()])
    assert set(orders._orders) == {tenants[0]}, "what is stale is not kept"


def test_the_end_of_one_id_and_the_beginning_of_the_next_are_no_job() -> None:
    one, two = UUID(int=0x01020304_05060708_090A0B0C_0D0E0F10), UUID(int=0x11121314_15161718_191A1B1C_1D1E1F20)
    order = Order((one.bytes + two.bytes,), 0.0)
    between = UUID(bytes=(one.bytes + two.bytes)[8:24])
    assert [order.position(job_id) for job_id in (one, two, between)] == [1, 2, None]


def test_a_job_that_waits_is_looked_at_ever_more_rarely() -> None:
    job = job_out(jobs.new_job(uuid4(), "ingest"))
    pauses = [LOOK_EVERY_S]
    for _ in range(10):
        pauses.append(next_pause(job, pauses[-1]))
    assert pauses == sorted(pauses)
    assert pauses[-1] == LOOK_AT_QUEUED_S == next_pause(job, LOOK_AT_QUEUED_S)
    assert next_pause(job.model_copy(update={"state": "running"}), LOOK_AT_QUEUED_S) == LOOK_EVERY_S
