"""Connections to Milvus: one client for each server and database, and what is known of the server.

The data path is pymilvus's asyncio client. Making a collection takes its blocking client in a thread: the asyncio one
waits for an index with a call that Milvus Lite lacks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc  # type: ignore[import-untyped]
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException

from shards.breaker import Breaker
from shards.milvus_errors import NotLoaded, Refused, away, translated
from shards.settings import MilvusServer, MilvusSettings
from shards.vectors import UNMARKED, MissingCollection
from tenants.errors import Misconfigured, NoRoom, Unavailable

log = logging.getLogger(__name__)
T = TypeVar("T")
Address = tuple[str, str]
"""A server by the name of its endpoint ('' is the main one), and a database of it ('' is its default)."""

_CONNECT_S = 2.0
LATEST: Mapping[str, Any] = {"consistency_level": "Strong"}
"""How whatever was written is seen: the server waits for its next time tick, 0.2 to 0.4 s."""
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


def seen_by(mark: int) -> Mapping[str, Any]:
    """Return how whatever was written before a mark is seen; without one what was written some seconds ago.

    A server compares the mark with the time up to which it knows all writes, and waits only if that is earlier.
    """
    if mark == UNMARKED:
        return {"consistency_level": "Bounded"}
    return {"consistency_level": "Customized", "guarantee_timestamp": mark}


@dataclass(frozen=True)
class Server:
    """What a server says of itself."""

    version: str

    @property
    def lite(self) -> bool:
        """Say whether it is Milvus Lite, which shows every write at once."""
        return self.version.startswith("milvus_lite")


class MilvusClients:
    """The clients of one process, used in one event loop; each connects with its first call."""

    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._clients: dict[Address, AsyncMilvusClient] = {}
        self._connecting = asyncio.Lock()
        self._breakers: dict[str, Breaker] = {}
        self._servers: dict[str, Server] = {}
        self._told: dict[str, str] = {}

    @property
    def endpoints(self) -> list[str]:
        """Return the names of the servers, the main one first."""
        return ["", *self._settings.endpoints]

    def has_databases(self, endpoint: str) -> bool:
        """Say whether isolated tenants have databases on a server, or it has its own alone."""
        server = self._settings.endpoints.get(endpoint) if endpoint else self._settings
        return server is None or server.databases > 0

    def server(self, endpoint: str) -> Server | None:
        """Return what a server said of itself, None before the first call."""
        return self._servers.get(endpoint)

    async def now(self, address: Address) -> int:
        """Return the server's time: whoever has seen what was written by then misses nothing that was acknowledged.
        Raises as `call` does."""
        await self.call(address, _nothing)
        server = self._servers[address[0]]
        return UNMARKED if server.lite else await self.call(address, _time)

    async def call(self, address: Address, call: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        """Call the asyncio client of a database.

        Raises:
            MissingCollection: there is no such collection or database.
            NotLoaded: the collection has to be loaded first.
            NoRoom: the server takes no more collections or databases.
            Unavailable: the server does not answer in time, or did not a moment ago.
        """
        breaker = self._breakers.setdefault(address[0], Breaker(self._settings.timeout_s))
        if not breaker.admits():
            raise away()
        began = time.monotonic()
        try:
            answer = await self._answer(address, call)
        except Unavailable:
            breaker.failed(time.monotonic() - began)
            raise
        except (MissingCollection, NotLoaded, NoRoom, grpc.RpcError, MilvusException):
            breaker.answered()
            raise
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
            # It may take long for one collection: that says nothing of the server, so the breaker does not hear of it.
            await self._answer(address, lambda client: client.load_collection(collection))
            spent = 1000 * (time.perf_counter() - began)
            return await self.call(address, call), spent

    async def blocking(self, address: Address, work: Callable[[MilvusClient, float], T]) -> T:
        """Do `work` with a blocking client in a thread, which nothing can end: so it gets the seconds that each of its
        calls may take. Raises as `call` does."""
        try:
            client = await asyncio.to_thread(lambda: MilvusClient(timeout=_CONNECT_S, **self._options(address)))
            try:
                return await asyncio.to_thread(lambda: work(client, self._settings.timeout_s))
            finally:
                await asyncio.to_thread(client.close)
        except (grpc.RpcError, MilvusException) as error:
            raise translated(error) from error

    async def forget(self, address: Address) -> None:
        """Close the client of a database that is gone."""
        client = self._clients.pop(address, None)
        if client is not None:
            await client.close()

    async def aclose(self) -> None:
        """Close every client."""
        for address in list(self._clients):
            await self.forget(address)

    async def _answer(self, address: Address, call: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await call(await self._open(address))
        except (TimeoutError, grpc.RpcError, MilvusException) as error:
            raised = translated(error)
            if isinstance(raised, Refused) and self._told.get(address[0]) != raised.why:
                self._told[address[0]] = raised.why  # once, for whoever operates it: callers are not told
                log.warning("the Milvus server %r cannot be used: %s", address[0] or "main", raised.why)
            raise raised from error
        self._told.pop(address[0], None)
        return answer

    async def _open(self, address: Address) -> AsyncMilvusClient:
        known = self._clients.get(address)
        if known is not None:
            return known
        async with self._connecting:
            if address not in self._clients:
                client = AsyncMilvusClient(timeout=_CONNECT_S, **self._options(address))
                await client.__aenter__()
                self._servers[address[0]] = Server(await client.get_server_version())
                self._clients[address] = client
            return self._clients[address]

    def _options(self, address: Address) -> dict[str, Any]:
        endpoint, database = address
        server = self._settings.endpoints.get(endpoint) if endpoint else self._settings
        if server is None:
            raise Misconfigured(
                f"An index lies on the Milvus server {endpoint!r}, which TESSERA_MILVUS_ENDPOINTS does not name."
            )
        named = database if server.databases else ""
        options = {"uri": server.uri, "token": server.token.get_secret_value(), "db_name": named}
        return {**options, **_tls(server), "dedicated": True, "grpc_options": _GRPC_OPTIONS}


def _tls(server: MilvusServer) -> dict[str, Any]:
    if server.client_cert is not None:
        files = {"client_pem_path": server.client_cert, "client_key_path": server.client_key, "ca_pem_path": server.ca}
    else:
        files = {"server_pem_path": server.ca}  # what pymilvus calls the server's is read as the authority's
    named = {name: str(path) for name, path in files.items() if path is not None}
    return {**named, "secure": server.uri.startswith("https://"), "server_name": server.server_name}


async def _nothing(_client: AsyncMilvusClient) -> None:
    """Be connected."""


async def _time(client: AsyncMilvusClient) -> int:
    # The client has the call, but nothing that makes it, beside its own use.
    handler = await client._get_connection()
    return int(await handler.alloc_timestamp())
