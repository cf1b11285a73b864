"""What the database refuses for good is not called an absence, which would be waited for without end."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenants.db import Database
from tenants.errors import Unavailable
from tenants.settings import DatabaseSettings


@pytest.mark.parametrize(
    ("statement", "state"),
    [
        ("SELECT repeat('ab', 1000000000)", "54000"),  # an OperationalError, as the driver sorts them
        ("SELECT 1 / 0", "22012"),
        ("SELECT no_such_column", "42703"),
    ],
)
async def test_a_statement_that_can_never_succeed_keeps_its_error(
    app_database: Database, statement: str, state: str
) -> None:
    with pytest.raises(DBAPIError) as raised:
        async with app_database.admin() as session:
            await session.execute(text(statement))
    assert getattr(raised.value.orig, "sqlstate", None) == state


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT pg_terminate_backend(pg_backend_pid())",  # 57P01
        "SET LOCAL statement_timeout = '10ms'; SELECT pg_sleep(5)",  # 57014
        "DO $$ BEGIN RAISE EXCEPTION 'none left' USING ERRCODE = '53300'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION 'gone' USING ERRCODE = '08006'; END $$",
        "SET LOCAL transaction_read_only = on; CREATE TABLE news ()",  # 25006
    ],
)
async def test_what_passes_is_told_as_an_absence(app_database: Database, statement: str) -> None:
    with pytest.raises(Unavailable) as raised:
        async with app_database.admin() as session:
            await session.execute(text(statement))
    assert raised.value.code == "database_unavailable"


async def test_a_connection_to_a_server_that_takes_no_writes_any_more_is_given_up(app_database: Database) -> None:
    """After a failover the old primary may come back as a replica at the other end of the pool's connections."""
    database = Database(app_database.url.render_as_string(hide_password=False), DatabaseSettings(pool_size=1))
    own = text("SELECT pg_backend_pid()")
    async with aclosing(database):
        async with database.admin() as session:
            before = (await session.execute(own)).scalar_one()
        async with database.admin() as session:
            assert (await session.execute(own)).scalar_one() == before
        with pytest.raises(Unavailable):
            async with database.admin() as session:
                await session.execute(text("SET LOCAL transaction_read_only = on; CREATE TABLE news ()"))
        async with database.admin() as session:
            assert (await session.execute(own)).scalar_one() != before
