"""Behind a real PgBouncer in transaction mode: no tenant's scope reaches another's transaction, nothing is prepared
where it will not be found, and a pooler that dies is got over."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenants.db import Database
from tenants.errors import Unavailable
from tenants.settings import DatabaseSettings
from tests.pgbouncer import PgBouncer
from tests.tenants.conftest import Place, Pooled

_CREATE = text(
    "INSERT INTO tenants (id, slug, name, plan, state, placement, settings)"
    " VALUES (:id, :slug, 'n', 'p', 'active', 'auto', '{}')"
)
_SEEN = text("SELECT id FROM tenants")
_WRITE = text("INSERT INTO conversations (tenant_id, id, title) VALUES (:tenant, :id, :title)")
_READ = text("SELECT tenant_id FROM conversations")
_BACKEND = text("SELECT pg_backend_pid()")
SESSIONS, TURNS = 12, 6


@pytest.fixture
async def through_one(pooled: Pooled, pooler_of_one: PgBouncer) -> AsyncIterator[Place]:
    """A database that all reach over one connection of the server."""
    place = pooled.through(pooler_of_one)
    yield place
    await place.aclose()


async def make_tenants(place: Place, count: int) -> list[UUID]:
    tenants = [uuid4() for _ in range(count)]
    async with place.app.admin() as session, session.begin():
        for tenant in tenants:
            await session.execute(_CREATE, {"id": tenant, "slug": str(tenant)})
    return tenants


@pytest.mark.parametrize("seed", range(2))
async def test_many_tenants_over_one_connection_see_their_own_alone(through_one: Place, seed: int) -> None:
    tenants, backends = await make_tenants(through_one, 6), set()

    async def visit(number: int) -> None:
        dice = random.Random(seed * 1_000 + number)
        for _ in range(TURNS):
            tenant = dice.choice(tenants)
            async with through_one.app.tenant(tenant) as session:
                for _ in range(dice.randint(1, 3)):  # transactions of one session
                    backends.add((await session.execute(_BACKEND)).scalar_one())
                    await session.execute(_WRITE, {"tenant": tenant, "id": uuid4(), "title": "t"})
                    await asyncio.sleep(dice.random() / 500)
                    assert set((await session.execute(_READ)).scalars()) == {tenant}
                    assert list((await session.execute(_SEEN)).scalars()) == [tenant]
                    await (session.commit if dice.random() < 0.7 else session.rollback)()

    await asyncio.gather(*map(visit, range(SESSIONS)))
    assert len(backends) == 1, "or the test would not show what it is to show"


async def test_a_transaction_that_failed_leaves_nothing_to_the_next(through_one: Place) -> None:
    [mine, other] = await make_tenants(through_one, 2)

    async def fail() -> None:
        async with through_one.app.tenant(mine) as session:
            await session.execute(text("SELECT set_config('work_mem', '3MB', true)"))
            await session.execute(text("SELECT 1 / 0"))

    for _ in range(5):
        with pytest.raises(DBAPIError):
            await fail()
        async with through_one.app.tenant(other) as session:
            assert list((await session.execute(_SEEN)).scalars()) == [other]
            assert (await session.execute(text("SHOW work_mem"))).scalar_one() != "3MB"


async def test_statements_are_prepared_at_the_server_and_never_through_a_pooler(place: Place) -> None:
    """The driver prepares what it runs for the sixth time; a pooler of before 1.21 knows nothing of it."""
    [tenant] = await make_tenants(place, 1)

    async def ask(database: Database) -> int:
        prepared = 0
        for _ in range(12):
            async with database.tenant(tenant) as session:
                await session.execute(_READ)
                prepared = (await session.execute(text("SELECT count(*) FROM pg_prepared_statements"))).scalar_one()
                await session.commit()  # a rollback makes the driver forget what it has prepared
        return prepared

    counts = await asyncio.gather(*[ask(place.app) for _ in range(8)])
    assert (max(counts) == 0) == place.pooled


async def test_a_pooler_that_is_killed_and_comes_back_is_got_over(
    pooled: Pooled, pooler_of_one: PgBouncer, through_one: Place
) -> None:
    [tenant] = await make_tenants(through_one, 1)

    async def ask() -> list[UUID]:
        async with through_one.app.tenant(tenant) as session:
            return list((await session.execute(_SEEN)).scalars())

    async def work() -> None:
        async with through_one.worker.writer_lock(tenant):
            working.set()
            await asyncio.sleep(60)

    working = asyncio.Event()
    holder = asyncio.create_task(work())
    await working.wait()
    assert await ask() == [tenant]
    pooler_of_one.kill()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(holder, 10)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await ask()
    pooler_of_one.start()
    for _ in range(100):
        try:
            assert await ask() == [tenant]
            break
        except Unavailable:
            await asyncio.sleep(0.05)
    else:
        pytest.fail("it was not got over")
    async with asyncio.timeout(10), through_one.worker.writer_lock(tenant) as held:
        assert held


async def test_the_holder_of_a_lock_and_its_work_get_by_with_two_connections(pooled: Pooled) -> None:
    place = pooled.through(pooler := pooled.pooler(2))
    pooler.start()
    try:
        [tenant] = await make_tenants(place, 1)
        for _ in range(3):
            async with place.worker.writer_lock(tenant), place.worker.tenant(tenant) as session:
                assert list((await session.execute(_SEEN)).scalars()) == [tenant]
                await session.commit()
    finally:
        await place.aclose()
        pooler.close()


async def test_preparing_can_be_forbidden(place: Place) -> None:
    database = Database(place.app_url, DatabaseSettings(prepare="never"))
    async with database.admin() as session:
        raw = await (await session.connection()).get_raw_connection()
        assert raw.driver_connection is not None
        assert raw.driver_connection.prepare_threshold is None
    await database.aclose()


async def test_a_server_that_says_nothing_to_what_was_sent_is_given_up_in_seconds(place: Place) -> None:
    """Without this the kernel of Linux sends again for a quarter of an hour."""
    async with place.app.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        with socket.fromfd(driver.fileno(), socket.AF_INET, socket.SOCK_STREAM) as wire:
            assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
