"""Make a Postgres ready for Tessera: roles, database, newest schema."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL

from migrations.run import upgrade
from tenants.roles import OWNER, RolePasswords, ensure_roles

DATABASE = "tessera"


def prepare(superuser_conninfo: str, passwords: RolePasswords, database: str = DATABASE) -> None:
    """Create roles and database and run the migrations as the owner. Idempotent.

    Args:
        superuser_conninfo: libpq string or URL of a superuser on the server's maintenance database.
        passwords: of the three roles.
        database: its name.
    """
    ensure_roles(superuser_conninfo, database, passwords)
    parts = conninfo_to_dict(superuser_conninfo)
    upgrade(role_url(str(parts["host"]), int(str(parts["port"])), OWNER, passwords.owner, database))


def role_url(host: str, port: int, role: str, password: str, database: str = DATABASE) -> str:
    """Return the SQLAlchemy URL of one role on Tessera's database."""
    url = URL.create("postgresql+psycopg", role, password, host, port, database)
    return url.render_as_string(hide_password=False)
