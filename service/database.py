"""Make a Postgres ready for Tessera: roles, database, newest schema."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

import psycopg
from sqlalchemy import URL

from migrations.run import upgrade
from tenants.engine import engine_url, place
from tenants.errors import Misconfigured
from tenants.roles import APP, OWNER, WORKER, RolePasswords, ensure_roles, existing_roles
from tenants.settings import DatabaseSettings

DATABASE = "tessera"
SUPERUSER_SETTING = "TESSERA_SUPERUSER_URL"
_SETTINGS = {
    APP: "TESSERA_DATABASE_URL",
    WORKER: "TESSERA_DATABASE_WORKER_URL",
    OWNER: "TESSERA_DATABASE_OWNER_URL",
}


@dataclass(frozen=True)
class Initialised:
    """What `initialise` did."""

    done: list[str]
    exports: dict[str, str] = field(repr=False)
    """The settings with passwords that were made here, by name: they are kept nowhere else."""


def prepare(superuser_url: str, passwords: RolePasswords, database: str = DATABASE) -> None:
    """Create roles and database and run the migrations as the owner. Idempotent.

    Args:
        superuser_url: of a superuser on the server's maintenance database.
        passwords: of the three roles.
        database: its name.
    """
    server = engine_url(superuser_url, SUPERUSER_SETTING)
    ensure_roles(libpq_url(server), database, passwords)
    upgrade(_with(server, OWNER, passwords.owner or "", database))


def initialise(superuser_url: str, settings: DatabaseSettings, database: str = "") -> Initialised:
    """Create roles and database, with the passwords in the URLs of the settings; make those that are missing.

    A role that exists keeps its password when its URL is not given or has none (it logs in by a certificate,
    .pgpass, or a cloud's token). Idempotent.

    Args:
        superuser_url: of a role that may create roles and databases, on the server's maintenance database.
        settings: their URLs are what the service is going to use.
        database: its name; by default that in the URLs.

    Raises:
        Misconfigured: a URL is wrong, its role is not the one that it is for, or the login is refused.
    """
    server = engine_url(superuser_url, SUPERUSER_SETTING)
    given = {
        role: engine_url(url, _SETTINGS[role])
        for role, url in ((APP, settings.url), (WORKER, settings.worker_url), (OWNER, settings.owner_url))
        if url
    }
    for role, url in given.items():
        if url.username != role:
            raise Misconfigured(f"{_SETTINGS[role]} is for the role {role}, and names {url.username!r}.")
    names = {str(url.database) for url in given.values()} | ({database} if database else set())
    if len(names) > 1:
        raise Misconfigured(f"The settings name several databases: {', '.join(sorted(names))}.")
    name = next(iter(names), DATABASE)
    try:
        missing = set(_SETTINGS) - existing_roles(libpq_url(server)) - set(given)
        words = {role: str(url.password) for role, url in given.items() if url.password}
        words |= {role: secrets.token_hex(24) for role in missing}
        passwords = RolePasswords(words.get(OWNER), words.get(APP), words.get(WORKER))
        done = ensure_roles(libpq_url(server), name, passwords)
    except psycopg.OperationalError as error:
        why = str(error).rpartition("failed: ")[2].strip()
        raise Misconfigured(f"{SUPERUSER_SETTING} ({place(server)}): {why}.") from error
    return Initialised(done, {_SETTINGS[role]: _with(server, role, words[role], name) for role in sorted(missing)})


def libpq_url(url: URL) -> str:
    """Return an address as libpq reads it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _with(server: URL, role: str, password: str, database: str) -> str:
    """Return the URL of a role on the same server, reached in the same way (TLS and all)."""
    return server.set(username=role, password=password, database=database).render_as_string(hide_password=False)
