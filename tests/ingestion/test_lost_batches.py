"""What a worker or the broker lost comes back, once and in time; what is under way is left alone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from ingestion import job_queue, jobs
from ingestion.models import Job
from tenants.errors import DocumentRejected, Unavailable
from tests.ingestion.queue_rows import LEASE, RUN_OUT, Queue, Sent


async def test_what_a_lost_worker_held_is_given_out_again_alone(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    queue.start(in_flight=8, in_flight_per_tenant=8)
    lost = await queue.give_out(tenant_id, 3)
    assert len(await queue.claim(lost, lease=RUN_OUT)) == 3
    await queue.tick()
    again, *others = queue.sent[1:]
    assert len(others) == 2, "each of the three alone, so that a poisonous one takes no other with it"
    assert await queue.finish(lost) == 0, "the lost worker's batch is void"
    [job_id] = await queue.claim(again)
    async with queue.transaction(tenant_id) as session:
        held = await jobs.hold(session, tenant_id, lost.batch_id, [job_id])
        assert held == set(), "and what it still does is not its own"
        assert await jobs.hold(session, tenant_id, again.batch_id, [job_id]) == {job_id}
        await jobs.finish(session, tenant_id, {job_id: {}})
    for batch in others:
        assert await queue.finish(batch) == 1
    assert await queue.states(tenant_id) == {"done": 3}


async def test_who_is_in_the_middle_of_something_long_holds_up_no_dispatch(queue: Queue) -> None:
    busy, other, _ = queue.tenants
    batch = await queue.give_out(busy, 2)
    held, free = await queue.claim(batch, lease=RUN_OUT)
    await queue.add(other)
    async with queue.transaction(busy) as session:
        assert await jobs.hold(session, busy, batch.batch_id, [held]) == {held}
        await asyncio.wait_for(queue.tick(), 10)
        assert [sent.tenant_id for sent in queue.sent[1:]] == [other]
        both = await jobs.hold(session, busy, batch.batch_id, [held, free])
        assert both == {held, free}, "all of the batch is left alone"
        await jobs.finish(session, busy, {held: {}})
    await queue.tick()
    assert await queue.states(busy) == {"done": 1, "retrying": 1}, "and what is lost comes back"


async def test_a_beat_passes_over_what_is_held_and_renews_the_rest(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    batch = await queue.give_out(tenant_id, 2)
    held, free = await queue.claim(batch, lease=RUN_OUT)

    async def beat() -> bool:
        async with queue.transaction(tenant_id) as session:
            return await jobs.report(session, tenant_id, batch.batch_id, lease=LEASE, stage="writing", progress=0.5)

    async with queue.transaction(tenant_id) as session:
        await jobs.hold(session, tenant_id, batch.batch_id, [held])
        assert await asyncio.wait_for(beat(), 10)
        await jobs.hold(session, tenant_id, batch.batch_id, [held, free])
        assert await asyncio.wait_for(beat(), 10), "a batch is not lost because all of it is held"
        await jobs.finish(session, tenant_id, {held: {}})
    await queue.tick()
    assert await queue.states(tenant_id) == {"done": 1, "running": 1}, "the other's lease was renewed"
    async with queue.transaction(tenant_id) as session:
        await jobs.finish(session, tenant_id, {free: {}})
    assert not await beat()


async def test_a_broker_that_forgot_is_served_while_a_worker_begins_a_batch(queue: Queue) -> None:
    begun, forgotten, _ = queue.tenants
    batch = await queue.give_out(begun)
    await queue.give_out(forgotten)
    async with queue.transaction(begun) as session:
        await jobs.claim(session, begun, batch.batch_id, lease=LEASE, max_attempts=3)
        assert await asyncio.wait_for(queue.dispatcher.broker_forgot(), 10) == 1
    assert await queue.states(begun) == {"running": 1}


async def test_a_job_that_loses_its_worker_every_time_fails_with_the_cause(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    await queue.add(tenant_id)
    for _ in range(4):
        await queue.tick()
        await queue.claim(queue.sent[-1], lease=RUN_OUT)
    [job] = await queue.jobs(tenant_id)
    assert (job.state, job.attempts, job.error["code"]) == ("failed", 3, "worker_lost")


async def test_a_move_whose_worker_was_lost_too_often_is_cleared_away(queue: Queue) -> None:
    """In the transaction that fails it: its worker may die before it comes to that."""
    tenant_id, batch_id = queue.tenants[0], uuid4()
    job = jobs.new_job(tenant_id, "reembed", batch_id=batch_id)
    job.attempts = 3
    async with queue.transaction(tenant_id) as session:
        session.add(job)
    assert await queue.claim(Sent("ingestion.reembed", tenant_id, batch_id)) == []
    found = sorted((job.kind, job.state) for job in await queue.jobs(tenant_id))
    assert found == [("drop_generation", "queued"), ("reembed", "failed")]


async def test_what_a_broker_that_is_away_did_not_take_waits_no_longer_than_it(queue: Queue) -> None:
    await queue.add(queue.tenants[0], 3)
    queue.broker.away = True
    with pytest.raises(Unavailable):
        await queue.tick()
    queue.broker.away = False
    assert await queue.tick() == 1
    assert await queue.finish(queue.sent[0]) == 3


async def test_what_a_broker_forgot_is_given_out_again_and_what_runs_is_left_alone(queue: Queue) -> None:
    begun, forgotten, _ = queue.tenants
    runs, lost = await queue.give_out(begun, 2), await queue.give_out(forgotten, 3)
    running = await queue.claim(runs)
    assert await queue.dispatcher.broker_forgot() == 3
    await queue.tick()
    [again] = queue.sent[2:]
    assert again.tenant_id == forgotten
    assert await queue.finish(lost) == 0, "the message that was lost came after all"
    assert await queue.finish(again) == 3
    async with queue.transaction(begun) as session:
        assert await jobs.hold(session, begun, runs.batch_id, running) == set(running)


async def test_what_the_only_worker_held_is_given_out_when_it_starts_anew(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    await queue.claim(await queue.give_out(tenant_id, 2))
    async with queue.database.dispatcher() as session, session.begin():
        assert await job_queue.return_lost(session) == 0
        assert await job_queue.return_lost(session, all_of_it=True) == 2
    assert await queue.states(tenant_id) == {"retrying": 2}


async def test_a_batch_that_no_worker_begins_is_given_out_again(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    queue.start(lease_s=7200)
    await queue.give_out(tenant_id)
    for passed_s, given_out in ((3600, 0), (3600, 1)):
        async with queue.transaction(tenant_id) as session:
            await session.execute(update(Job).values(lease_until=Job.lease_until - timedelta(seconds=passed_s)))
        assert await queue.tick() == given_out
    assert await queue.finish(queue.sent[1]) == 1
    assert [job.attempts for job in await queue.jobs(tenant_id)] == [1], "it was no attempt"


async def test_a_message_that_comes_twice_finds_nothing_the_second_time(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    batch = await queue.give_out(tenant_id, 2)
    assert len(await queue.claim(batch)) == 2
    for _ in range(4):
        assert await queue.claim(batch) == []
    found = {(job.state, job.attempts, job.batch_id) for job in await queue.jobs(tenant_id)}
    assert found == {("running", 1, batch.batch_id)}


async def test_only_retryable_errors_are_tried_again(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    await queue.add(tenant_id, 2)
    async with queue.database.tenant(tenant_id) as session:
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
