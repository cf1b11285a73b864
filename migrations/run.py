"""Bring a database to the newest schema: what `tessera db upgrade`, `tessera up` and deployments call."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from migrations.runner import SETTING, Run, Step
from tenants.engine import engine_url, passes, place
from tenants.errors import Misconfigured, TesseraError, Unavailable
from tenants.postgres_errors import cause_of, explained

FOLDER = Path(__file__).parent
"""Alembic's files."""
_ATTEMPTS, _PAUSE_S = 5, 2.0
_LOCKED_OUT = frozenset({"55P03", "40P01"})
"""SQLSTATE: a lock did not come in time; a deadlock."""
_TOO_LONG, _DENIED = "57014", "42501"
_NO_ROOM = frozenset({"53100", "53200"})
"""On the disk; in memory."""


class MigrationFailed(TesseraError):
    """A migration took too long, or too much room, and was rolled back; those before it stay."""

    code = "migration_failed"
    title = "Migration failed"


def alembic_config(owner_url: str, run: Run | None = None, *, folder: Path = FOLDER) -> Config:
    """Return Alembic's configuration for the database at `owner_url` (a SQLAlchemy URL of the owner role)."""
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    config.attributes["run"] = run or Run(owner_url)
    return config


def upgrade(
    run: Run | str, *, folder: Path = FOLDER, attempts: int = _ATTEMPTS, pause_s: float = _PAUSE_S
) -> list[Step]:
    """Run every migration that a database has not seen, and return them.

    A migration waits a few seconds for its locks, since everybody else waits behind it, and is tried again.

    Args:
        run: what to do, or the URL of the owner role.
        folder: of Alembic's files.
        attempts: at each migration that does not get its locks.
        pause_s: before the second attempt at a migration; doubled before each further one.

    Raises:
        Misconfigured: the address is wrong, or leads to a pooler, or its role may not do what a migration does.
        Unavailable: a lock did not come in any attempt, or the connection was lost.
        MigrationFailed: a statement took longer than it may, or the server has no room left.
    """
    asked = Run(run) if isinstance(run, str) else run
    done: list[Step] = []

    def applied(step: Step) -> None:
        done.append(step)
        asked.applied(step)

    config = alembic_config(asked.url, replace(asked, applied=applied), folder=folder)
    failures, reached = 0, 0
    while True:
        try:
            command.upgrade(config, "head")
        except DBAPIError as error:
            following = _following(config, done)
            if getattr(error.orig, "sqlstate", None) not in _LOCKED_OUT:
                told = _told(error, asked, following)
                if told is None:
                    raise
                raise told from error
            failures = failures + 1 if len(done) == reached else 1
            reached = len(done)
            if failures == attempts:
                raise Unavailable(
                    f"Migration {following} did not get its locks in {asked.lock_timeout_s:.0f} s, {attempts} times;"
                    " end the long transactions that pg_stat_activity shows, and run `tessera db upgrade` again."
                ) from error
            pause = pause_s * 2 ** (failures - 1)
            asked.waits(f"migration {following} did not get its locks; next attempt in {pause:.0f} s")
            time.sleep(pause)
        else:
            return done


def _told(error: DBAPIError, asked: Run, following: str) -> TesseraError | None:
    """Return what to raise for an error that ends the run; None where it is one of the migration."""
    state = getattr(error.orig, "sqlstate", None)
    url = engine_url(asked.url, SETTING)
    if state == _TOO_LONG:
        return MigrationFailed(
            f"Migration {following} took longer than {asked.statement_timeout_s} s and was rolled back; give it"
            " more time with `tessera db upgrade --statement-timeout`."
        )
    if state == _DENIED:
        return Misconfigured(
            f"{SETTING}: the Postgres at {place(url)} denies role {url.username} what migration {following} does"
            f" ({cause_of(error)}). It must own the database and every table in it."
        )
    if state in _NO_ROOM:
        return MigrationFailed(
            f"Migration {following} was rolled back, for the Postgres at {place(url)} has no room left"
            f" ({cause_of(error)}). Give it more, and run `tessera db upgrade` again."
        )
    return explained(error, SETTING, url) if passes(error) else None


def _following(config: Config, done: list[Step]) -> str:
    """Return the revision after those that were applied in this run, as far as it is known."""
    if not done:
        return "that is next"
    script = ScriptDirectory.from_config(config)
    return next((one.revision for one in script.walk_revisions() if one.down_revision == done[-1].revision), "?")
