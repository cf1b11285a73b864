"""How migrations run: one runner at a time, bounded waits, progress, and what the schema asks of running code.

A session of its own and not a pooler's: the lock of the runner lives as long as its connection, through every
transaction and beside the index that is built outside of one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from tenants.engine import engine_url, is_pooled, place, plain_engine
from tenants.errors import Misconfigured, Unavailable
from tenants.postgres_errors import explained

SETTING = "TESSERA_DATABASE_OWNER_URL"
LOCK_TIMEOUT_S, STATEMENT_TIMEOUT_S = 4.0, 60
_LOCK_KEY = 7_223_019_553_201
_OTHERS_S, _LOOK_EVERY_S = 600.0, 0.5


@dataclass(frozen=True)
class Step:
    """A migration that was applied, or taken back."""

    revision: str
    title: str
    up: bool


@dataclass
class Run:
    """What the runner was asked for, and what it says as it goes."""

    url: str
    applied: Callable[[Step], None] = lambda step: None
    waits: Callable[[str], None] = lambda sentence: None
    lock_timeout_s: float = LOCK_TIMEOUT_S
    statement_timeout_s: int = STATEMENT_TIMEOUT_S


@contextmanager
def alone(run: Run) -> Iterator[Connection]:
    """Connect as the owner, hold the runner's lock, bound every wait.

    Raises:
        Misconfigured: the address leads to a pooler, or the login is refused.
        Unavailable: the server does not answer, or another runner did not end.
    """
    url = engine_url(run.url, SETTING)
    engine = plain_engine(url)
    try:
        with _connected(engine, url) as connection:
            driver: Any = connection.connection.driver_connection
            if is_pooled(driver):
                raise Misconfigured(
                    f"{SETTING} leads to a connection pooler ({place(url)}); migrations need a session of their own:"
                    " give the direct address of Postgres."
                )
            _wait_for_turn(connection, run)
            connection.execute(text(f"SET lock_timeout = '{run.lock_timeout_s * 1000:.0f}ms'"))
            connection.execute(text(f"SET statement_timeout = '{run.statement_timeout_s:d}s'"))
            connection.commit()
            yield connection
            connection.commit()
    finally:
        engine.dispose()


def _connected(engine: Engine, url: URL) -> Connection:
    try:
        return engine.connect()
    except DBAPIError as error:
        raise explained(error, SETTING, url) from error


def _wait_for_turn(connection: Connection, run: Run) -> None:
    deadline, told = time.monotonic() + _OTHERS_S, False
    while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK_KEY}).scalar_one():
        connection.rollback()
        if not told:
            run.waits("another `tessera db upgrade` is running; waiting for its end")
            told = True
        if time.monotonic() > deadline:
            raise Unavailable(
                f"Another `tessera db upgrade` has not ended within {_OTHERS_S:.0f} s; see its output, and"
                " pg_stat_activity for what it waits for."
            )
        time.sleep(_LOOK_EVERY_S)
    connection.commit()


def demand(script: ScriptDirectory, revision: str | None) -> str | None:
    """Return the oldest head whose code works with the schema at a revision; None where every release does.

    A migration that takes away what older releases use (the contract step) says so by `NEEDS`, the head that the code
    must know.
    """
    if revision is None:
        return None
    needs = [getattr(one.module, "NEEDS", None) for one in script.iterate_revisions(revision, "base")]
    return max((need for need in needs if need), default=None)


def write_demand(connection: Connection, needs: str | None) -> None:
    """Leave beside the revision, where every role may read it, which releases still work with the schema."""
    comment = "NULL" if needs is None else "'" + json.dumps({"needs": needs}).replace("'", "''") + "'"
    if connection.execute(text("SELECT to_regclass('public.alembic_version')")).scalar_one() is not None:
        connection.execute(text(f"COMMENT ON TABLE public.alembic_version IS {comment}"))
