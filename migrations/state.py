"""Which version a schema has, and what is pending."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

from migrations.head import HEAD
from migrations.run import FOLDER, alembic_config
from migrations.runner import SETTING, Step
from tenants.engine import engine_url, plain_engine
from tenants.postgres_errors import explained


@dataclass(frozen=True)
class SchemaState:
    """The version of a schema beside the newest that this release knows."""

    revision: str | None
    pending: list[Step]
    newer: bool


def schema_state(owner_url: str, *, folder: Path = FOLDER) -> SchemaState:
    """Read the version of the schema.

    Raises:
        Misconfigured: the address is wrong or the login is refused.
        Unavailable: the server does not answer.
    """
    url = engine_url(owner_url, SETTING)
    engine = plain_engine(url)
    try:
        with engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise explained(error, SETTING, url) from error
    finally:
        engine.dispose()
    script = ScriptDirectory.from_config(alembic_config(owner_url, folder=folder))
    known = [one for one in script.walk_revisions() if one.revision]
    newer = revision is not None and revision > HEAD
    pending = [] if newer else [one for one in known if revision is None or one.revision > revision]
    steps = [Step(one.revision, (one.doc or "").splitlines()[0], True) for one in reversed(pending)]
    return SchemaState(revision, steps, newer)
