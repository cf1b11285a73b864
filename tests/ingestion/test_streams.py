"""Streams of events: how many there may be, and that one ends when its key is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from eval.event_stream import parse_events
from ingestion.job_view import Viewers
from ingestion.jobs import new_job
from service.local.ports import free_port
from tenants.db import Database
from tenants.errors import TooManyRequests
from tenants.settings import DatabaseSettings
from tenants.shared_places import SharedPlaces

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess

A, B = uuid4(), uuid4()


@pytest.fixture
async def viewers() -> AsyncIterator[Viewers]:
    """Those of a process whose Redis is away."""
    places = SharedPlaces(Redis.from_url(f"redis://127.0.0.1:{free_port()}/0"))
    yield Viewers(2, places)
    await places.aclose()


@pytest.fixture
async def job_that_waits(stack: StackState, tenant: TenantAccess) -> AsyncIterator[UUID]:
    """A job that is not due for an hour."""
    database = Database(stack.env["TESSERA_DATABASE_WORKER_URL"], DatabaseSettings(pool_size=1))
    job = new_job(UUID(tenant.id), "release", delay=timedelta(hours=1))
    async with database.tenant(UUID(tenant.id)) as session, session.begin():
        session.add(job)
    yield job.id
    await database.aclose()


async def test_without_redis_streams_are_counted_by_the_process(viewers: Viewers) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(viewers.taken(A))
        for _ in range(2):  # a refusal takes no place and gives none back
            with pytest.raises(TooManyRequests, match="More than 2 streams") as raised:
                async with viewers.taken(A):
                    pass
            assert raised.value.code == "too_many_streams"
        async with viewers.taken(B):
            pass
    async with viewers.taken(A):
        pass
    assert not viewers._here, "nothing is kept of tenants that follow no job"


@pytest.mark.parametrize(("ending", "code"), [("revoke", "invalid_key"), ("suspend", "tenant_suspended")])
async def test_a_stream_ends_when_its_key_is_refused(
    admin: httpx.AsyncClient, tenant: TenantAccess, job_that_waits: UUID, ending: str, code: str
) -> None:
    keys = f"/v1/admin/tenants/{tenant.id}/keys"
    async with asyncio.timeout(60), tenant.client.stream("GET", f"/v1/jobs/{job_that_waits}/events") as answer:
        events = parse_events(answer.aiter_bytes())
        assert (await anext(events)).name == "progress"
        if ending == "revoke":
            key_id = (await admin.get(keys)).json()["items"][0]["id"]
            assert (await admin.delete(f"{keys}/{key_id}")).status_code == 204
        else:
            assert (await admin.post(f"/v1/admin/tenants/{tenant.id}/suspend")).status_code == 200
        rest = [event async for event in events]
    assert [(event.name, json.loads(event.data)) for event in rest] == [("error", {"code": code})]
