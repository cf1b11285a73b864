"""May the service work with this Postgres? Version, role, schema and privileges, looked at before anything starts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from tenants.db import Database
from tenants.engine import place
from tenants.errors import Misconfigured, Unavailable
from tenants.postgres_errors import explained
from tenants.roles import APP, WORKER

OLDEST = 150000
"""`server_version_num` of the oldest server that is tested; before 15 everybody could create tables in `public`."""
ROLE_OF = {"TESSERA_DATABASE_URL": APP, "TESSERA_DATABASE_WORKER_URL": WORKER}
"""The policies of row-level security name these two: with the wrong one a process would see nothing, in silence."""
_LOOK = text("""
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS release,
    r.rolname AS role, r.rolsuper OR r.rolbypassrls AS bypasses,
    EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'public' AND c.relkind = 'r' AND pg_has_role(r.oid, c.relowner, 'MEMBER')) AS owns,
    ARRAY(SELECT m.rolname::text FROM pg_roles m
          WHERE m.rolname LIKE 'tessera\\_%' AND pg_has_role(r.oid, m.oid, 'MEMBER')) AS roles,
    pg_backend_pid() AS backend,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL) AS free,
    current_setting('max_connections')::int AS most,
    to_regclass('public.alembic_version') IS NOT NULL AS migrated,
    coalesce(has_table_privilege(to_regclass('public.alembic_version'), 'SELECT'), false) AS readable,
    obj_description(to_regclass('public.alembic_version'), 'pg_class') AS demand,
    ARRAY(SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relname <> 'alembic_version'
          AND NOT has_table_privilege(c.oid, 'SELECT')) AS closed
FROM pg_roles r WHERE r.rolname = current_user
""")
_REVISION = text("SELECT version_num FROM public.alembic_version")


@dataclass(frozen=True)
class PostgresState:
    """What one role finds."""

    version: int
    release: str
    role: str
    bypasses: bool
    owns: bool
    roles: tuple[str, ...]
    """Of the three roles, those that it is or is a member of."""
    pooled: bool
    free: int
    """Connections that the server could still take, about."""
    most: int
    revision: str | None
    """Of the schema; "" when the role may not read it, None when there is no schema."""
    needs: str
    """The oldest head whose code works with the schema, "" for any."""
    closed: tuple[str, ...]
    """Tables that it may not read."""
    place: str = ""

    def __str__(self) -> str:
        """Say it in a line, for `tessera doctor`."""
        through = " through a pooler," if self.pooled else ""
        return (
            f"{self.place} is {self.release},{through} role {self.role} is bound by row-level security,"
            f" schema {self.revision}, {self.free} of {self.most} connections free"
        )


async def check_postgres(database: Database, head: str) -> PostgresState:
    """Look at a server as one role, and refuse what the service cannot work with.

    Args:
        database: of the role.
        head: the newest revision that this release knows.

    Raises:
        Misconfigured: says setting, cause and mend.
        Unavailable: the server does not answer, or has no connection free.
    """
    try:
        found = await _look(database)
    except NoConnectionFree as error:
        raise Unavailable(f"{database.setting}: no connection is free.", code="database_unavailable") from error
    except DBAPIError as error:
        raise explained(error, database.setting, database.url) from error
    refuse(found, database.setting, place(database.url), head)
    return found


async def _look(database: Database) -> PostgresState:
    async with database.engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        row = (await connection.execute(_LOOK)).one()
        revision: str | None = "" if row.migrated else None
        if row.readable:
            revision = (await connection.execute(_REVISION)).scalar_one_or_none()
        return PostgresState(
            version=row.version,
            release=f"Postgres {row.release.split()[0]}",
            role=row.role,
            bypasses=row.bypasses,
            owns=row.owns,
            roles=tuple(row.roles),
            pooled=row.backend != raw.info.backend_pid,
            free=row.free,
            most=row.most,
            revision=revision,
            needs=json.loads(row.demand or "{}").get("needs", ""),
            closed=tuple(row.closed),
            place=place(database.url),
        )


def refuse(found: PostgresState, setting: str, server: str, head: str) -> None:
    """Raise `Misconfigured` for the first thing that the service cannot work with."""
    at = f"{setting}: the Postgres at {server}"
    if found.version < OLDEST:
        raise Misconfigured(f"{at} is {found.release}; at least {OLDEST // 10000} is needed: upgrade the server.")
    if found.bypasses or found.owns:
        why = "bypasses row-level security" if found.bypasses else "owns the tables"
        raise Misconfigured(
            f"{at} is reached by the role {found.role!r}, which {why}; use {ROLE_OF.get(setting, APP)!r}, which"
            " `tessera db init` makes."
        )
    wanted = ROLE_OF.get(setting)
    if wanted and wanted not in found.roles:
        raise Misconfigured(f"{at} is reached by the role {found.role!r}; {setting} is for the role {wanted!r}.")
    _refuse_schema(found, at, head)
    if found.closed:
        raise Misconfigured(
            f"{at} does not let the role {found.role!r} read {', '.join(found.closed[:3])}; `tessera db upgrade` grants"
            f" it to {APP} and {WORKER}."
        )


def _refuse_schema(found: PostgresState, at: str, head: str) -> None:
    """An older schema lacks what this release uses; a newer one lacks nothing, unless it says so."""
    if not found.revision or found.revision < head:
        version = {None: "no schema", "": f"a schema from before {head}"}.get(
            found.revision, f"the schema {found.revision}"
        )
        raise Misconfigured(
            f"{at} has {version}, and this release needs {head}: the schema is not migrated. Run `tessera db upgrade`.",
            code="schema_not_migrated",
        )
    if found.needs > head:
        raise Misconfigured(
            f"{at} has the schema {found.revision}, which no release before {found.needs} can use, and this one knows"
            f" {head}: run a newer release.",
            code="schema_too_new",
        )
