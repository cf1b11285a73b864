"""The connection to an OpenSearch server: time-outs, repeats, and what its errors mean.

The client of one process, used in one event loop. Every request of ours may be made twice: entries are written and
removed by ids and versions that we choose.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from opensearchpy import AsyncOpenSearch, NotFoundError
from opensearchpy import exceptions as refused

from shards.breaker import Breaker
from shards.settings import LexicalSettings
from tenants.errors import Unavailable

T = TypeVar("T")
_AGAIN = (429, 502, 503, 504)
"""The server is there and has no room, or a shard of it is not yet back: asked again a moment later."""
_PAUSES_S = (0.1, 0.2, 0.4, 0.8)
REFUSED = (401, 403)
_SERVER_ERROR = 500
_REFUSES = "The lexical index refuses the service: `tessera doctor` says why."
_KEEP_ALIVE = 8
_INDEX_LACKS = ("index_not_found_exception", "resource_not_found_exception", "aliases_not_found_exception")
# It logs each request that fails; what matters is raised here.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)


class MissingIndex(Exception):
    """There is no such index or alias on the server."""


class OpenSearchServer:
    """One server or cluster behind one address."""

    def __init__(self, settings: LexicalSettings) -> None:
        self._timeout_s = settings.timeout_s
        self._breaker = Breaker(settings.timeout_s)
        self._options = _options(settings)
        self._client: AsyncOpenSearch | None = None

    async def call(self, work: Callable[[AsyncOpenSearch], Awaitable[T]]) -> T:
        """Do one request, again a few times where the server has no room for it at the moment.

        Raises:
            MissingIndex: it names an index that is not there.
            Unavailable: the server does not answer in time, did not a moment ago, fails, refuses the login, or keeps
                nothing under the number that it gave out (a snapshot whose time is over).
        """
        if not self._breaker.admits():
            raise away()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._asked(work)
        except (TimeoutError, refused.OpenSearchException, OSError) as error:
            translated = _translated(error)
            if _status(error) is None:
                self._breaker.failed(time.monotonic() - began)
            else:
                self._breaker.answered()
            raise translated from error
        self._breaker.answered()
        return answer

    async def client(self) -> AsyncOpenSearch:
        """Return the client itself: for a check, which wants to see errors as they are."""
        if self._client is None:
            self._client = AsyncOpenSearch(**self._options)
        return self._client

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _asked(self, work: Callable[[AsyncOpenSearch], Awaitable[T]]) -> T:
        client = await self.client()
        try:
            return await work(client)
        except refused.ConnectionError as error:
            if isinstance(error, refused.ConnectionTimeout | refused.SSLError):
                raise  # else a connection that was kept has died meanwhile: a new one may do
        except refused.TransportError as error:
            if _status(error) not in _AGAIN:
                raise
        for pause in _PAUSES_S:
            try:
                return await work(client)
            except refused.TransportError as error:
                if _status(error) not in _AGAIN:
                    raise
            await asyncio.sleep(pause)
        return await work(client)


def whole(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer that every shard gave in time.

    A shard that no node has at the moment is none of the failed: it is missing from the successful.

    Raises:
        Unavailable: one did not, so that hits may be missing from it.
    """
    shards = answer.get("_shards", {})
    if answer.get("timed_out") or shards.get("failed") or shards.get("successful", 0) < shards.get("total", 0):
        raise away("Not every shard of the lexical index answers.")
    return answer


def away(why: str = "The lexical index does not answer.") -> Unavailable:
    """Return what is raised while the server is of no use."""
    return Unavailable(why, code="lexical_unavailable")


def blocked(kind: object) -> Unavailable | None:
    """Return what is raised for an error of this type where the server takes nothing new, None for other types."""
    if "block_exception" not in str(kind):
        return None
    return away("The lexical index takes nothing new: its server is blocked, as it is when its disk is nearly full.")


def _options(settings: LexicalSettings) -> dict[str, Any]:
    secret = settings.password.get_secret_value()
    options: dict[str, Any] = {
        "hosts": [settings.url],
        "timeout": settings.timeout_s,
        "max_retries": 0,  # `call` decides
        "pool_maxsize": _KEEP_ALIVE,
        "http_compress": False,
    }
    if settings.user:
        # The client writes the bytes of Latin-1, and the server reads UTF-8.
        options["http_auth"] = f"{settings.user}:{secret}".encode().decode("latin-1")
    if settings.url.startswith("https:"):
        options |= {"use_ssl": True, "verify_certs": True, "ca_certs": str(settings.ca) if settings.ca else None}
    return options


def _status(error: BaseException) -> int | None:
    status = error.status_code if isinstance(error, refused.TransportError) else None
    return status if isinstance(status, int) else None


def _translated(error: Any) -> BaseException:
    """Return what to raise for an error of the client or the server."""
    status = _status(error)
    if isinstance(error, NotFoundError) and error.error in _INDEX_LACKS:
        return MissingIndex(str(error.info))
    if status is None or status in _AGAIN:
        return away()
    if status in REFUSED:
        return blocked(error.error) or away(_REFUSES)
    if status >= _SERVER_ERROR or isinstance(error, NotFoundError):
        return away("The lexical index could not do what it was asked for.")
    if isinstance(error, refused.RequestError) and "maximum shards open" in str(error.info):
        return away("The lexical index has no room for more shards: raise `cluster.max_shards_per_node`.")
    translated: BaseException = error
    return translated
