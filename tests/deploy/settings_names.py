"""The names of all settings, as an environment gives them."""

from __future__ import annotations

from pydantic import BaseModel

from service.settings import Settings

OF_THE_COMMAND_LINE = {"TESSERA_SUPERUSER_URL"}
"""Read by `tessera db init` alone."""
SECRETS = {
    "TESSERA_ADMIN_KEY",
    "TESSERA_DATABASE_OWNER_URL",
    "TESSERA_DATABASE_URL",
    "TESSERA_DATABASE_WORKER_URL",
    "TESSERA_GENERATION_API_KEY",
    "TESSERA_LEXICAL_PASSWORD",
    "TESSERA_MILVUS_TOKEN",
    "TESSERA_OBJECTS_SECRET_ACCESS_KEY",
    "TESSERA_REDIS_URL",
    "TESSERA_SECRET_PEPPER",
    "TESSERA_SECRET_SOURCES",
    "TESSERA_SUPERUSER_URL",
}
"""Settings that hold a password, a key, or an address with one."""


def settings_names() -> set[str]:
    """Return every name that the service or its command line reads."""
    found = set(OF_THE_COMMAND_LINE)
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {f"TESSERA_{name}_{inner}".upper() for inner in kind.model_fields}
        else:
            found.add(f"TESSERA_{name}".upper())
    return found
