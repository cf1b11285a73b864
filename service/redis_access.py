"""How processes reach Redis: the addresses of broker and cache, TLS, and what every key begins with.

The broker carries messages, whose loss costs seconds; the cache carries what nobody misses. Both may be one server.
Neither may be a Redis Cluster: a message and its index would lie in different slots.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis import asyncio as aio

from tenants.settings import RedisSettings

TIMEOUT_S = 3.0


@dataclass(frozen=True)
class RedisAddress:
    """One Redis as settings name it."""

    setting: str
    url: str = field(repr=False)
    ca_file: str = ""
    prefix: str = "tessera"

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted, and the server's certificate checked."""
        return urlsplit(self.url).scheme == "rediss"

    @property
    def host(self) -> str:
        """Name and port of the server."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or 6379}"

    @property
    def place(self) -> str:
        """Where it is, without its secrets."""
        return f"{self.host}{urlsplit(self.url).path}"

    def key(self, name: str) -> str:
        """Return the name that a key of this installation has."""
        return f"{self.prefix}:{name}"


def broker_address(settings: RedisSettings) -> RedisAddress:
    """Return where messages and wake-up calls go."""
    return RedisAddress("TESSERA_REDIS_URL", settings.url, settings.ca_file, settings.prefix)


def cache_address(settings: RedisSettings) -> RedisAddress:
    """Return where signs of life go, and whatever else may be lost: a server of its own, or the broker's."""
    if not settings.cache_url:
        return broker_address(settings)
    return RedisAddress("TESSERA_REDIS_CACHE_URL", settings.cache_url, settings.ca_file, settings.prefix)


def connected(address: RedisAddress, timeout_s: float = TIMEOUT_S) -> Redis:
    """Return a client that connects when it is used."""
    return Redis.from_url(address.url, **_options(address, timeout_s))


def connected_async(address: RedisAddress, timeout_s: float = TIMEOUT_S) -> aio.Redis:
    """Return a client for asyncio that connects when it is used."""
    return aio.Redis.from_url(address.url, **_options(address, timeout_s))


def celery_tls(address: RedisAddress) -> dict[str, Any] | None:
    """Return Celery's `broker_use_ssl`, None without TLS."""
    if not address.tls:
        return None
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": address.ca_file or None}


def _options(address: RedisAddress, timeout_s: float) -> dict[str, Any]:
    options: dict[str, Any] = {"socket_timeout": timeout_s, "socket_connect_timeout": TIMEOUT_S}
    if address.tls and address.ca_file:
        options["ssl_ca_certs"] = address.ca_file
    return options
