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
from tenants.roles import APP, OWNER, WORKER

OLDEST = 150000
"""`server_version_num` of the oldest server that is tested; before 15 everybody could create tables in `public`."""
ROLE_OF = {"TESSERA_DATABASE_URL": APP, "TESSERA_DATABASE_WORKER_URL": WORKER}
"""The policies of row-level security name these two: with the wrong one a process would see nothing, in silence."""
_TABLES = (
    "answer_quotes api_keys cell_changes cell_heat chunk_cells chunks conversations document_fields document_versions"
    " documents idempotent_answers index_generations index_use jobs message_citations messages micro_cells"
    " probe_samples source_clocks source_entries source_runs sources store_checks tenants"
)
WRITES: dict[str, dict[str, str]] = {
    WORKER: dict.fromkeys(("INSERT", "UPDATE", "DELETE"), _TABLES),
    APP: {
        "INSERT": "answer_quotes api_keys cell_heat conversations document_fields document_versions documents"
        " idempotent_answers index_use jobs message_citations messages probe_samples source_clocks source_runs sources"
        " tenants",
        "UPDATE": "api_keys cell_heat conversations document_versions documents idempotent_answers index_use jobs"
        " messages source_clocks source_runs sources tenants",
        "DELETE": "answer_quotes conversations document_fields idempotent_answers message_citations messages"
        " source_clocks source_entries source_runs sources",
    },
}
"""What each role must be able to write, by privilege: the tables, with blanks between. A table that a newer schema does
not have any more is nothing that is missing."""
_LOOK = text("""
SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS release,
    r.rolname AS role, r.rolsuper OR r.rolbypassrls AS bypasses,
    EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = 'public' AND c.relkind = 'r' AND pg_has_role(r.oid, c.relowner, 'MEMBER')) AS owns,
    ARRAY(SELECT m.rolname::text FROM pg_roles m
          WHERE m.rolname LIKE 'tessera\\_%' AND pg_has_role(r.oid, m.oid, 'MEMBER')) AS roles,
    pg_backend_pid() AS backend,
    pg_is_in_recovery() AS replica, current_setting('transaction_read_only')::boolean AS read_only,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL) AS free,
    current_setting('max_connections')::int AS most,
    to_regclass('public.alembic_version') IS NOT NULL AS migrated,
    coalesce(has_table_privilege(to_regclass('public.alembic_version'), 'SELECT'), false) AS readable,
    obj_description(to_regclass('public.alembic_version'), 'pg_class') AS demand,
    ARRAY(SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = 'public' AND c.relkind = 'r' AND c.relname <> 'alembic_version'
          AND NOT has_table_privilege(c.oid, 'SELECT')) AS closed,
    ARRAY(SELECT needed.privilege || ' on ' || needed.name
          FROM unnest(CAST(:privileges AS text[]), CAST(:names AS text[])) AS needed (privilege, name)
          WHERE NOT has_table_privilege(to_regclass('public.' || needed.name), needed.privilege)) AS denied,
    ARRAY(SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
          AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
          AND (c.relname = 'tenants' OR EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid
               AND a.attname = 'tenant_id' AND NOT a.attisdropped)) ORDER BY 1) AS unguarded
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
    denied: tuple[str, ...] = ()
    """What it may not write and has to, each as `INSERT on jobs`."""
    unguarded: tuple[str, ...] = ()
    """Tables of tenants' rows on which row-level security is not enabled and forced."""
    replica: bool = False
    read_only: bool = False
    """Whether its transactions may not write, by whatever default."""
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
    needed = [
        (privilege, name)
        for privilege, names in WRITES[ROLE_OF.get(database.setting, APP)].items()
        for name in names.split()
    ]
    asked = {"privileges": [privilege for privilege, _ in needed], "names": [name for _, name in needed]}
    async with database.engine.connect() as connection:
        raw: Any = (await connection.get_raw_connection()).driver_connection
        row = (await connection.execute(_LOOK, asked)).one()
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
            denied=tuple(row.denied),
            unguarded=tuple(row.unguarded),
            replica=row.replica,
            read_only=row.read_only,
            place=place(database.url),
        )


def refuse(found: PostgresState, setting: str, server: str, head: str) -> None:
    """Raise `Misconfigured` for the first thing that the service cannot work with."""
    at = f"{setting}: the Postgres at {server}"
    if found.version < OLDEST:
        raise Misconfigured(f"{at} is {found.release}; at least {OLDEST // 10000} is needed: upgrade the server.")
    if found.replica:
        raise Misconfigured(f"{at} is a replica and takes no writes. Give the address of the primary in {setting}.")
    if found.read_only:
        raise Misconfigured(
            f"{at} takes no writes: default_transaction_read_only is on for the role {found.role!r}, the database or"
            " the server; set it off there."
        )
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
            f"{at} does not let the role {found.role!r} read {', '.join(found.closed[:3])}; {OWNER} grants it:"
            f" GRANT SELECT ON {', '.join(found.closed)} TO {wanted or found.role}."
        )
    if found.denied:
        raise Misconfigured(
            f"{at} does not let the role {found.role!r} write ({', '.join(found.denied[:3])}); {OWNER} grants it:"
            f" GRANT {found.denied[0].replace(' on ', ' ON ')} TO {wanted or found.role}."
        )
    if found.unguarded:
        table = found.unguarded[0]
        raise Misconfigured(
            f"{at} does not keep tenants apart in {', '.join(found.unguarded[:3])}: row-level security is not enabled"
            f" and forced there. As {OWNER}: ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY."
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
