"""Runs go on beside the tasks of a worker: bounded, never silent about a failure, given back when the worker stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from ingestion import jobs, source_tasks
from ingestion.models import Job
from ingestion.runtime import Runtime
from ingestion.settings import IngestSettings
from ingestion.sources.background import Background
from tests.ingestion.runtimes import part_of_runtime

if TYPE_CHECKING:
    from ingestion.batch import Batch
    from tenants.db import Database

A, B = uuid4(), uuid4()


async def test_so_many_run_at_a_time_and_so_many_of_one_tenant() -> None:
    background = Background(at_once=3, per_tenant=2)
    gate, running, most = asyncio.Event(), [], []

    async def work(tenant: UUID) -> None:
        async with background.turn(tenant):
            running.append(tenant)
            most.append((len(running), running.count(A)))
            await gate.wait()
            running.remove(tenant)

    async def unexpected(error: BaseException) -> None:
        raise error

    for tenant in (A, A, A, A, B, B):
        background.start(work(tenant), unexpected)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (len(running), running.count(A)) == (3, 2), "the third is another tenant's"
    gate.set()
    while len(most) < 6 or running:
        await asyncio.sleep(0)
    assert max(count for count, _ in most) == 3
    assert max(of_a for _, of_a in most) == 2


async def test_what_nobody_expected_is_told() -> None:
    background, told = Background(1, 1), asyncio.Event()

    async def work() -> None:
        raise ZeroDivisionError

    async def on_failure(error: BaseException) -> None:
        assert isinstance(error, ZeroDivisionError)
        told.set()

    background.start(work(), on_failure)
    async with asyncio.timeout(5):
        await told.wait()


@pytest.fixture
async def held_job(worker_database: Database) -> tuple[UUID, UUID, UUID]:
    """A tenant, a batch, and a job that was given out in it."""
    tenant_id, batch_id = uuid4(), uuid4()
    job = jobs.new_job(tenant_id, "sync", payload={"source_id": str(uuid4()), "run_id": str(uuid4())})
    async with worker_database.tenant(tenant_id) as session, session.begin():
        session.add(job)
        await session.flush()
        await session.execute(update(Job).values(batch_id=batch_id))
    return tenant_id, batch_id, job.id


def runtime_on(database: Database) -> Runtime:
    """What these tests need of a worker; the rest is never touched."""
    return part_of_runtime(database=database, settings=IngestSettings(), background=Background(1, 1))


async def test_a_worker_that_stops_gives_its_runs_back(
    worker_database: Database, held_job: tuple[UUID, UUID, UUID]
) -> None:
    tenant_id, batch_id, job_id = held_job
    runtime, begun = runtime_on(worker_database), asyncio.Event()

    async def work(_runtime: Runtime, _batch: Batch) -> None:
        begun.set()
        await asyncio.Event().wait()

    await source_tasks._begin(runtime, tenant_id, batch_id, work)
    await begun.wait()
    await runtime.background.aclose()
    async with worker_database.tenant(tenant_id) as session:
        job = await jobs.get_job(session, tenant_id, job_id)
    assert (job.state, job.attempts, job.batch_id) == ("retrying", 0, None), "to be stopped is no attempt"


async def test_a_run_that_fails_unexpectedly_is_tried_again(
    worker_database: Database, held_job: tuple[UUID, UUID, UUID]
) -> None:
    tenant_id, batch_id, job_id = held_job
    runtime = runtime_on(worker_database)

    async def work(_runtime: Runtime, _batch: Batch) -> None:
        raise ZeroDivisionError

    await source_tasks._begin(runtime, tenant_id, batch_id, work)
    for _ in range(100):
        async with worker_database.tenant(tenant_id) as session:
            job = await jobs.get_job(session, tenant_id, job_id)
        if job.state != "running" and job.batch_id is None:
            break
        await asyncio.sleep(0.05)
    assert (job.state, job.attempts) == ("retrying", 1)
    assert job.error is not None
    assert "ZeroDivisionError" in job.error["detail"]
