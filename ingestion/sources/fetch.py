"""Fetches over HTTP what a tenant named: through the guard, with bounds on redirects, bytes and time.

Bytes are counted as they are unpacked, a little at a time, so that a compression bomb costs no more than its bound.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import httpcore
import httpx

from ingestion.sources.entries import Validators, too_large
from ingestion.sources.guard import GuardedNetwork, Lookup, check_url, host_of, look_up, refused
from ingestion.sources.inflate import decoder
from ingestion.sources.settings import SourceSettings
from tenants.errors import SourceFailed, SourceUnavailable

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CONDITIONS = frozenset({"If-None-Match", "If-Modified-Since"})
_MAX_VALIDATOR = 1024


@dataclass(frozen=True)
class Fetched:
    """An answer whose body is in the file that was given. `fresh` is false for 304: the file is untouched."""

    url: str
    fresh: bool
    media_type: str
    size: int
    sha256: bytes
    validators: Validators


class Fetcher:
    """The connections of one run; counts what it fetches.

    Every method raises `SourceFailed`, or `SourceUnavailable` where another try can help.
    """

    def __init__(self, settings: SourceSettings, *, lookup: Lookup = look_up) -> None:
        self._settings, self._rules = settings, settings.rules
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=settings.fetches_at_once,
            network_backend=GuardedNetwork(self._rules, lookup),
        )
        self.fetched_bytes = 0

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def get(
        self,
        url: str,
        target: BinaryIO,
        *,
        max_bytes: int,
        known: Validators | None = None,
        accept: str = "*/*",
    ) -> Fetched:
        """Fetch an address into `target`, asking whether it has changed when validators are known.

        Of an answer that is too large, the first `max_bytes` are in `target` when the error is raised.
        """
        headers = {"Accept": accept, **(known.headers if known is not None else {})}
        seen: set[str] = set()
        async with self._in_time(url):
            for _ in range(MAX_REDIRECTS + 1):
                if url in seen:
                    break
                seen.add(url)
                found = await self._once("GET", url, headers, None, target, max_bytes)
                if isinstance(found, Fetched):
                    return found
                url = found
        raise SourceFailed(f"{url} redirects in a loop or too often.", code="source_redirect_loop")

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], target: BinaryIO, *, max_bytes: int) -> str:
        """Send a body and write the answer to `target`; return its media type. Redirects are refused."""
        async with self._in_time(url):
            found = await self._once("POST", url, headers, body, target, max_bytes)
        if not isinstance(found, Fetched):
            raise SourceFailed(f"{url} redirects, which is not followed here.", code="source_redirect_loop")
        return found.media_type

    async def get_here(self, url: str, headers: Mapping[str, str], target: BinaryIO, *, max_bytes: int) -> str:
        """Fetch an address without following redirects; return the media type."""
        async with self._in_time(url):
            found = await self._once("GET", url, headers, None, target, max_bytes)
        if not isinstance(found, Fetched):
            raise SourceFailed(f"{url} redirects, which is not followed here.", code="source_redirect_loop")
        return found.media_type

    def _in_time(self, url: str) -> AbstractAsyncContextManager[None]:
        return _in_time(url, self._settings.total_timeout_s)

    async def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, target: BinaryIO, max_bytes: int
    ) -> Fetched | str:
        """Send one request; return the answer, or where it redirects to."""
        parts = check_url(url, self._rules)
        pause = self._settings.connect_timeout_s
        sent = {"User-Agent": self._settings.user_agent, "Accept-Encoding": "gzip, deflate", **headers}
        timeout = {"connect": pause, "read": pause, "write": pause, "pool": self._settings.total_timeout_s}
        try:
            async with self._pool.stream(
                method, _wire_url(parts), headers=list(sent.items()), content=body, extensions={"timeout": timeout}
            ) as response:
                shown = httpx.Headers(response.headers)
                if response.status in _REDIRECTS and "location" in shown:
                    return _redirected(url, shown["location"])
                if response.status == 304 and not _CONDITIONS.isdisjoint(headers):
                    return Fetched(url, False, "", 0, b"", Validators())
                _require_success(url, response.status)
                return await self._body(url, shown, response.aiter_stream(), target, max_bytes)
        except httpcore.TimeoutException as error:
            raise SourceUnavailable(f"{url} did not answer in time.", code="source_timeout") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError) as error:
            reason = str(error) or type(error).__name__
            raise SourceUnavailable(f"{url} cannot be reached: {reason[:200]}.", code="source_unreachable") from error

    async def _body(
        self, url: str, headers: httpx.Headers, blocks: AsyncIterator[bytes], target: BinaryIO, max_bytes: int
    ) -> Fetched:
        digest, size = hashlib.sha256(), 0
        target.seek(0)
        target.truncate()
        unpacked = decoder(url, headers.get("content-encoding", ""))
        async for block in blocks:
            for piece in unpacked.pieces(block):
                size += len(piece)
                self.fetched_bytes += len(piece)
                if size > max_bytes:
                    await asyncio.to_thread(target.write, piece[: max_bytes - size])
                    target.seek(0)
                    raise too_large(url, max_bytes)
                if self.fetched_bytes > self._settings.max_run_bytes:
                    most = self._settings.max_run_bytes
                    raise SourceFailed(f"The run would fetch more than {most:,} bytes.", code="source_too_large")
                digest.update(piece)
                await asyncio.to_thread(target.write, piece)
        unpacked.end()
        target.seek(0)
        validators = Validators(_bounded(headers.get("etag")), _bounded(headers.get("last-modified")))
        media_type = headers.get("content-type", "")[:255]
        return Fetched(url, True, media_type, size, digest.digest(), validators)


@asynccontextmanager
async def _in_time(url: str, seconds: float) -> AsyncIterator[None]:
    """Bound the time of an answer, redirects included."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise SourceUnavailable(f"{url} took too long to answer.", code="source_timeout") from error


def _redirected(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise refused(target, f"{url} redirects to it, and it is not an address") from error


def _wire_url(parts: SplitResult) -> httpcore.URL:
    """Return the address as it is sent: the host as it was checked, the path percent-encoded where need be."""
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]") if parts.query else ""
    return httpcore.URL(
        scheme=parts.scheme.encode(), host=host_of(parts).encode(), port=parts.port, target=(path + query).encode()
    )


def _require_success(url: str, status: int) -> None:
    if status in (404, 410):
        raise SourceFailed(f"{url} is not there: the server answered {status}.", code="source_not_found")
    if status in (401, 403, 407):
        raise SourceFailed(f"{url} may not be read: the server answered {status}.", code="source_forbidden")
    if status == 429:
        raise SourceUnavailable(f"{url} asks to wait: the server answered 429.", code="source_busy")
    if status >= 500:
        raise SourceUnavailable(f"{url} failed: the server answered {status}.", code="source_error")
    if status != 200:
        raise SourceFailed(f"{url} cannot be read: the server answered {status}.", code="source_error")


def _bounded(value: str | None) -> str | None:
    return value if value is not None and len(value) <= _MAX_VALIDATOR else None


def is_address(url: str) -> bool:
    """Whether an address can be taken apart; one that cannot is refused wherever it is fetched."""
    try:
        urlsplit(url)
    except ValueError:
        return False
    return True


def same_site(one: str, other: str) -> bool:
    """Whether two addresses have the same host and port, `www.` or not."""
    return _site(one) == _site(other)


def _site(url: str) -> str:
    return urlsplit(url).netloc.lower().removeprefix("www.")


def filename_of(url: str, default: str) -> str:
    """Return the last part of an address's path."""
    return urlsplit(url).path.rsplit("/", 1)[-1][:200] or default
