"""Back-pressure: bounds on what is read in at once and on what a tenant may have waiting, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select

from ingestion import jobs
from ingestion.admission import Admission
from ingestion.models import Job
from ingestion.settings import IngestSettings
from tenants.db import Database
from tenants.errors import TooManyRequests

if TYPE_CHECKING:
    from tests.conftest import TenantAccess

ONE, TWO = uuid4(), uuid4()


@pytest.fixture
async def database(worker_database: Database) -> AsyncIterator[Database]:
    yield worker_database
    for tenant_id in (ONE, TWO):
        async with worker_database.tenant(tenant_id) as session, session.begin():
            await session.execute(delete(Job).where(Job.tenant_id == tenant_id))


async def refused(admission: Admission, tenant_id: UUID, length: int | None) -> str | None:
    try:
        async with admission.admitted(tenant_id, length):
            return None
    except TooManyRequests as error:
        return error.code if error.retry_after_s >= 1 else "without a time to come back"


async def test_no_tenant_takes_more_than_half_of_what_is_read_in(database: Database) -> None:
    admission = Admission(database, IngestSettings(intake_bytes=100, max_upload_bytes=40))
    async with AsyncExitStack() as held:
        await held.enter_async_context(admission.admitted(ONE, 30))
        assert await refused(admission, ONE, 21) == "intake_full"
        assert await refused(admission, ONE, 20) is None
        assert await refused(admission, TWO, 71) == "intake_full"
        await held.enter_async_context(admission.admitted(TWO, None))
        assert await refused(admission, TWO, 20) == "intake_full"
    assert await refused(admission, ONE, 1000) is None, "alone, even the largest is taken"
    assert not admission._inside


async def test_a_long_queue_takes_no_more_until_some_are_done(database: Database) -> None:
    async with database.tenant(ONE) as session, session.begin():
        session.add_all([jobs.new_job(ONE, "ingest", cost=10) for _ in range(3)])
        session.add(jobs.new_job(ONE, "partition"))
    by_number = Admission(database, IngestSettings(queue_documents=4))
    assert await refused(by_number, ONE, 5) is None
    by_number.taken(ONE, 1, 10)
    assert await refused(by_number, ONE, 5) == "queue_full"
    assert await refused(by_number, TWO, 5) is None
    assert await refused(Admission(database, IngestSettings(queue_bytes=30)), ONE, 5) == "queue_full"
    async with database.tenant(ONE) as session, session.begin():
        for job in await session.scalars(select(Job).where(Job.tenant_id == ONE, Job.kind == "ingest")):
            job.state = "done"
    await asyncio.sleep(1.1)
    assert await refused(by_number, ONE, 5) is None


async def begin_upload(tenant: TenantAccess, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Announce a large body and send none of it."""
    reader, writer = await asyncio.open_connection(tenant.client.base_url.host, tenant.client.base_url.port)
    head = (
        f"POST /v1/documents HTTP/1.1\r\nHost: tessera\r\nAuthorization: Bearer {tenant.key}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}\r\n\r\n"
    )
    writer.write(head.encode())
    await writer.drain()
    return reader, writer


async def test_an_upload_too_many_is_told_when_to_come_back(tenant: TenantAccess, other_tenant: TenantAccess) -> None:
    largest = 65 * 2**20
    opened = [await begin_upload(tenant, largest) for _ in range(2)]
    reading = [asyncio.create_task(reader.readuntil(b"}")) for reader, _ in opened]
    refused, held = await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
    [answer], [other] = [task.result() for task in refused], held
    assert b" 429 " in answer
    assert b"retry-after: 1\r\n" in answer.lower()
    assert b'"intake_full"' in answer
    assert (await other_tenant.upload("Others are not held back.", "o.txt"))["job"]["state"] == "done"
    other.cancel()
    for _, writer in opened:
        writer.close()
        await writer.wait_closed()
