"""The only door to the database: sessions that carry a tenant, or one of two narrow scopes, down to row-level security.

A session without a scope cannot be opened here, so "forgot to set the tenant" is an error and never an empty answer.
The scope is set by `set_config(..., is_local => true)` as the first statement of every transaction; it ends with the
transaction, so a pooled connection (PgBouncer in transaction mode too) carries nothing over to its next user.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Session, SessionTransaction

from tenants.engine import answering, engine_url, pool_engine
from tenants.errors import Misconfigured
from tenants.locks import hold, lock_key
from tenants.one_trip import Call, Row, Statement, one_trip
from tenants.settings import DatabaseSettings

_SCOPE = "tessera_scope"
_SOLE_SCHEDULER = lock_key("scheduler", UUID(int=0))
_NO_SCOPE = {"tenant_id": "", "scope": "", "key_id": ""}
_SET_SCOPE = Statement(
    text(
        "SELECT set_config('app.tenant_id', :tenant_id, true), set_config('app.scope', :scope, true),"
        " set_config('app.key_id', :key_id, true)"
    )
)
_ENTER_TENANT = Statement(
    text(
        "SELECT set_config('app.tenant_id',"
        " coalesce((SELECT CAST(tenant_id AS text) FROM api_keys WHERE id = :key_id LIMIT 1), ''), true)"
    )
)
"""That of the one key which the scope shows."""
_PING = Statement(text("SELECT 1"))


class Base(DeclarativeBase):
    """Base of every table."""


class ScopedSession(Session):
    """The synchronous half of the sessions opened here; it refuses to work without a scope."""


@event.listens_for(ScopedSession, "after_begin")
def _set_scope(session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    scope = session.info.get(_SCOPE)
    if scope is None:
        raise Misconfigured("A database session was opened without a tenant or a scope.")
    connection.execute(_SET_SCOPE.clause, scope)


class Database:
    """One engine of one role. `tenant()` is what nearly everything uses."""

    def __init__(self, url: str, settings: DatabaseSettings, *, setting: str = "TESSERA_DATABASE_URL") -> None:
        """Connect to nothing yet.

        Args:
            url: of the role.
            settings: of the pool.
            setting: where the URL comes from, named when it is wrong.

        Raises:
            Misconfigured: the URL is not the address of a Postgres.
        """
        self.setting = setting
        self.url = engine_url(url, setting)
        self.engine: AsyncEngine = pool_engine(self.url, settings)
        self._sessions = async_sessionmaker(
            self.engine, sync_session_class=ScopedSession, expire_on_commit=False, autoflush=False
        )

    @asynccontextmanager
    async def _open(self, **scope: str) -> AsyncIterator[AsyncSession]:
        with answering():
            async with self._sessions(info={_SCOPE: {**_NO_SCOPE, **scope}}) as session:
                yield session

    async def read(self, tenant_id: UUID, statement: Statement, **values: Any) -> list[Row]:
        """Return what a statement with the parameter `tenant_id` finds of that tenant, in a transaction of its own and
        a single round trip."""
        return await self._read({"tenant_id": str(tenant_id)}, [(statement, {**values, "tenant_id": tenant_id})])

    async def read_of_key(self, key_id: str, statement: Statement) -> list[Row]:
        """Return what a statement with the parameter `key_id` finds of the tenant that has this API key."""
        key = {"key_id": key_id}
        return await self._read(key, [(_ENTER_TENANT, key), (statement, key)])

    async def _read(self, scope: dict[str, str], calls: list[Call]) -> list[Row]:
        with answering():
            found = await one_trip(self.engine, [(_SET_SCOPE, {**_NO_SCOPE, **scope}), *calls])
        if found is not None:
            return found
        # A read may be done twice; a session knows what else to give up with a dead connection.
        async with self._open(**scope) as session:
            results = [await session.execute(statement.clause, values) for statement, values in calls]
            return [tuple(row) for row in results[-1]]

    def tenant(self, tenant_id: UUID) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that sees and writes one tenant's rows and nothing else."""
        return self._open(tenant_id=str(tenant_id))

    @asynccontextmanager
    async def one_moment(self, tenant_id: UUID) -> AsyncIterator[AsyncSession]:
        """Open a session as `tenant` does, to read in: all that it sees is of the moment of its first statement."""
        async with self._open(tenant_id=str(tenant_id)) as session:
            await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    def admin(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that sees the list of tenants and erasure jobs, and no tenant's content."""
        return self._open(scope="admin")

    def erasure(self, tenant_id: UUID) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that removes one tenant: its rows, and its entry in the list of tenants."""
        return self._open(tenant_id=str(tenant_id), scope="admin")

    def dispatcher(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session that sees the jobs of all tenants, and no content."""
        return self._open(scope="dispatcher")

    async def ping(self) -> None:
        """Raise `Unavailable` unless the database answers."""
        await self._read({"scope": "none"}, [(_PING, {})])

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
    async def sole_scheduler(self) -> AsyncIterator[bool]:
        """Say whether no other scheduler looks at the queue, and keep others from it: a second one, as in a rolling
        update, does no harm. Held by a transaction, so it ends with the connection, and behind a pooler too."""
        with answering():
            async with hold(self.engine, _SOLE_SCHEDULER, wait=False) as alone:
                yield alone

    @asynccontextmanager
    async def _lock(self, kind: str, tenant_id: UUID, *, wait: bool = True) -> AsyncIterator[bool]:
        with answering():
            async with hold(self.engine, lock_key(kind, tenant_id), wait=wait) as held:
                yield held

    async def aclose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
