"""The three database roles: made by a superuser once, used by everything afterwards.

`tessera_owner` owns the schema and runs migrations; `tessera_app` (API) and `tessera_worker` (workers, scheduler) own
nothing, so forced row-level security binds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

OWNER, APP, WORKER = "tessera_owner", "tessera_app", "tessera_worker"


@dataclass(frozen=True)
class RolePasswords:
    """Passwords of the three roles."""

    owner: str
    app: str
    worker: str


def ensure_roles(superuser_conninfo: str, database: str, passwords: RolePasswords) -> None:
    """Create the roles and the database, or set the passwords of those that exist. Idempotent.

    Args:
        superuser_conninfo: libpq connection string of a role that may create roles and databases.
        database: name of the database, owned by `tessera_owner`.
        passwords: of the three roles.
    """
    with psycopg.connect(superuser_conninfo, autocommit=True) as connection:
        for role, password in ((OWNER, passwords.owner), (APP, passwords.app), (WORKER, passwords.worker)):
            exists = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
            verb = sql.SQL("ALTER ROLE") if exists else sql.SQL("CREATE ROLE")
            connection.execute(
                sql.SQL("{} {} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD {}").format(
                    verb, sql.Identifier(role), sql.Literal(password)
                )
            )
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'").format(
                    sql.Identifier(database), sql.Identifier(OWNER)
                )
            )
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
        connection.execute(
            sql.SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(
                sql.Identifier(database), sql.Identifier(APP), sql.Identifier(WORKER)
            )
        )
