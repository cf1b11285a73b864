"""How a process connects to Postgres, directly or through PgBouncer: addresses, connections, what goes wrong.

A pooler in transaction mode gives each transaction another connection of the server, so nothing may be kept on one
between transactions, and statements that the driver prepares there would be missing or taken. Nobody has to say that
there is a pooler: each connection finds out by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import AsyncConnection, Connection
from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tenants.errors import Misconfigured, Unavailable
from tenants.settings import DatabaseSettings

DRIVER = "postgresql+psycopg"
FORM = f"{DRIVER}://ROLE:PASSWORD@HOST:5432/DATABASE"
_LOGIN = re.compile(r"[^:]*://[^:/]*(:[^@]*)?@")
"""What comes before the host, as SQLAlchemy reads it: a password ends with the first `@`."""
_VALUES = re.compile(r"\?[^@=]*=.*")
"""What is said behind the address, where an `@` may stand."""
_SCHEMES = frozenset({"postgres", "postgresql", DRIVER})
_HIGHEST_PORT = 65535
_ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 15_000}
"""A lock's connection says nothing for hours; what stands between must not forget it, and a dead server is noticed. One
that dies with a statement on its way to it is noticed by the last of these (ms) alone: keepalives wait for silence, and
the kernel would send it again for a quarter of an hour."""
_PASSING = frozenset({"08", "40", "53", "57"})
"""Classes of SQLSTATE: connection, transaction rolled back, insufficient resources, operator intervention."""
_READ_ONLY = "25006"
"""SQLSTATE of a write to what is a replica by now. Its connections are given up: new ones may find the primary."""
_OWN_BACKEND = "SELECT pg_backend_pid()"


def engine_url(address: str, setting: str) -> URL:
    """Read the address of a database.

    Raises:
        Misconfigured: it is not one; the address is not said, for it holds a password.
    """
    if "@" in _VALUES.sub("", _LOGIN.sub("", address, count=1)):
        raise Misconfigured(
            f"The setting {setting} has an @ behind its password: percent-encode the password in {setting}"
            f" (@ as %40, / as %2F, : as %3A), so that it has the form {FORM}."
        )
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise Misconfigured(f"The setting {setting} is not an address of the form {FORM}.") from None
    if url.port is not None and not 0 < url.port <= _HIGHEST_PORT:
        raise Misconfigured(f"The setting {setting} has a port that there is not; they go from 1 to {_HIGHEST_PORT}.")
    if url.drivername not in _SCHEMES:
        raise Misconfigured(
            f"The setting {setting} begins with {url.drivername!r}; the address of a Postgres has the form {FORM}."
        )
    return url.set(drivername=DRIVER)


def place(url: URL) -> str:
    """Return where an address leads, without its secrets."""
    hosts = url.query.get("host", ())
    listed = (hosts,) if isinstance(hosts, str) else hosts
    server = f"{url.host}:{url.port or 5432}" if url.host else ",".join(listed) or "the default server"
    return f"{server}/{url.database or url.username or ''}"


def pool_engine(url: URL, settings: DatabaseSettings) -> AsyncEngine:
    """Return the engine of a long-running process: a pool of connections, each of which knows its pooler."""
    engine = create_async_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_pre_ping=False,
        connect_args=_connect_args(settings.connect_timeout_s),
        hide_parameters=True,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def look(connection: Any, _record: Any) -> None:
        if settings.prepare == "never" or connection.run_async(_is_pooled):
            connection.driver_connection.prepare_threshold = None

    @event.listens_for(engine.sync_engine, "handle_error")
    def give_up(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True

    return engine


def plain_engine(url: URL, connect_timeout_s: float = 10.0) -> Engine:
    """Return an engine for a program that runs once and has nobody to share with."""
    return create_engine(url, connect_args=_connect_args(connect_timeout_s), hide_parameters=True)


def is_pooled(connection: Connection[Any]) -> bool:
    """Say whether a pooler stands between a psycopg connection and the server."""
    row = connection.execute(_OWN_BACKEND, prepare=False).fetchone()
    return row is None or row[0] != connection.info.backend_pid


async def _is_pooled(connection: AsyncConnection[Any]) -> bool:
    """Say the same of a fresh connection of asyncio.

    A server tells its process id when it greets; a pooler greets with a number of its own, by which it finds the
    connection that a request to cancel is meant for.
    """
    await connection.set_autocommit(True)
    row = await (await connection.execute(_OWN_BACKEND, prepare=False)).fetchone()
    await connection.set_autocommit(False)
    return row is None or row[0] != connection.info.backend_pid


def _connect_args(connect_timeout_s: float) -> dict[str, Any]:
    # No `options`: PgBouncer refuses them.
    timeout = {"connect_timeout": max(1, int(connect_timeout_s))}
    return {**timeout, **_ALIVE, "fallback_application_name": "tessera"}


@contextmanager
def answering() -> Iterator[None]:
    """Raise `Unavailable` for what the driver and the pool raise when the server is gone or has no connection free.

    What the server refuses for good stays the error it is: trying it again would never end.
    """
    try:
        yield
    except NoConnectionFree as error:
        raise Unavailable("The database does not answer.", code="database_unavailable") from error
    except DBAPIError as error:
        if error.connection_invalidated or passes(error):
            raise Unavailable("The database does not answer.", code="database_unavailable") from error
        raise


def passes(error: DBAPIError) -> bool:
    """Say whether the error is one of the connection, or one that a later try need not meet."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    state: str | None = getattr(error.orig, "sqlstate", None)  # the driver's own errors have none
    return state is None or state[:2] in _PASSING
