"""The only door to the database: sessions that carry a tenant, or one of two narrow scopes, down to row-level security.

A session without a scope cannot be opened here, so "forgot to set the tenant" is an error and never an empty answer.
The scope is set by `set_config(..., is_local => true)` as the first statement of every transaction; it ends with the
transaction, so a pooled connection (PgBouncer in transaction mode too) carries nothing over to its next user.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from uuid import UUID

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session, SessionTransaction

from tenants.errors import Misconfigured, Unavailable
from tenants.settings import DatabaseSettings

_SCOPE = "tessera_scope"
_SET_SCOPE = text(
    "SELECT set_config('app.tenant_id', :tenant_id, true), set_config('app.scope', :scope, true),"
    " set_config('app.key_id', :key_id, true)"
)
_ROLE_CHECK = text(
    "SELECT r.rolname, r.rolsuper OR r.rolbypassrls AS bypasses,"
    " EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    "         WHERE n.nspname = 'public' AND c.relkind = 'r' AND pg_has_role(r.oid, c.relowner, 'MEMBER')) AS owns"
    " FROM pg_roles r WHERE r.rolname = current_user"
)
_PASSING = frozenset({"08", "40", "53", "57"})
"""Classes of SQLSTATE: connection, transaction rolled back, insufficient resources, operator intervention."""


class Base(DeclarativeBase):
    """Base of every table."""


class ScopedSession(Session):
    """The synchronous half of the sessions opened here; it refuses to work without a scope."""


@event.listens_for(ScopedSession, "after_begin")
def _set_scope(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    scope = session.info.get(_SCOPE)
    if scope is None:
        raise Misconfigured("A database session was opened without a tenant or a scope.")
    connection.execute(_SET_SCOPE, scope)


@contextmanager
def _answering() -> Iterator[None]:
    """Raise `Unavailable` for what the driver and the pool raise when the server is gone or has no connection free.

    What the server refuses for good stays the error it is: trying it again would never end.
    """
    try:
        yield
    except NoConnectionFree as error:
        raise Unavailable("The database does not answer.", code="database_unavailable") from error
    except DBAPIError as error:
        if error.connection_invalidated or _passes(error):
            raise Unavailable("The database does not answer.", code="database_unavailable") from error
        raise


def _passes(error: DBAPIError) -> bool:
    """Whether the error is one of the connection, or one that a later try need not meet."""
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    state: str | None = getattr(error.orig, "sqlstate", None)  # the driver's own errors have none
    return state is None or state[:2] in _PASSING


class Database:
    """One engine of one role. `tenant()` is what nearly everything uses."""

    def __init__(self, url: str, settings: DatabaseSettings) -> None:
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_pre_ping=False,
            connect_args={"connect_timeout": max(1, int(settings.connect_timeout_s))},
        )
        self._sessions = async_sessionmaker(
            self._engine, sync_session_class=ScopedSession, expire_on_commit=False, autoflush=False
        )

    @asynccontextmanager
    async def _open(self, **scope: str) -> AsyncIterator[AsyncSession]:
        values = {"tenant_id": "", "scope": "", "key_id": "", **scope}
        with _answering():
            async with self._sessions(info={_SCOPE: values}) as session:
                yield session

    def tenant(self, tenant_id: UUID) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that sees and writes one tenant's rows and nothing else."""
        return self._open(tenant_id=str(tenant_id))

    def key_lookup(self, key_id: str) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that sees one API key, before its tenant is known."""
        return self._open(key_id=key_id)

    def admin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that sees the list of tenants and erasure jobs, and no tenant's content."""
        return self._open(scope="admin")

    def erasure(self, tenant_id: UUID) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that removes one tenant: its rows, and its entry in the list of tenants."""
        return self._open(tenant_id=str(tenant_id), scope="admin")

    def dispatcher(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that sees the jobs of all tenants, and no content."""
        return self._open(scope="dispatcher")

    async def check_role(self) -> None:
        """Refuse a role for which row-level security would be off.

        Raises:
            Misconfigured: the role is a superuser, has BYPASSRLS, or is (a member of) the owner of a table.
            Unavailable: the database does not answer.
        """
        async with self._open(scope="none") as session:
            row = (await session.execute(_ROLE_CHECK)).one()
        if row.bypasses or row.owns:
            why = "bypasses row-level security" if row.bypasses else "owns the tables"
            raise Misconfigured(
                f"The database role {row.rolname!r} {why}; use the roles tessera_app and tessera_worker"
                " (TESSERA_DATABASE_URL, TESSERA_DATABASE_WORKER_URL)."
            )

    async def ping(self) -> None:
        """Raise `Unavailable` unless the database answers."""
        async with self._open(scope="none") as session:
            await session.execute(text("SELECT 1"))

    def writer_lock(self, tenant_id: UUID) -> AbstractAsyncContextManager[bool]:
        """Hold the tenant's index writer lock: one writer a tenant over all processes."""
        return self._lock("writer", tenant_id)

    def rebuild_lock(self, tenant_id: UUID) -> AbstractAsyncContextManager[bool]:
        """Hold the tenant's rebuild lock: one at a time makes new collections. Taken before the writer lock."""
        return self._lock("rebuild", tenant_id)

    def free_rebuild_lock(self, tenant_id: UUID) -> AbstractAsyncContextManager[bool]:
        """Hold the tenant's rebuild lock if nobody else does; say whether it is held."""
        return self._lock("rebuild", tenant_id, wait=False)

    @asynccontextmanager
    async def _lock(self, kind: str, tenant_id: UUID, *, wait: bool = True) -> AsyncIterator[bool]:
        """A session-level advisory lock on a connection of its own; the server frees it when the holder dies."""
        digest = hashlib.sha256(kind.encode() + tenant_id.bytes).digest()
        key = {"key": int.from_bytes(digest[:8], "big", signed=True)}
        with _answering():
            async with self._engine.connect() as connection:
                connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
                if wait:
                    await connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
                elif not (await connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key)).scalar_one():
                    yield False
                    return
                try:
                    yield True
                finally:
                    await connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._engine.dispose()
