"""Is a server ready? Each probe speaks the first words of the server's own protocol, with the standard library alone.

The supervisor stays small (no client library is imported) and a port that is merely open does not count as ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

TIMEOUT_S = 3.0
HTTP2_SETTINGS = 4
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, HTTP2_SETTINGS, 0, 0, 0, 0, 0])


class Probe(Protocol):
    """One question to one server."""

    async def ready(self) -> bool:
        """Say whether it answers as a ready server does. Raises OSError or TimeoutError when it cannot be reached."""
        ...


@contextlib.asynccontextmanager
async def connection(
    host: str, port: int, *, tls: bool = False, alpn: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a TCP connection and close it without waiting for the other side."""
    context = ssl.create_default_context() if tls else None
    if context and alpn:
        context.set_alpn_protocols([alpn])
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@dataclass(frozen=True)
class PostgresProbe:
    """Ready when it asks for a password; it answers with an error while it starts or recovers (PostgreSQL, 54.2.1)."""

    host: str
    port: int
    user: str = "tessera_probe"
    """Postgres asks a role for its password before it knows whether there is one; a pooler looks first."""

    async def ready(self) -> bool:
        """Send a start-up message and look at the first byte of the answer."""
        body = struct.pack("!i", 196608) + b"user\0%s\0database\0postgres\0\0" % self.user.encode("ascii")
        async with connection(self.host, self.port) as (reader, writer):
            writer.write(struct.pack("!i", len(body) + 4) + body)
            return await reader.read(1) == b"R"


@dataclass(frozen=True)
class RedisProbe:
    """Ready when PING gives PONG (not while it loads)."""

    url: str = field(repr=False)

    async def ready(self) -> bool:
        """Log in, choose the database, ask."""
        parts = urlsplit(self.url)
        commands = [["PING"]]
        if parts.path.strip("/"):
            commands.insert(0, ["SELECT", parts.path.strip("/")])
        if parts.password:
            login = [unquote(parts.username)] if parts.username else []
            commands.insert(0, ["AUTH", *login, unquote(parts.password)])
        host, port = parts.hostname or "127.0.0.1", parts.port or 6379
        async with connection(host, port) as (reader, writer):
            writer.write(b"".join(map(resp, commands)))
            answers = [await reader.readline() for _ in commands]
        return answers[-1].strip() == b"+PONG"


def resp(words: list[str]) -> bytes:
    """Encode one command as Redis expects it (RESP2)."""
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


@dataclass(frozen=True)
class FileProbe:
    """Ready while a file is young that the process touches as long as it answers, whatever else is away."""

    path: Path
    oldest_s: float = 10.0

    async def ready(self) -> bool:
        """Look at its age."""
        return time.time() - self.path.stat().st_mtime < self.oldest_s

    def forget(self) -> None:
        """Remove it, so that a predecessor's sign of life does not count for its successor."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class GrpcProbe:
    """Ready when the server answers the HTTP/2 preface with its settings (RFC 9113, 3.4)."""

    host: str
    port: int
    tls: bool = False

    async def ready(self) -> bool:
        """Send preface and empty settings; the first frame back must be settings."""
        async with connection(self.host, self.port, tls=self.tls, alpn="h2") as (reader, writer):
            writer.write(HTTP2_PREFACE)
            frame = await reader.readexactly(9)
            return frame[3] == HTTP2_SETTINGS


@dataclass(frozen=True)
class HttpProbe:
    """Ready when GET gives 200, or another status that says as much."""

    host: str
    port: int
    path: str = "/readyz"
    status: int = 200

    async def ready(self) -> bool:
        """Look at the status line only."""
        async with connection(self.host, self.port) as (reader, writer):
            request = f"GET {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode("ascii"))
            return (await reader.readline()).split()[1:2] == [b"%d" % self.status]


async def is_ready(probe: Probe) -> bool:
    """Ask once; a server that cannot be reached, hangs up or takes over three seconds is not ready."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await probe.ready()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return False
