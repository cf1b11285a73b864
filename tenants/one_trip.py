"""Reads in a transaction of their own that cost one round trip to the server.

The transaction's begin, its scope, the statement and its end are sent together (libpq's pipeline mode,
https://www.postgresql.org/docs/current/libpq-pipeline-mode.html), where a session waits for each. The server goes on to
a part only when the one before it succeeded, so nothing is read without the scope. Values come in their binary form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from psycopg import AsyncConnection, Error
from sqlalchemy import Select, TextClause
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

Row = tuple[Any, ...]
_CUT_OFF = ("08", "57P")
"""Beginnings of SQLSTATE: connection exceptions, a server that ends; said by a pooler that lives on, too."""


class Statement:
    """A statement that is written for the driver once. Its parameters without a value are given at every call."""

    def __init__(self, clause: Select[*tuple[Any, ...]] | TextClause) -> None:
        self.clause = clause

    @cached_property
    def _written(self) -> tuple[str, dict[str, Any]]:
        compiled = self.clause.compile(dialect=psycopg.dialect())  # type: ignore[no-untyped-call]
        return str(compiled), dict(compiled.params)

    def sent(self, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return it and its parameters as the driver takes them."""
        sql, own = self._written
        return sql, {**own, **values}


Call = tuple[Statement, Mapping[str, Any]]


async def one_trip(engine: AsyncEngine, calls: Sequence[Call]) -> list[Row] | None:
    """Return the rows of the last of these statements, after the others; None if the connection turns out to be dead.

    A connection on which they do not come to their end is closed: what is on its way there belongs to nobody.

    Raises:
        DBAPIError: the server refuses one.
    """
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        try:
            return await _sent(driver, calls)
        except Error as error:
            if driver.closed:
                with suppress(DBAPIError):  # which gives up all others of the pool, dead by the same cause
                    await connection.exec_driver_sql("SELECT 1")
                return None
            await connection.invalidate()
            cause = _first(error)
            if cause.sqlstate is None or cause.sqlstate.startswith(_CUT_OFF):
                return None
            raise DBAPIError.instance(None, None, cause, Error, hide_parameters=True) from error
        except BaseException:
            await connection.invalidate()
            raise


async def _sent(driver: AsyncConnection[Any], calls: Sequence[Call]) -> list[Row]:
    await driver.set_autocommit(True)  # else the driver waits for a begin of its own
    async with driver.cursor(binary=True) as cursor:
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            for statement, values in calls[:-1]:
                await driver.execute(*statement.sent(values))
            statement, values = calls[-1]
            await cursor.execute(*statement.sent(values))
            await driver.execute("COMMIT", prepare=False)
        rows = await cursor.fetchall()  # they are here by now: in the pipeline it would be a second trip
    await driver.set_autocommit(False)
    return rows


def _first(error: Error) -> Error:
    """Return the error of the statement that failed, not those that it led to: statements left out, a pipeline that
    cannot be ended."""
    while error.sqlstate is None and isinstance(error.__context__, Error):
        error = error.__context__
    return error
