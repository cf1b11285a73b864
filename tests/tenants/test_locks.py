"""Locks exclude, are freed when their holder dies, hold back no vacuum, and are not lost unnoticed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, create_engine, text

from service.local.settings import python_environment
from tenants.db import Database
from tenants.errors import Unavailable
from tenants.locks import hold, lock_key
from tenants.settings import DatabaseSettings
from tests.tenants.conftest import Place

_HOLDERS = text(
    "SELECT a.pid, a.state, a.backend_xmin, a.backend_xid FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND (l.classid::bigint << 32) | l.objid::bigint = :key"
)
_WAITING = text(
    "SELECT a.xact_start, extract(epoch FROM clock_timestamp() - a.xact_start) FROM pg_locks l"
    " JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND NOT l.granted"
    " AND (l.classid::bigint << 32) | l.objid::bigint = :key"
)
_END_IDLE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE usename = 'tessera_worker' AND datname = current_database() AND state = 'idle'"
)
_HOLD = """
import asyncio, sys
from uuid import UUID
from tenants.db import Database
from tenants.settings import DatabaseSettings

async def main():
    async with Database(sys.argv[1], DatabaseSettings()).writer_lock(UUID(sys.argv[2])):
        print("held", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.fixture
def superuser(place: Place) -> Iterator[Engine]:
    engine = create_engine(place.superuser, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def holders(superuser: Engine, tenant: UUID, kind: str = "writer") -> list[tuple[object, ...]]:
    with superuser.connect() as connection:
        return [tuple(row) for row in connection.execute(_HOLDERS, {"key": lock_key(kind, tenant)})]


async def test_one_holder_at_a_time(place: Place) -> None:
    tenant, inside, order = uuid4(), 0, []

    async def work(n: int) -> None:
        nonlocal inside
        async with place.worker.writer_lock(tenant) as held:
            assert held
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.01)
            inside -= 1
            order.append(n)

    await asyncio.gather(*map(work, range(4)))
    assert sorted(order) == list(range(4))


async def test_who_does_not_wait_is_told(place: Place) -> None:
    tenant = uuid4()
    async with place.worker.rebuild_lock(tenant):
        async with place.worker.free_rebuild_lock(tenant) as held:
            assert not held
        async with place.worker.free_rebuild_lock(uuid4()) as other, place.worker.writer_lock(tenant) as writer:
            assert (other, writer) == (True, True)
    async with place.worker.free_rebuild_lock(tenant) as held:
        assert held


async def test_a_killed_holder_frees_it(place: Place) -> None:
    tenant = uuid4()
    words = [sys.executable, "-c", _HOLD, place.worker.url.render_as_string(hide_password=False), str(tenant)]
    process = await asyncio.create_subprocess_exec(*words, env=python_environment({}), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    waiting = asyncio.create_task(taken(place, tenant))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    process.kill()
    assert await asyncio.wait_for(waiting, 10)
    await process.wait()


async def test_a_held_lock_holds_back_no_vacuum(place: Place, superuser: Engine) -> None:
    tenant = uuid4()
    async with place.worker.writer_lock(tenant):
        [(_, state, xmin, xid)] = holders(superuser, tenant)
        assert (state, xmin, xid) == ("idle in transaction", None, None)


async def test_who_waits_holds_no_snapshot_for_long(place: Place, superuser: Engine) -> None:
    tenant = uuid4()
    key = lock_key("writer", tenant)

    async def wait() -> bool:
        async with hold(place.worker.engine, key, wait=True, in_turn_s=0.2) as held:
            return held

    async with place.worker.writer_lock(tenant):
        waiting, seen = asyncio.create_task(wait()), set()
        for _ in range(30):
            await asyncio.sleep(0.05)
            with superuser.connect() as connection:
                found = connection.execute(_WAITING, {"key": key}).all()
            seen.update(began for began, _ in found)
            assert all(age < 1 for _, age in found), "its transaction is a new one now and then"
        assert len(seen) > 2
    assert await asyncio.wait_for(waiting, 10)


async def test_who_waits_is_served_though_others_take_it_again_and_again(place: Place) -> None:
    """As the groups of a large import do: the last step of a rebuild and a delete must get in between."""
    tenant, enough = uuid4(), asyncio.Event()

    async def write_groups() -> None:
        while not enough.is_set():
            async with place.worker.writer_lock(tenant):
                await asyncio.sleep(0.02)

    greedy = [asyncio.create_task(write_groups()) for _ in range(2)]
    await asyncio.sleep(0.3)
    async with asyncio.timeout(2):
        for _ in range(5):
            async with place.worker.writer_lock(tenant):
                pass
    enough.set()
    await asyncio.gather(*greedy)


@pytest.mark.parametrize(
    ("default", "value"),
    [("idle_in_transaction_session_timeout", "'400ms'"), ("default_transaction_isolation", "'serializable'")],
)
async def test_no_default_of_the_operator_ends_it(place: Place, superuser: Engine, default: str, value: str) -> None:
    tenant = uuid4()
    with changed_default(superuser, default, value, pooled=place.pooled):
        fresh = Database(place.worker_url, DatabaseSettings())
        async with aclosing(fresh), fresh.writer_lock(tenant):
            await asyncio.sleep(1)
            [(_, _, xmin, _)] = holders(superuser, tenant)
            assert xmin is None


async def test_work_under_a_lost_lock_is_stopped(place: Place, superuser: Engine) -> None:
    tenant, stopped = uuid4(), False

    async def work() -> None:
        nonlocal stopped
        async with place.worker.writer_lock(tenant):
            [(pid, *_)] = holders(superuser, tenant)
            with superuser.connect() as connection:
                connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                stopped = True
                raise

    with pytest.raises(Unavailable) as lost:
        await asyncio.wait_for(work(), 10)
    assert stopped
    assert lost.value.code == "database_unavailable"
    async with place.worker.writer_lock(tenant) as held:
        assert held, "the pool has got over it"


async def test_a_cancelled_holder_frees_it_and_stays_cancelled(place: Place) -> None:
    tenant, began = uuid4(), asyncio.Event()

    async def work() -> None:
        async with place.worker.writer_lock(tenant):
            began.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(10), place.worker.writer_lock(tenant) as held:
        assert held


async def taken(place: Place, tenant: UUID) -> bool:
    async with place.worker.writer_lock(tenant) as held:
        return held


@contextmanager
def changed_default(superuser: Engine, name: str, value: str, *, pooled: bool) -> Iterator[None]:
    """Change a default of the worker's role for connections that are made from now on."""
    with superuser.connect() as connection:
        connection.execute(text(f"ALTER ROLE tessera_worker SET {name} = {value}"))
        if pooled:  # a pooler keeps connections, with the defaults of before; without one they are other tests'
            connection.execute(text(_END_IDLE))
    try:
        yield
    finally:
        with superuser.connect() as connection:
            connection.execute(text(f"ALTER ROLE tessera_worker RESET {name}"))
