"""Connections to Milvus: one client for each server and database, and what its errors mean.

The data path is pymilvus's asyncio client. Making a collection takes its blocking client in a thread: the asyncio one
waits for an index with a call that Milvus Lite lacks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException
from pymilvus.client.types import Status

from shards.breaker import Breaker
from shards.settings import MilvusSettings
from shards.vectors import MissingCollection
from tenants.errors import Misconfigured, Unavailable

T = TypeVar("T")
Address = tuple[str, str]
"""A server by the name of its endpoint ('' is the main one), and a database of it ('' is its default)."""

_CONNECT_S = 2.0
_NOT_LOADED = 101
_NO_COLLECTION = 100
_NO_DATABASE = 800
_RATE_LIMITED = 8
_AWAY = (
    Status.CONNECT_FAILED,
    _RATE_LIMITED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)
_GRPC_OPTIONS = {
    # pymilvus pings an idle server every 10 s; Milvus Lite's server takes that for an attack and hangs up.
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_permit_without_calls": 0,
    # A new channel would share the failed one's connection and its waiting time, so that a server that is back is not
    # tried for a while.
    "grpc.use_local_subchannel_pool": 1,
    "grpc.max_reconnect_backoff_ms": 1000,
}
# It logs every error with its trace beside raising it; what matters is raised again here.
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)


class NotLoaded(Exception):
    """The collection exists, but its server has not loaded it."""


class MilvusClients:
    """The clients of one process, used in one event loop; each connects with its first call."""

    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._clients: dict[Address, AsyncMilvusClient] = {}
        self._connecting = asyncio.Lock()
        self._breakers: dict[str, Breaker] = {}

    @property
    def endpoints(self) -> list[str]:
        """Return the names of the servers, the main one first."""
        return ["", *self._settings.endpoints]

    async def call(self, address: Address, call: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        """Call the asyncio client of a database.

        Raises:
            MissingCollection: there is no such collection or database.
            NotLoaded: the collection has to be loaded first.
            Unavailable: the server does not answer in time, or did not a moment ago.
        """
        breaker = self._breakers.setdefault(address[0], Breaker(self._settings.timeout_s))
        if not breaker.admits():
            raise _away()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await call(await self._open(address))
        except (TimeoutError, grpc.RpcError, MilvusException) as error:
            translated = _translated(error)
            if isinstance(translated, Unavailable):
                breaker.failed(time.monotonic() - began)
            else:
                breaker.answered()
            raise translated from error
        breaker.answered()
        return answer

    async def loaded(
        self, address: Address, collection: str, call: Callable[[AsyncMilvusClient], Awaitable[T]]
    ) -> tuple[T, float | None]:
        """Call; load the collection first where the server asks for that. Return the milliseconds it took to load."""
        try:
            return await self.call(address, call), None
        except NotLoaded:
            began = time.perf_counter()
            await self.call(address, lambda client: client.load_collection(collection))
            spent = 1000 * (time.perf_counter() - began)
            return await self.call(address, call), spent

    async def blocking(self, address: Address, work: Callable[[MilvusClient], T]) -> T:
        """Do `work` with a blocking client in a thread. Raises as `call` does."""
        try:
            client = await asyncio.to_thread(lambda: MilvusClient(timeout=_CONNECT_S, **self._options(address)))
            try:
                return await asyncio.to_thread(lambda: work(client))
            finally:
                await asyncio.to_thread(client.close)
        except (grpc.RpcError, MilvusException) as error:
            raise _translated(error) from error

    async def forget(self, address: Address) -> None:
        """Close the client of a database that is gone."""
        client = self._clients.pop(address, None)
        if client is not None:
            await client.close()

    async def aclose(self) -> None:
        """Close every client."""
        for address in list(self._clients):
            await self.forget(address)

    async def _open(self, address: Address) -> AsyncMilvusClient:
        known = self._clients.get(address)
        if known is not None:
            return known
        async with self._connecting:
            if address not in self._clients:
                client = AsyncMilvusClient(timeout=_CONNECT_S, **self._options(address))
                await client.__aenter__()
                self._clients[address] = client
            return self._clients[address]

    def _options(self, address: Address) -> dict[str, Any]:
        endpoint, database = address
        server = self._settings.endpoints.get(endpoint) if endpoint else self._settings
        if server is None:
            raise Misconfigured(
                f"An index lies on the Milvus server {endpoint!r}, which TESSERA_MILVUS_ENDPOINTS does not name."
            )
        options = {"uri": server.uri, "token": server.token.get_secret_value(), "db_name": database}
        return {**options, "dedicated": True, "grpc_options": _GRPC_OPTIONS}


def _translated(error: Exception) -> Exception:
    """Return what to raise for an error of the client or the server."""
    code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
    if code in (_NO_COLLECTION, _NO_DATABASE) or _lite_lacks_database(error):
        return MissingCollection(str(getattr(error, "message", error)))
    if code == _NOT_LOADED:
        return NotLoaded(str(error))
    if isinstance(error, TimeoutError) or code in _AWAY:
        return _away()
    return error


def _away() -> Unavailable:
    return Unavailable("The vector store does not answer.", code="vectors_unavailable")


def _lite_lacks_database(error: Exception) -> bool:
    """Milvus Lite has no code of its own for it."""
    message = str(getattr(error, "message", ""))
    return message.startswith("database '") and message.endswith("' does not exist")
