"""Many jobs that ended long ago: nothing that is asked often reads them, and in time they are forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import job_control, jobs, reembed_jobs, regular
from ingestion.fsck import figures
from ingestion.models import Job
from ingestion.sources import runs
from ingestion.sources.models import Source
from tenants.db import Database

if TYPE_CHECKING:
    from tests.conftest import DatabaseUrls

DONE, LISTED = 20_000, 200
"""Jobs that ended well, and how many rows may be read for an answer."""
_FILL = text(
    "INSERT INTO jobs (tenant_id, id, kind, state, created_at, finished_at, error)"
    " SELECT CAST(:tenant AS uuid), gen_random_uuid(), k, s, at, CASE WHEN s IN ('done', 'failed', 'cancelled') THEN at"
    " END, CASE s WHEN 'failed' THEN CAST('{\"code\": \"c\"}' AS jsonb) END"
    " FROM (SELECT CAST(:kind AS text) AS k, CAST(:state AS text) AS s, now() - n * interval '1 second' -"
    " CAST(:age AS interval) AS at FROM generate_series(1, :count) n) made"
)


async def add(database: Database, tenant: UUID, count: int, kind: str, state: str, age: str = "1 hour") -> None:
    async with database.tenant(tenant) as session, session.begin():
        values = {"tenant": tenant, "kind": kind, "state": state, "count": count, "age": age}
        await session.execute(_FILL, values)


@pytest.fixture(scope="module")
async def owner(worker_database: Database, own_database: DatabaseUrls) -> AsyncIterator[UUID]:
    """A tenant with a long past and few jobs that matter."""
    made = uuid4()
    await add(worker_database, made, DONE, "ingest", "done")
    for kind in ("partition", "delete", "purge", "release", "preview", "drop_generation"):
        await add(worker_database, made, DONE // 10, kind, "done")
    for kind, state in (("ingest", "failed"), ("ingest", "cancelled"), ("ingest", "queued"), ("delete", "retrying")):
        await add(worker_database, made, 3, kind, state, age="2 hours")
    await add(worker_database, made, 1, "partition", "failed")
    await add(worker_database, made, 1, "reembed", "queued")
    engine = create_engine(own_database.superuser, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    yield made
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM jobs WHERE tenant_id = :tenant"), {"tenant": made})
    engine.dispose()


@contextmanager
def heard(session: AsyncSession) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that a session sends, with their values."""
    said: list[tuple[str, Any]] = []
    connections = session.get_bind()

    def hear(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if "FROM jobs" in statement:
            said.append((statement, values))

    event.listen(connections, "before_cursor_execute", hear)
    try:
        yield said
    finally:
        event.remove(connections, "before_cursor_execute", hear)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


async def rows_read(session: AsyncSession, work: Callable[[], Awaitable[object]]) -> int:
    """Return how many rows of jobs the statements of `work` look at."""
    with heard(session) as said:
        await work()
    assert said
    read = 0
    connection = await session.connection()
    for statement, values in said:
        explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values)
        for node in nodes(explained.scalar_one()[0]["Plan"]):
            if node.get("Relation Name") == "jobs" or "Index Name" in node:
                each = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                read += int(each * node["Actual Loops"])
    await session.rollback()
    return read


async def test_what_is_asked_of_the_operators_jobs_reads_no_ended_ones(app_database: Database, owner: UUID) -> None:
    async with app_database.tenant(owner) as session:
        job_id = (await reembed_jobs.unfinished(session, owner)).id
    async with app_database.admin() as session:
        assert await rows_read(session, lambda: jobs.get_operators_job(session, job_id)) < LISTED
        assert await rows_read(session, lambda: jobs.upkeep_by_state(session)) < LISTED
        assert await rows_read(session, lambda: figures.removals(session)) < LISTED
        assert (await jobs.get_operators_job(session, job_id)).tenant_id == owner
        assert (await jobs.upkeep_by_state(session))["failed"] >= 1
        assert {one.kind: one.number for one in await figures.removals(session)}["delete"] >= 3


@pytest.mark.parametrize("state", ["failed", "cancelled", "queued", "running", "retrying"])
async def test_jobs_in_a_rare_state_are_listed_by_an_index(app_database: Database, owner: UUID, state: str) -> None:
    async def listed() -> list[Job]:
        return await jobs.list_jobs(session, owner, state=state, after=None, limit=50)

    async with app_database.tenant(owner) as session:
        assert await rows_read(session, listed) < LISTED
        assert {job.state for job in await listed()} <= {state}


async def test_jobs_are_found_again_by_an_index(app_database: Database, worker_database: Database, owner: UUID) -> None:
    source = Source(tenant_id=owner, id=uuid4())
    async with app_database.tenant(owner) as session:
        again = partial(job_control.retry_all, session, owner, state="failed", code="c")
        assert await rows_read(session, again) < LISTED
        assert await rows_read(session, lambda: runs.queue_preview(session, source)) < LISTED
        assert await rows_read(session, lambda: reembed_jobs.under_way(session, owner)) < LISTED
    async with worker_database.tenant(owner) as session:
        assert await rows_read(session, lambda: jobs.queue_release(session, owner)) < LISTED


async def test_ended_jobs_are_forgotten_in_small_pieces(worker_database: Database, owner: UUID) -> None:
    for kind, state in (("ingest", "done"), ("ingest", "failed"), ("purge", "done"), ("sync", "cancelled")):
        await add(worker_database, owner, 400, kind, state, age="31 days")
    for kind in ("delete", "erase_tenant", "fsck", "retention"):
        await add(worker_database, owner, 5, kind, "done", age="90 days")
    await add(worker_database, owner, 5, "ingest", "queued", age="90 days")
    before = await kinds(worker_database, owner)
    gone: list[int] = []
    while not gone or gone[-1]:
        async with worker_database.dispatcher() as session, session.begin():
            gone.append(await regular.forget_ended(session, 30))
    assert max(gone) <= 1000, "a few at a time"
    assert sum(gone) >= 1600
    assert before - await kinds(worker_database, owner) == {"ingest": 800, "purge": 400, "sync": 400}


async def test_a_receipt_cannot_be_forgotten(worker_database: Database, owner: UUID) -> None:
    async with worker_database.dispatcher() as session:
        query = "DELETE FROM jobs WHERE tenant_id = :tenant AND kind = 'delete' RETURNING id"
        assert (await session.execute(text(query), {"tenant": owner})).all() == []


async def test_only_the_workers_role_may_forget(app_database: Database, owner: UUID) -> None:
    async with app_database.dispatcher() as session:
        with pytest.raises(ProgrammingError, match="permission denied"):
            await regular.forget_ended(session, 1)


async def kinds(database: Database, tenant: UUID) -> Counter[str]:
    async with database.tenant(tenant) as session:
        return Counter(await session.scalars(text("SELECT kind FROM jobs")))
