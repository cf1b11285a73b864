"""What no client can see: the batch of a job, and whether a worker is in the middle of a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg

from service.local.plan import DATABASE
from service.local.postgres import conninfo
from service.local.state import Installation, StackState

_OPEN = (
    "SELECT 1 FROM pg_stat_activity WHERE usename = 'tessera_worker' AND backend_xid IS NOT NULL"
    " AND state IN ('active', 'idle in transaction')"
)


@contextmanager
def superuser(stack: StackState) -> Iterator[psycopg.Connection]:
    """Connect to the stack's database past row-level security."""
    installation = Installation.load(Path(stack.env["TESSERA_DATA_DIR"]))
    url = conninfo(installation.ports["postgres"], installation.secrets.superuser).rpartition("/")[0]
    with psycopg.connect(f"{url}/{DATABASE}", autocommit=True) as connection:
        yield connection


async def batch_of(stack: StackState, job_id: str) -> UUID:
    """Wait until a job is given out, and return its batch."""
    with superuser(stack) as connection:
        for _ in range(600):
            [batch_id] = connection.execute("SELECT batch_id FROM jobs WHERE id = %s", [job_id]).fetchone() or [None]
            if batch_id is not None:
                return UUID(str(batch_id))
            await asyncio.sleep(0.02)
    raise AssertionError(f"job {job_id} is not given out")


async def writing(stack: StackState) -> None:
    """Wait until a worker has written something that it has not committed."""
    with superuser(stack) as connection:
        for _ in range(3000):
            if connection.execute(_OPEN).fetchone():
                return
            await asyncio.sleep(0.002)
    raise AssertionError("no worker writes")
