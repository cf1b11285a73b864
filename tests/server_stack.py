"""The stack of a test session on the real servers: the settings that `make up SERVERS=1` has, less generation.

What generates there has random weights, so what tests say of answers would not hold; the suites of rag/answer ask it.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from service.database import prepare
from tenants.roles import RolePasswords
from tests.servers import addresses, server, settings

NOT_OURS = ("TESSERA_DATA_DIR", "TESSERA_SERVERS_DIR", "TESSERA_GENERATION_BASE_URLS", "TESSERA_GENERATION_MODEL")
DATABASES = {
    "app": "TESSERA_DATABASE_URL",
    "worker": "TESSERA_DATABASE_WORKER_URL",
    "owner": "TESSERA_DATABASE_OWNER_URL",
}


def roles() -> dict[str, str]:
    """Return the passwords of the roles app, worker and owner on the server."""
    return {role: urlsplit(settings()[name]).password or "" for role, name in DATABASES.items()}


def make_database(name: str) -> dict[str, str]:
    """Make a migrated database; return its URLs by role, `superuser` too. App and worker go through the pooler."""
    known = roles()
    direct = server("postgres15")["superuser_url"]
    prepare(direct, RolePasswords(owner=known["owner"], app=known["app"], worker=known["worker"]), name)
    urls = {role: _with_path(settings()[setting], name) for role, setting in DATABASES.items()}
    return {**urls, "superuser": _with_path(direct.replace("postgresql:", "postgresql+psycopg:", 1), name)}


def stack_settings() -> dict[str, str]:
    """Return the settings of a new stack on the servers, with names of its own on each; {} without servers."""
    if not addresses():
        return {}
    name = f"stack_{secrets.token_hex(4)}"
    urls = make_database(name)
    own = {setting: urls[role] for role, setting in DATABASES.items()}
    own |= {"TESSERA_OBJECTS_URL": f"{server('s3')['url']}/{name}"} if "s3" in addresses() else {}
    own["TESSERA_REDIS_PREFIX"] = name
    own["TESSERA_LEXICAL_PREFIX"] = f"{name}-"
    return {key: value for key, value in (settings() | own).items() if key not in NOT_OURS}


def _with_path(url: str, database: str) -> str:
    return urlsplit(url)._replace(path=f"/{database}").geturl()
