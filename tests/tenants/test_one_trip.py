"""Reads that cost one round trip see one tenant, directly and behind a pooler, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from tenants.db import Database
from tenants.errors import Unavailable
from tenants.one_trip import Statement
from tenants.settings import DatabaseSettings
from tests.tenants.conftest import Place
from tests.tenants.test_poolers import make_tenants

if TYPE_CHECKING:
    from uuid import UUID

_SEEN = Statement(text("SELECT id, CAST(:tenant_id AS uuid), pg_sleep(:seconds) FROM tenants"))
READERS, TURNS, LONGEST_S = 12, 12, 0.02


def told(statement: str) -> Statement:
    return Statement(text(f"SELECT {statement} FROM tenants WHERE id = :tenant_id"))


async def seen(database: Database, tenant: UUID, seconds: float = 0.0) -> list[UUID]:
    rows = await database.read(tenant, _SEEN, seconds=seconds)
    assert all(asked == tenant for _, asked, _ in rows)
    return [row[0] for row in rows]


@pytest.mark.parametrize("seed", range(2))
async def test_readers_that_leave_in_the_middle_leave_nothing_to_others(place: Place, seed: int) -> None:
    """On three connections, beside sessions."""
    tenants = await make_tenants(place, 4)
    database = Database(place.app_url, DatabaseSettings(pool_size=3))
    left = 0

    async def visit(number: int) -> None:
        nonlocal left
        dice = random.Random(seed * 1_000 + number)
        for _ in range(TURNS):
            tenant = dice.choice(tenants)
            if dice.random() < 0.2:
                async with database.tenant(tenant) as session:
                    assert list((await session.execute(text("SELECT id FROM tenants"))).scalars()) == [tenant]
            try:
                async with asyncio.timeout(dice.uniform(0.001, 0.2)):
                    assert await seen(database, tenant, dice.uniform(0, LONGEST_S)) == [tenant]
            except TimeoutError:
                left += 1

    async with aclosing(database):
        await asyncio.gather(*map(visit, range(READERS)))
        assert 0 < left < READERS * TURNS, "or the test would not show what it is to show"
        for tenant in tenants:
            assert await seen(database, tenant) == [tenant]


async def test_a_read_that_is_refused_keeps_its_error_and_the_next_one_works(place: Place) -> None:
    [tenant] = await make_tenants(place, 1)
    for statement, state in (("1 / 0", "22012"), ("no_such_column", "42703")):
        with pytest.raises(DBAPIError) as raised:
            await place.app.read(tenant, told(statement))
        assert getattr(raised.value.orig, "sqlstate", None) == state
        assert str(tenant) not in str(raised.value)
        assert await seen(place.app, tenant) == [tenant]


async def test_a_read_whose_server_goes_away_is_told_as_an_absence(place: Place) -> None:
    [tenant] = await make_tenants(place, 1)
    with pytest.raises(Unavailable):
        await place.app.read(tenant, told("pg_terminate_backend(pg_backend_pid())"))
    assert await seen(place.app, tenant) == [tenant]


async def test_connections_that_died_meanwhile_cost_no_read(place: Place) -> None:
    [tenant] = await make_tenants(place, 1)
    database = Database(place.app_url, DatabaseSettings(pool_size=3))
    conninfo = place.superuser.replace("+psycopg", "")
    async with aclosing(database):
        rows = await asyncio.gather(*(database.read(tenant, told("pg_backend_pid(), pg_sleep(0.1)")) for _ in range(3)))
        async with await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as operator:
            for [(backend, _)] in rows:
                await operator.execute("SELECT pg_terminate_backend(%s)", [backend])
        for _ in range(4):
            assert await seen(database, tenant) == [tenant]


class Line:
    """A long line to a server: what it says arrives late, and how often the client waited for it is counted."""

    def __init__(self, port: int) -> None:
        self.port, self.turns = port, 0
        self._answered = True

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.port)

        async def back() -> None:
            while data := await from_server.read(65_536):
                await asyncio.sleep(0.05)
                self._answered = True
                writer.write(data)

        answering = asyncio.create_task(back())
        while data := await reader.read(65_536):
            self.turns += self._answered
            self._answered = False
            to_server.write(data)
        answering.cancel()
        to_server.close()
        writer.close()


async def test_a_read_waits_for_the_server_once(place: Place) -> None:
    [tenant] = await make_tenants(place, 1)
    url = make_url(place.app_url)
    line = Line(url.port or 5432)
    async with await asyncio.start_server(line.relay, "127.0.0.1", 0) as server:
        near = url.set(port=server.sockets[0].getsockname()[1]).render_as_string(hide_password=False)
        async with aclosing(Database(near, DatabaseSettings(pool_size=1))) as database:
            assert await seen(database, tenant) == [tenant]
            line.turns = 0
            assert await seen(database, tenant) == [tenant]
            assert line.turns == 1


async def test_a_key_opens_its_own_tenant_and_an_unknown_one_none(place: Place) -> None:
    mine, other = await make_tenants(place, 2)
    for tenant in (mine, other):
        async with place.app.tenant(tenant) as session, session.begin():
            await session.execute(
                text("INSERT INTO api_keys (tenant_id, id, name, digest) VALUES (:tenant, :key, 'k', 'd')"),
                {"tenant": tenant, "key": tenant.hex},
            )
    tenants, keys = Statement(text("SELECT id FROM tenants")), Statement(text("SELECT id FROM api_keys"))
    assert await place.app.read_of_key(mine.hex, tenants) == [(mine,)]
    assert await place.app.read_of_key(mine.hex, keys) == [(mine.hex,)]
    for table in (tenants, keys):
        assert await place.app.read_of_key(uuid4().hex, table) == []
