"""The three database roles: made once by whoever may create roles, used by everything afterwards.

`tessera_owner` owns the schema and runs migrations; `tessera_app` (API) and `tessera_worker` (workers, scheduler) own
nothing, so forced row-level security binds them. It takes no superuser: on a managed Postgres a role with CREATEROLE
and CREATEDB will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow

from tenants.engine import is_pooled
from tenants.errors import Misconfigured

OWNER, APP, WORKER = "tessera_owner", "tessera_app", "tessera_worker"
_LOCK_KEY = 7_223_019_553_202
_APP_DEFAULTS: dict[LiteralString, LiteralString] = {
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "10min",
}
"""A request waits no longer; workers take the time they need. Only set on a role that is made here."""
_LOCALES: Sequence[LiteralString] = (
    "LOCALE 'C.UTF-8'",
    "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",  # 17 and newer, wherever it runs
    "LOCALE 'C'",
)
"""The first that the server has: the same order everywhere, which no update of a library changes under the indexes."""
_NO_SUCH_LOCALE = (errors.WrongObjectType, errors.InvalidParameterValue, errors.SyntaxError)


@dataclass(frozen=True)
class RolePasswords:
    """Passwords of the three roles; None leaves that of a role that exists as it is, and makes one without."""

    owner: str | None
    app: str | None
    worker: str | None

    def of(self, role: str) -> str | None:
        """Return the password of a role by its name."""
        return {OWNER: self.owner, APP: self.app, WORKER: self.worker}[role]


def ensure_roles(
    superuser_conninfo: str,
    database: str,
    passwords: RolePasswords,
    *,
    locales: Sequence[LiteralString] = _LOCALES,
) -> list[str]:
    """Create the roles and the database, or set the passwords of those that exist. Idempotent, also two at once.

    Args:
        superuser_conninfo: libpq connection string of a role that may create roles and databases.
        database: name of the database, owned by `tessera_owner`.
        passwords: of the three roles.
        locales: what the database is made with; the first that the server has.

    Returns:
        What was done, a sentence each.

    Raises:
        Misconfigured: the role may not create roles and databases, or the address leads to a pooler.
        psycopg.OperationalError: the server cannot be reached, or refuses the login.
    """
    with psycopg.connect(superuser_conninfo, autocommit=True) as connection:
        if is_pooled(connection):
            raise Misconfigured("Roles are made at the server itself: give its address, not that of a pooler.")
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK_KEY,))
        try:
            said = [_ensure_role(connection, role, passwords.of(role)) for role in (OWNER, APP, WORKER)]
            with _as_owner(connection):
                return [*said, _ensure_database(connection, database, locales)]
        except errors.InsufficientPrivilege as error:
            raise Misconfigured(
                f"The role {connection.info.user!r} may not do this ({error.diag.message_primary}); it needs CREATEROLE"
                " and CREATEDB, and roles that exist already must be its own."
            ) from error


def existing_roles(superuser_conninfo: str) -> set[str]:
    """Return which of the three roles exist."""
    with psycopg.connect(superuser_conninfo, autocommit=True) as connection:
        return {role for role in (OWNER, APP, WORKER) if _exists(connection, role)}


def _exists(connection: Connection[TupleRow], role: str) -> bool:
    return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is not None


def _ensure_role(connection: Connection[TupleRow], role: str, password: str | None) -> str:
    name, word = sql.Identifier(role), sql.Literal(_verifier(connection, role, password))
    if not _exists(connection, role):
        # NOSUPERUSER and NOBYPASSRLS are the defaults; only a superuser may say them.
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN NOCREATEDB NOCREATEROLE PASSWORD {}").format(name, word))
        if role == APP:
            for parameter, value in _APP_DEFAULTS.items():
                connection.execute(
                    sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.Identifier(parameter), sql.Literal(value))
                )
        return f"role {role} made" if password else f"role {role} made, without a password"
    if _is_superuser(connection):
        connection.execute(sql.SQL("ALTER ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE").format(name))
    if password is None:
        return f"role {role} exists, its password stays"
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, word))
    return f"role {role} exists, its password is set"


def _verifier(connection: Connection[TupleRow], role: str, password: str | None) -> str | None:
    """Return what the server keeps of a password: a statement that is refused stands in its log as it was sent.

    SCRAM whatever the server's `password_encryption` says: it takes it and keeps it as it is.
    """
    if password is None:
        return None
    return connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()


def _is_superuser(connection: Connection[TupleRow]) -> bool:
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    return bool(row and row[0])


@contextmanager
def _as_owner(connection: Connection[TupleRow]) -> Iterator[None]:
    """Be a member of the owner for a while: what a superuser is anyway, and others need to make its database."""
    row = connection.execute("SELECT pg_has_role(current_user, %s, 'MEMBER')", (OWNER,)).fetchone()
    if row and row[0] and _may_be(connection):
        yield
        return
    grant = sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(OWNER))
    if connection.info.server_version >= 160000:  # whoever makes a role may grant it there, and is no member yet
        grant += sql.SQL(" WITH INHERIT TRUE, SET TRUE")
    connection.execute(grant)
    try:
        yield
    finally:
        connection.execute(sql.SQL("REVOKE {} FROM CURRENT_USER").format(sql.Identifier(OWNER)))


def _may_be(connection: Connection[TupleRow]) -> bool:
    """Whether membership lets this role make things in the owner's name: since 16 that is told apart."""
    if connection.info.server_version < 160000:
        return True
    row = connection.execute(
        "SELECT pg_has_role(current_user, %s, 'SET') AND pg_has_role(current_user, %s, 'USAGE')", (OWNER, OWNER)
    ).fetchone()
    return bool(row and row[0])


def _ensure_database(connection: Connection[TupleRow], database: str, locales: Sequence[LiteralString]) -> str:
    name = sql.Identifier(database)
    made = not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone()
    if made:
        _create_database(connection, database, locales)
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    connection.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(name, sql.Identifier(APP), sql.Identifier(WORKER))
    )
    return f"database {database} {'made' if made else 'exists'}"


def _create_database(connection: Connection[TupleRow], database: str, locales: Sequence[LiteralString]) -> None:
    making = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' {}")
    for locale in locales:
        try:
            connection.execute(making.format(sql.Identifier(database), sql.Identifier(OWNER), sql.SQL(locale)))
        except _NO_SUCH_LOCALE:
            if locale == locales[-1]:
                raise
        else:
            return
