"""The names of all settings, as an environment gives them, and which of them are secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from pydantic import BaseModel, SecretStr

from service.cli.settings import ClientSettings, InitSettings, MilvusInitSettings
from service.settings import Settings

PLAIN_ADDRESSES = {
    "TESSERA_GENERATION_BASE_URL",
    "TESSERA_LEXICAL_URL",
    "TESSERA_OBJECTS_URL",
    "TESSERA_SEARCH_RERANK_URL",
    "TESSERA_URL",
}
"""Addresses whose login is a setting of its own. Any other address may hold one, and is a secret."""


def _fields(settings: type[BaseModel]) -> Iterator[tuple[str, object]]:
    for name, field in settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from ((f"{name}_{inner}", one.annotation) for inner, one in kind.model_fields.items())
        else:
            yield name, kind


def _named(settings: type[BaseModel]) -> dict[str, object]:
    return {f"TESSERA_{name}".upper(): kind for name, kind in _fields(settings)}


def _holds_secret(kind: object) -> bool:
    """Say whether a value is a secret or has one in it, as JSON has that declares servers with their keys."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return any(_holds_secret(field.annotation) for field in kind.model_fields.values())
    return kind is SecretStr or any(map(_holds_secret, get_args(kind)))


_OF_THE_SERVICE = _named(Settings)
_EVERY = {**_OF_THE_SERVICE, **_named(ClientSettings), **_named(InitSettings), **_named(MilvusInitSettings)}
OF_THE_COMMAND_LINE = set(_EVERY) - set(_OF_THE_SERVICE)
"""Read by `tessera` alone."""
SECRETS = {
    name
    for name, kind in _EVERY.items()
    if _holds_secret(kind) or (name.endswith("_URL") and name not in PLAIN_ADDRESSES)
}
"""Settings that hold a password, a key, or an address with one."""


def settings_names() -> set[str]:
    """Return every name that the service or its command line reads."""
    return set(_EVERY)
