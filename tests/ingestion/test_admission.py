"""Back-pressure: bounds on what is read in at once and on what a tenant may have waiting, on a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import APIRouter, Request
from sqlalchemy import delete, select

from ingestion import jobs
from ingestion.admission import Admission, Message, Receive, in_time
from ingestion.models import Job
from ingestion.settings import IngestSettings
from ingestion.upload_api import AdmittedRoute
from tenants.db import Database
from tenants.errors import TooManyRequests, TooSlow
from tests.ingestion.door import Door

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


async def test_a_tenant_takes_no_more_than_it_leaves_free(database: Database) -> None:
    admission = Admission(database, IngestSettings(intake_bytes=100, max_upload_bytes=40))
    async with AsyncExitStack() as held:
        await held.enter_async_context(admission.admitted(ONE, 30))
        assert await refused(admission, ONE, 21) == "intake_full"
        assert await refused(admission, ONE, 20) is None
        assert await refused(admission, TWO, 71) == "intake_full"
        assert await refused(admission, TWO, None) == "intake_full", "of unknown length, so it may be the largest"
        await held.enter_async_context(admission.admitted(TWO, 35))
        assert await refused(admission, TWO, 1) == "intake_full"
    assert await refused(admission, ONE, 1000) is None, "alone, even the largest is taken"
    assert not admission._inside


async def test_two_tenants_leave_room_for_a_third(database: Database) -> None:
    admission, largest = Admission(database, IngestSettings()), IngestSettings().max_upload_bytes
    async with AsyncExitStack() as held:
        for tenant_id in (ONE, TWO):
            for _ in range(4):
                try:
                    await held.enter_async_context(admission.admitted(tenant_id, largest))
                except TooManyRequests:
                    break
        assert admission._inside.total() == 3 * largest
        assert await refused(admission, uuid4(), 2**20) is None


def body(*pieces: tuple[float, bytes]) -> Receive:
    """A client that sends each piece after so many seconds, and one who says nothing more when there is no next."""
    left = iter(pieces)

    async def receive() -> Message:
        pause, piece = next(left, (3600.0, b""))
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": piece, "more_body": piece != b"end"}

    return receive


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    settings = IngestSettings(upload_grace_s=1.0, upload_bytes_per_s=100)
    trickle = in_time(body((0.0, b"x" * 5), (0.1, b"x")), settings)
    for _ in range(2):
        assert (await trickle())["more_body"]
    with pytest.raises(TooSlow) as told:
        await trickle()
    assert (told.value.code, told.value.status) == ("body_too_slow", 408)


async def test_a_slow_body_has_time_for_what_it_brings() -> None:
    settings = IngestSettings(upload_grace_s=0.3, upload_bytes_per_s=1)
    honest = in_time(body(*[(0.1, b"x")] * 4, (0.0, b"end"), (0.0, b"gone")), settings)
    for _ in range(4):
        assert (await honest())["more_body"]
    assert not (await honest())["more_body"]
    assert (await honest())["body"] == b"gone", "after the body the connection is not watched"


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


async def _length(request: Request) -> int:
    return len(await request.body())


async def test_a_slow_upload_is_told_so_and_gives_its_room_back(database: Database) -> None:
    settings, router = IngestSettings(upload_grace_s=0.3), APIRouter(route_class=AdmittedRoute)
    router.add_api_route("/documents", _length, methods=["POST"])
    door = Door(router, admission=Admission(database, settings), ingest_settings=settings)

    async def sent(then: float) -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.sleep(then)
        yield b"more"

    key = {"Authorization": f"Bearer {ONE}"}
    transport = httpx.ASGITransport(door)
    async with asyncio.timeout(30), httpx.AsyncClient(transport=transport, base_url="http://tessera") as client:
        slow = await client.post("/documents", content=sent(3600), headers=key)
        quick = await client.post("/documents", content=sent(0), headers=key)
    assert (slow.status_code, slow.json()["code"]) == (408, "body_too_slow")
    assert slow.headers["content-type"] == "application/problem+json"
    assert slow.headers["connection"] == "close"
    assert (quick.status_code, quick.json()) == (200, 8)


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
