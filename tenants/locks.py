"""Locks over all processes: one holder at a time, freed by the server when the holder dies.

A lock is an advisory lock of a transaction that stays open on a connection of its own, so it holds through PgBouncer in
transaction mode, which would give a lock of the session to whoever gets the server's connection next. The transaction
is READ COMMITTED, writes nothing, and is begun by a simple query, which leaves no portal open: so while the lock is
held it has neither a snapshot nor a transaction id, and holds back no vacuum however long it lasts.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from psycopg import Error
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tenants.errors import Unavailable

_IN_TURN_S = 5.0
_NOT_IN_TIME = "55P03"
"""SQLSTATE: the lock did not come within `lock_timeout`."""
_ENDS_TRANSACTIONS = ("idle_in_transaction_session_timeout",)
_ENDS_THEM_SINCE_17 = ("transaction_timeout",)


def lock_key(kind: str, tenant_id: UUID) -> int:
    """Return the number of a tenant's lock of one kind (64 bits, signed)."""
    digest = hashlib.sha256(kind.encode() + tenant_id.bytes).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@asynccontextmanager
async def hold(engine: AsyncEngine, key: int, *, wait: bool, in_turn_s: float = _IN_TURN_S) -> AsyncIterator[bool]:
    """Hold a lock, waiting for it if wished; say whether it is held.

    Who waits stands in the server's queue: who gives the lock back and asks for it again at once, as those do that
    write group after group, is behind it. Waiting takes a connection and a snapshot, so after `in_turn_s` both are
    given back and it stands in the queue again, at its end.

    When the connection that holds it is lost, the server has freed the lock: what runs in the context is cancelled at
    once, for another process may hold it by now.

    Raises:
        Unavailable: the lock was lost with its connection.
        sqlalchemy.exc.DBAPIError: the server cannot be reached.
    """
    async with engine.connect() as connection:
        # Whatever the operator's default is: REPEATABLE READ would keep its snapshot.
        connection = await connection.execution_options(isolation_level="READ COMMITTED")
        while not (taken := await _taken(connection, key, in_turn_s if wait else 0.0)):
            await connection.rollback()
            if not wait:
                break
        if not taken:
            yield False
            return
        try:
            async with asyncio.timeout(None) as held:
                with _watched(await _driver(connection), lambda: held.reschedule(0)):
                    yield True
        except TimeoutError:
            if not held.expired():
                raise
            await connection.invalidate()
            raise Unavailable("A lock was lost with its connection.", code="database_unavailable") from None
        await connection.rollback()


async def _taken(connection: AsyncConnection, key: int, in_turn_s: float) -> bool:
    """Take the lock in a transaction that no default of the operator's ends; False if it does not come in time.

    The key stands in the text: a statement with parameters goes by the extended protocol, whose portal would keep its
    snapshot until the next statement.
    """
    version = connection.dialect.server_version_info or (0,)
    names = _ENDS_TRANSACTIONS + (_ENDS_THEM_SINCE_17 if version >= (17,) else ())
    unending = ", ".join(f"set_config('{name}', '0', true)" for name in names)
    bounded = f"set_config('lock_timeout', '{in_turn_s * 1000:.0f}', true)"
    take = f"pg_advisory_xact_lock({key:d}) IS NOT NULL" if in_turn_s else f"pg_try_advisory_xact_lock({key:d})"
    try:
        row = (await connection.exec_driver_sql(f"SELECT {unending}, {bounded}, {take}")).one()
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_IN_TIME:
            raise
        return False
    return bool(row[-1])


async def _driver(connection: AsyncConnection) -> Any:
    return (await connection.get_raw_connection()).driver_connection


@contextmanager
def _watched(driver: Any, lost: Callable[[], None]) -> Iterator[None]:
    """Call `lost` when an idle connection of psycopg ends."""
    loop, number = asyncio.get_running_loop(), driver.fileno()

    def look() -> None:
        try:
            driver.pgconn.consume_input()
        except Error:  # it has ended; anything else that comes unasked, such as a changed parameter, is of no concern
            loop.remove_reader(number)
            lost()

    loop.add_reader(number, look)
    try:
        yield
    finally:
        loop.remove_reader(number)
