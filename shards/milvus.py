"""The vector store on Milvus: the same calls for Milvus Lite's server and for a Milvus cluster.

A cell is a partition, and every search names its partitions, so that a server looks at no other rows. Vectors have
length one and the metric is the inner product: that is the cosine, without dividing by the length again. The index type
is FLAT: a cell holds some hundreds of rows, below what a graph needs to pay, and exact search inside the cells leaves
the choice of cells as the only approximation.

The primary key is "<chunk id>:<cell>". Both servers accept one key in two partitions and then lose or double rows, so
a key never names two places.

The data path is pymilvus's asyncio client. Making a collection takes its blocking client in a thread: the asyncio one
waits for an index with a call that Milvus Lite lacks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import grpc  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from pymilvus import AsyncMilvusClient, MilvusClient, MilvusException
from pymilvus.client.types import Status

from shards.milvus_filter import LITE, ScopeFilter, versions_in
from shards.milvus_rows import (
    FIELDS,
    add_cells,
    cell_of,
    chunk_id_of,
    create,
    drop_cells,
    entity,
    key_of,
    partition_of,
    rows_of,
    sift,
)
from shards.names import COLLECTION, checked_collection
from shards.settings import MilvusSettings
from shards.vectors import MAX_CELLS, MAX_K, ChunkVector, MissingCollection, Scored, VersionScope
from tenants.errors import Unavailable

T = TypeVar("T")

_CONNECT_S = 2.0
_INSERT_ROWS = 1000
_DELETE_VERSIONS = 500
_KEYS = 5000
_NOT_LOADED = 101
_NO_COLLECTION = 100
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


class MilvusVectors:
    """`VectorStore` on a Milvus server. Used in one event loop; connects with the first call."""

    costs = LITE

    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._client: AsyncMilvusClient | None = None
        self._connecting = asyncio.Lock()
        self._writing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._cells: dict[str, set[int]] = {}

    async def create(self, collection: str, *, dim: int, cells: int) -> None:
        """See `VectorStore.create`."""
        name = checked_collection(collection)
        if not 1 <= cells <= MAX_CELLS:
            raise ValueError(f"{cells} cells, not 1..{MAX_CELLS}")
        async with self._writer(name):
            await self._blocking(name, lambda client: create(client, name, dim, range(cells)))
        self._cells[name] = set(range(cells))

    async def add_cells(self, collection: str, cells: Sequence[int]) -> None:
        """See `VectorStore.add_cells`."""
        name = checked_collection(collection)
        self._cells.pop(name, None)
        known = await self._call(name, lambda client: client.list_partitions(name))
        if len(known) - 1 + len(set(cells)) > MAX_CELLS:
            raise ValueError(f"{len(known) - 1} cells and {len(set(cells))} more, but at most {MAX_CELLS}")
        async with self._writer(name):
            await self._blocking(name, lambda client: add_cells(client, name, cells))

    async def drop_cells(self, collection: str, cells: Sequence[int]) -> None:
        """See `VectorStore.drop_cells`."""
        name = checked_collection(collection)
        self._cells.pop(name, None)
        async with self._writer(name):
            await self._blocking(name, lambda client: drop_cells(client, name, cells))

    async def insert(self, collection: str, cell_rows: Mapping[int, Sequence[ChunkVector]]) -> None:
        """See `VectorStore.insert`."""
        name = checked_collection(collection)
        await self._check_cells(name, cell_rows)
        async with self._writer(name):
            for cell, rows in cell_rows.items():
                for start in range(0, len(rows), _INSERT_ROWS):
                    data = [entity(row, cell) for row in rows[start : start + _INSERT_ROWS]]
                    await self._upsert(name, data, partition_of(cell))

    async def delete_versions(self, collection: str, versions: Sequence[int]) -> int:
        """See `VectorStore.delete_versions`."""
        name = checked_collection(collection)
        found = 0
        async with self._writer(name):
            for start in range(0, len(versions), _DELETE_VERSIONS):
                found += await self._delete(name, versions_in(versions[start : start + _DELETE_VERSIONS]))
        return found

    async def delete_chunks(self, collection: str, cell_chunks: Mapping[int, Sequence[UUID]]) -> None:
        """See `VectorStore.delete_chunks`."""
        name = checked_collection(collection)
        keys = [key_of(chunk_id, cell) for cell, chunk_ids in cell_chunks.items() for chunk_id in chunk_ids]
        async with self._writer(name):
            for start in range(0, len(keys), _INSERT_ROWS):
                some = keys[start : start + _INSERT_ROWS]
                # mypy does not infer a lambda with a default.
                await self._loaded(name, lambda client, ids=some: client.delete(name, ids=ids))  # type: ignore[misc]

    async def search(
        self,
        collection: str,
        vector: NDArray[np.float32],
        *,
        k: int,
        cells: Sequence[int] | None,
        scope: VersionScope | None,
    ) -> list[Scored]:
        """See `VectorStore.search`."""
        name = checked_collection(collection)
        if not 1 <= k <= MAX_K:
            raise ValueError(f"k is {k}, not 1..{MAX_K}")
        await self._check_cells(name, cells or ())
        if (cells is not None and not len(cells)) or (scope is not None and not len(scope.versions)):
            return []
        partitions = None if cells is None else [partition_of(cell) for cell in cells]
        if scope is None:
            return await self._sifted(name, vector, k, partitions)
        if scope.among:
            return sift(await self._hits(name, vector, min(max(scope.among, k), MAX_K), partitions, ""), scope)[:k]
        filtered = ScopeFilter(scope)
        fetch = filtered.first_fetch(k) if scope.among is None else None
        while fetch is not None:
            hits = await self._hits(name, vector, fetch, partitions, "")
            kept = sift(hits, scope)
            if len(kept) >= k or len(hits) < fetch:
                return kept[:k]
            fetch = filtered.next_fetch(k, fetch, len(kept))
        return await self._sifted(name, vector, k, partitions, filtered.expression())

    async def fetch(self, collection: str, cell_chunks: Mapping[int, Sequence[UUID]]) -> list[ChunkVector]:
        """See `VectorStore.fetch`."""
        name = checked_collection(collection)
        keys = [key_of(chunk_id, cell) for cell, chunk_ids in cell_chunks.items() for chunk_id in chunk_ids]
        found: list[ChunkVector] = []
        for start in range(0, len(keys), _INSERT_ROWS):
            some = keys[start : start + _INSERT_ROWS]
            found += rows_of(  # mypy: as in `delete_chunks`
                await self._loaded(name, lambda client, ids=some: client.get(name, ids=ids, output_fields=FIELDS))  # type: ignore[misc]
            )
        return found

    async def scan(
        self,
        collection: str,
        *,
        cells: Sequence[int] | None = None,
        versions: Sequence[int] | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[list[ChunkVector]]:
        """See `VectorStore.scan`."""
        name = checked_collection(collection)
        if cells is None:
            partitions = await self._call(name, lambda client: client.list_partitions(name))
        else:
            await self._check_cells(name, cells)
            partitions = [partition_of(cell) for cell in cells]
        for partition in partitions:
            async for page in self._pages(name, partition, versions, batch, FIELDS):
                yield rows_of(page)

    async def keys(self, collection: str, *, cells: Sequence[int]) -> AsyncIterator[list[UUID]]:
        """See `VectorStore.keys`."""
        name = checked_collection(collection)
        await self._check_cells(name, cells)
        for cell in cells:
            async for page in self._pages(name, partition_of(cell), None, _KEYS, ["row"]):
                yield [chunk_id_of(row["row"]) for row in page]

    async def _pages(
        self, name: str, partition: str, versions: Sequence[int] | None, batch: int, fields: list[str]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Stream a partition's rows. One partition: a server looks for the next page among all rows in scope."""
        last, among = "", "" if versions is None else f" and {versions_in(versions)}"
        while True:
            # `iterator` makes a server return the smallest keys first; without it a limit takes any rows. pymilvus
            # then sends no consistency level, so the collection's own holds.
            page = await self._loaded(
                name,
                lambda client, after=last: client.query(  # type: ignore[misc]
                    name,
                    filter=f'row > "{after}"{among}',
                    limit=batch,
                    output_fields=fields,
                    partition_names=[partition],
                    iterator="True",
                ),
            )
            if page:
                last = page[-1]["row"]
                yield page
            if len(page) < batch:
                return

    async def count(self, collection: str) -> int:
        """See `VectorStore.count`."""
        return await self._count(checked_collection(collection), "")

    async def drop(self, collection: str) -> bool:
        """See `VectorStore.drop`."""
        name = checked_collection(collection)
        self._cells.pop(name, None)
        async with self._writer(name):
            if not await self._call(name, lambda client: client.has_collection(name)):
                return False
            await self._call(name, lambda client: client.drop_collection(name))
        return True

    async def collections(self) -> list[str]:
        """See `VectorStore.collections`."""
        names: list[str] = await self._call("", lambda client: client.list_collections())
        return sorted(name for name in names if COLLECTION.fullmatch(name))

    async def ping(self) -> None:
        """See `VectorStore.ping`."""
        await self._call("", lambda client: client.get_server_version())

    async def aclose(self) -> None:
        """See `VectorStore.aclose`."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _sifted(
        self, name: str, vector: NDArray[np.float32], k: int, partitions: list[str] | None, expression: str = ""
    ) -> list[Scored]:
        """Return the best k distinct chunks; more hits are fetched only if a chunk lies in several of the cells."""
        fetch = k
        while True:
            hits = await self._hits(name, vector, fetch, partitions, expression)
            kept = sift(hits, None)
            if len(kept) >= k or len(hits) < fetch or fetch == MAX_K:
                return kept[:k]
            fetch = min(2 * fetch, MAX_K)

    async def _hits(
        self, name: str, vector: NDArray[np.float32], limit: int, partitions: list[str] | None, expression: str
    ) -> list[tuple[str, int, float]]:
        found = await self._loaded(
            name,
            lambda client: client.search(
                name,
                data=[np.asarray(vector, dtype=np.float32)],
                anns_field="vector",
                limit=limit,
                filter=expression,
                output_fields=["version_no"],
                partition_names=partitions,
                search_params={"metric_type": "IP"},
                consistency_level=self._settings.consistency,
            ),
        )
        return [(hit.id, hit["entity"]["version_no"], hit.distance) for hit in found[0]]

    async def _upsert(self, name: str, data: list[dict[str, Any]], partition: str) -> None:
        await self._loaded(name, lambda client: client.upsert(name, data, partition_name=partition))

    async def _delete(self, name: str, expression: str) -> int:
        found = await self._count(name, expression)
        if found:
            await self._loaded(name, lambda client: client.delete(name, filter=expression))
        return found

    async def _count(self, name: str, expression: str) -> int:
        found = await self._loaded(
            name,
            lambda client: client.query(
                name, filter=expression, output_fields=["count(*)"], consistency_level="Strong"
            ),
        )
        return int(found[0]["count(*)"])

    async def _check_cells(self, name: str, cells: Iterable[int]) -> None:
        """Refuse cells that are not there: Milvus Lite would answer with nothing, as if they were empty."""
        if self._cells.get(name, set()).issuperset(cells):
            return
        names = await self._call(name, lambda client: client.list_partitions(name))
        known = {cell for partition in names if (cell := cell_of(partition)) is not None}
        self._cells[name] = known
        if not known.issuperset(cells):
            raise ValueError(f"cells {sorted(set(cells) - known)} are not among the {len(known)} cells of {name}")

    def _writer(self, name: str) -> asyncio.Lock:
        return self._writing.setdefault(name, asyncio.Lock())

    async def _loaded(self, name: str, call: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        """Call; a collection that its server has not loaded since it started is loaded first."""
        try:
            return await self._call(name, call)
        except _NotLoadedError:
            await self._call(name, lambda client: client.load_collection(name))
            return await self._call(name, call)

    async def _call(self, name: str, call: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await call(await self._open())
        except (TimeoutError, grpc.RpcError, MilvusException) as error:
            raise self._translated(error, name) from error

    async def _open(self) -> AsyncMilvusClient:
        async with self._connecting:
            if self._client is None:
                client = AsyncMilvusClient(timeout=_CONNECT_S, **self._address())
                await client.__aenter__()
                self._client = client
            return self._client

    def _connected(self) -> MilvusClient:
        return MilvusClient(timeout=_CONNECT_S, **self._address())

    def _address(self) -> dict[str, Any]:
        token = self._settings.token.get_secret_value()
        return {"uri": self._settings.uri, "token": token, "dedicated": True, "grpc_options": _GRPC_OPTIONS}

    async def _blocking(self, name: str, work: Callable[[MilvusClient], T]) -> T:
        client = await self._in_thread(name, self._connected)
        try:
            return await self._in_thread(name, lambda: work(client))
        finally:
            await asyncio.to_thread(client.close)

    async def _in_thread(self, name: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except (grpc.RpcError, MilvusException) as error:
            raise self._translated(error, name) from error

    def _translated(self, error: Exception, name: str) -> Exception:
        """Return what to raise for an error of the client or the server."""
        code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
        if code == _NO_COLLECTION:
            self._cells.pop(name, None)
            return MissingCollection(f"there is no collection {name}")
        if code == _NOT_LOADED:
            return _NotLoadedError(name)
        if isinstance(error, TimeoutError) or code in _AWAY:
            return Unavailable("The vector store does not answer.", code="vectors_unavailable")
        return error


class _NotLoadedError(Exception):
    """The collection exists, but its server has not loaded it."""
