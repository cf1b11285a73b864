"""Bring a database to the newest schema: what `tessera db upgrade`, `tessera up` and deployments call."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from migrations.runner import Run, Step
from tenants.errors import TesseraError, Unavailable

FOLDER = Path(__file__).parent
"""Alembic's files."""
_ATTEMPTS, _PAUSE_S = 5, 2.0
_LOCKED_OUT = frozenset({"55P03", "40P01"})
"""SQLSTATE: a lock did not come in time; a deadlock."""
_TOO_LONG = "57014"


class MigrationFailed(TesseraError):
    """A migration took too long and was rolled back; those before it stay."""

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
        Misconfigured: the address is wrong, or leads to a pooler.
        Unavailable: a lock did not come in any attempt.
        MigrationFailed: a statement took longer than it may.
    """
    asked = Run(run) if isinstance(run, str) else run
    done: list[Step] = []

    def applied(step: Step) -> None:
        done.append(step)
        asked.applied(step)

    config = alembic_config(asked.url, replace(asked, applied=applied), folder=folder)
    for attempt in range(attempts):
        try:
            command.upgrade(config, "head")
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None)
            following = _following(config, done)
            if state == _TOO_LONG:
                raise MigrationFailed(
                    f"Migration {following} took longer than {asked.statement_timeout_s} s and was rolled back; give it"
                    " more time with `tessera db upgrade --statement-timeout`."
                ) from error
            if state not in _LOCKED_OUT:
                raise
            if attempt == attempts - 1:
                raise Unavailable(
                    f"Migration {following} did not get its locks in {asked.lock_timeout_s:.0f} s, {attempts} times;"
                    " end the long transactions that pg_stat_activity shows, and run `tessera db upgrade` again."
                ) from error
            pause = pause_s * 2**attempt
            asked.waits(f"migration {following} did not get its locks; next attempt in {pause:.0f} s")
            time.sleep(pause)
        else:
            return done
    raise AssertionError("every attempt returns or raises")


def _following(config: Config, done: list[Step]) -> str:
    """Return the revision after those that were applied in this run, as far as it is known."""
    if not done:
        return "that is next"
    script = ScriptDirectory.from_config(config)
    return next((one.revision for one in script.walk_revisions() if one.down_revision == done[-1].revision), "?")
