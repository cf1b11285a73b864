"""Slow documents: overtaken in their batch, counted in a lane of their own, handed back when that is full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select

from ingestion import job_queue, jobs
from ingestion.batch import Batch
from ingestion.models import Job, Lane
from ingestion.parse.limits import ParseLimits
from ingestion.parse.sandbox import ParserPool
from ingestion.parsing import Opened, Overdue, Rejected, parsed
from ingestion.runtime import Kept, Runtime, SlowPlaces
from ingestion.settings import IngestSettings
from shards.models import DocumentVersion
from tenants.db import Database
from tenants.errors import NotFound

_SLEEPY = (str(Path(__file__).parent / "parse" / "hostile_nursery.py"),)


@dataclass
class Originals:
    """An object store with the contents it was given."""

    contents: dict[str, bytes]

    async def get(self, key: str) -> bytes:
        if key not in self.contents:
            raise NotFound("gone", code="original_missing")
        return self.contents[key]


@dataclass
class Worker:
    """What `parsed` uses of a worker's runtime."""

    objects: Originals
    parsers: ParserPool
    settings: IngestSettings
    slow: SlowPlaces = field(default_factory=lambda: SlowPlaces(1))


@pytest.fixture
async def parsers() -> AsyncIterator[ParserPool]:
    pool = ParserPool(ParseLimits(wall_s=30), command=_SLEEPY)
    yield pool
    await pool.aclose()


def versions_of(contents: dict[str, tuple[str, bytes]]) -> dict[UUID, DocumentVersion]:
    return {uuid4(): DocumentVersion(object_key=key, format=kind, filename=key) for key, (kind, _) in contents.items()}


async def run(worker: Worker, batch: Batch, versions: dict[UUID, DocumentVersion]) -> list[str]:
    said, kept = [], Kept(worker.slow)
    async with aclosing(parsed(cast(Runtime, worker), batch, versions, kept, lambda: False)) as found:
        async for one in found:
            name = versions[one.job_id].object_key
            if isinstance(one, Opened):
                said.append(f"{name} {one.document.text}")
            elif isinstance(one, Rejected):
                said.append(f"{name} {one.error.code}")
            elif isinstance(one, Overdue):
                said.append(f"{name} {'kept' if one.kept else 'handed back'}")
    kept.leave(*kept.jobs)
    return said


def batch_of(lane: Lane) -> Batch:
    job = jobs.new_job(uuid4(), "ingest")
    job.lane = lane
    return Batch(cast(Any, None), IngestSettings(), job.tenant_id, uuid4(), [job])


async def test_one_slow_document_is_kept_and_the_next_handed_back(parsers: ParserPool) -> None:
    contents = {"a": ("txt", b"x"), "b": ("sleep", b"4"), "c": ("sleep", b"4"), "d": ("txt", b"x"), "e": ("txt", b"")}
    stored = {key: content for key, (_, content) in contents.items() if key != "e"}
    worker = Worker(Originals(stored), parsers, IngestSettings(patience_s=0.8))
    said = await run(worker, batch_of(Lane.MAIN), versions_of(contents))
    assert said[0] == "e original_missing"
    assert {"a x", "b kept", "c handed back", "d x"} == set(said[1:-1])
    assert said[-1] == "b slept"


async def test_in_the_slow_lane_nothing_is_overdue(parsers: ParserPool) -> None:
    worker = Worker(Originals({"b": b"1.5"}), parsers, IngestSettings(patience_s=0.3))
    assert await run(worker, batch_of(Lane.SLOW), versions_of({"b": ("sleep", b"1.5")})) == ["b slept"]


@pytest.fixture
async def running(worker_database: Database) -> AsyncIterator[tuple[Database, UUID, UUID, list[Job]]]:
    """A batch of two documents in work."""
    tenant_id = uuid4()
    async with worker_database.tenant(tenant_id) as session, session.begin():
        session.add_all([jobs.new_job(tenant_id, "ingest") for _ in range(2)])
    lease = timedelta(seconds=30)
    async with worker_database.dispatcher() as session, session.begin():
        given = await job_queue.give_out(session, tenant_id, Lane.MAIN, turn=0, size=9, max_cost=9, lease=lease)
    assert given is not None
    async with worker_database.tenant(tenant_id) as session, session.begin():
        claimed = await jobs.claim(session, tenant_id, given.batch_id, lease=lease, max_attempts=3)
    yield worker_database, tenant_id, given.batch_id, claimed
    async with worker_database.tenant(tenant_id) as session, session.begin():
        await session.execute(delete(Job).where(Job.tenant_id == tenant_id))


async def flying(database: Database, tenant_id: UUID) -> set[Lane]:
    async with database.dispatcher() as session:
        found = await job_queue.flying(session)
    return {lane for lane in Lane if tenant_id in found.of(lane)}


async def test_a_batch_of_which_only_the_slow_is_left_frees_its_place(
    running: tuple[Database, UUID, UUID, list[Job]],
) -> None:
    database, tenant_id, batch_id, [quick, slow] = running
    async with database.tenant(tenant_id) as session, session.begin():
        await jobs.to_slow_lane(session, tenant_id, batch_id, slow.id, kept=True)
    assert await flying(database, tenant_id) == {Lane.MAIN, Lane.SLOW}
    async with database.tenant(tenant_id) as session, session.begin():
        await jobs.finish(session, tenant_id, {quick.id: {}})
    assert await flying(database, tenant_id) == {Lane.SLOW}


async def test_what_is_handed_back_waits_in_the_slow_lane_and_the_attempt_does_not_count(
    running: tuple[Database, UUID, UUID, list[Job]],
) -> None:
    database, tenant_id, batch_id, [_, slow] = running
    async with database.tenant(tenant_id) as session, session.begin():
        await jobs.to_slow_lane(session, tenant_id, uuid4(), slow.id, kept=False)  # another's batch: nothing happens
        await jobs.to_slow_lane(session, tenant_id, batch_id, slow.id, kept=False)
        job = await session.scalar(select(Job).where(Job.id == slow.id).execution_options(populate_existing=True))
    assert job is not None
    assert (job.state, job.lane, job.attempts, job.batch_id) == ("queued", Lane.SLOW, 0, None)


async def test_what_a_batch_does_not_begin_waits_for_the_next_turn_and_the_attempt_does_not_count(
    running: tuple[Database, UUID, UUID, list[Job]],
) -> None:
    database, tenant_id, batch_id, [begun, left] = running
    async with database.tenant(tenant_id) as session, session.begin():
        await jobs.give_back(session, tenant_id, uuid4(), [begun.id])  # another's batch: nothing happens
        await jobs.give_back(session, tenant_id, batch_id, [left.id])
        found = await session.scalars(
            select(Job).where(Job.tenant_id == tenant_id).execution_options(populate_existing=True)
        )
        now = {job.id: (job.state, job.lane, job.attempts, job.batch_id) for job in found}
    assert now[begun.id] == ("running", Lane.MAIN, 1, batch_id)
    assert now[left.id] == ("queued", Lane.MAIN, 0, None)
