"""The vector store on Milvus: the same calls for Milvus Lite's server and for a Milvus cluster.

A cell is a partition, and every search names its partitions, so that a server looks at no other rows. Vectors have
length one and the metric is the inner product: that is the cosine, without dividing by the length again. The index type
is FLAT: a cell holds some hundreds of rows, below what a graph needs to pay, and exact search inside the cells leaves
the choice of cells as the only approximation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from pymilvus import AsyncMilvusClient

from shards.milvus_check import check_servers
from shards.milvus_clients import LATEST, Address, MilvusClients, seen_by
from shards.milvus_filter import ScopeFilter, costs_of, versions_in
from shards.milvus_inventory import MilvusInventory, address_of
from shards.milvus_rows import (
    FIELDS,
    add_cells,
    chunk_id_of,
    create,
    drop_cells,
    entity,
    keys_of,
    partitions_of,
    rows_of,
    sift,
    within,
)
from shards.names import Space
from shards.settings import MilvusServer, MilvusSettings
from shards.vectors import (
    MAX_CELLS,
    MAX_K,
    UNMARKED,
    Budget,
    ChunkVector,
    EngineCosts,
    MissingCollection,
    Scored,
    VersionScope,
)

T = TypeVar("T")

_INSERT_ROWS = 1000
_DELETE_VERSIONS = 500
_KEYS = 5000


@dataclass(frozen=True, eq=False)
class _Asked:
    """What every round of one search has in common."""

    space: Space
    vector: NDArray[np.float32]
    partitions: list[str] | None
    mark: int


class MilvusVectors(MilvusInventory):
    """`VectorStore` on Milvus servers. Used in one event loop; connects with the first call."""

    def __init__(self, settings: MilvusSettings) -> None:
        self._settings = settings
        self._clients = MilvusClients(settings)
        self._writing: WeakValueDictionary[tuple[Address, str], asyncio.Lock] = WeakValueDictionary()
        self._partitions: dict[tuple[Address, str], set[str]] = {}
        servers: dict[str, MilvusServer] = {"": settings, **settings.endpoints}
        self.budgets: Mapping[str, Budget] = {
            # An endpoint without databases is one tenant's: its own database is that tenant's.
            name: Budget(server.partition_budget, server.databases or int(bool(name)))
            for name, server in servers.items()
        }
        self.on_wake: Callable[[Space, float], None] | None = None

    def costs(self, space: Space) -> EngineCosts:
        """See `VectorStore.costs`."""
        return costs_of(self._clients.server(space.endpoint))

    async def mark(self, space: Space) -> int:
        """See `VectorStore.mark`."""
        return await self._clients.now(_place(space)[0])

    async def create(self, space: Space, *, cells: int) -> None:
        """See `VectorStore.create`."""
        most = 1 if space.pooled else MAX_CELLS
        if not 1 <= cells <= most:
            raise ValueError(f"{cells} cells, not 1..{most}")
        self._partitions.pop(_place(space), None)
        async with self._writer(space):
            if space.database and self._clients.has_databases(space.endpoint):
                await self._make_database(space)
            await self._blocking(space, lambda client, timeout_s: create(client, timeout_s, space, range(cells)))

    async def add_cells(self, space: Space, cells: Sequence[int]) -> None:
        """See `VectorStore.add_cells`."""
        space.check_own()
        self._partitions.pop(_place(space), None)
        known = await self._call(space, lambda client: client.list_partitions(space.collection))
        if len(known) - 1 + len(set(cells)) > MAX_CELLS:
            raise ValueError(f"{len(known) - 1} cells and {len(set(cells))} more, but at most {MAX_CELLS}")
        async with self._writer(space):
            await self._blocking(space, lambda client, timeout_s: add_cells(client, timeout_s, space, cells))

    async def drop_cells(self, space: Space, cells: Sequence[int]) -> None:
        """See `VectorStore.drop_cells`."""
        space.check_own()
        self._partitions.pop(_place(space), None)
        async with self._writer(space):
            await self._blocking(space, lambda client, timeout_s: drop_cells(client, timeout_s, space, cells))

    async def insert(self, space: Space, cell_rows: Mapping[int, Sequence[ChunkVector]]) -> None:
        """See `VectorStore.insert`."""
        await self._check_cells(space, cell_rows)
        async with self._writer(space):
            for cell, rows in cell_rows.items():
                for start in range(0, len(rows), _INSERT_ROWS):
                    data = [entity(space, row, cell) for row in rows[start : start + _INSERT_ROWS]]
                    await self._upsert(space, data, space.partition(cell))

    async def delete_versions(self, space: Space, versions: Sequence[int]) -> int:
        """See `VectorStore.delete_versions`."""
        found = 0
        async with self._writer(space):
            for start in range(0, len(versions), _DELETE_VERSIONS):
                some = versions_in(versions[start : start + _DELETE_VERSIONS])
                found += await self._delete(space, within(space, some))
        return found

    async def count_versions(self, space: Space, versions: Sequence[int]) -> int:
        """See `VectorStore.count_versions`."""
        found = 0
        for start in range(0, len(versions), _DELETE_VERSIONS):
            some = versions_in(versions[start : start + _DELETE_VERSIONS])
            found += await self._count(space, within(space, some))
        return found

    async def delete_chunks(self, space: Space, cell_chunks: Mapping[int, Sequence[UUID]]) -> None:
        """See `VectorStore.delete_chunks`."""
        keys = keys_of(space, cell_chunks)
        async with self._writer(space):
            for start in range(0, len(keys), _INSERT_ROWS):
                some = keys[start : start + _INSERT_ROWS]
                # mypy does not infer a lambda with a default.
                await self._loaded(space, lambda client, ids=some: client.delete(space.collection, ids=ids))  # type: ignore[misc]

    async def search(
        self,
        space: Space,
        vector: NDArray[np.float32],
        *,
        k: int,
        cells: Sequence[int] | None,
        scope: VersionScope | None,
        mark: int = UNMARKED,
    ) -> list[Scored]:
        """See `VectorStore.search`."""
        if not 1 <= k <= MAX_K:
            raise ValueError(f"k is {k}, not 1..{MAX_K}")
        await self._check_cells(space, cells or ())
        if (cells is not None and not len(cells)) or (scope is not None and not len(scope.versions)):
            return []
        asked = _Asked(space, vector, partitions_of(space, cells), mark)
        if scope is None:
            return await self._sifted(asked, k)
        if scope.among:
            return await self._among(asked, k, scope)
        filtered = ScopeFilter(scope, self.costs(space))
        fetch = filtered.first_fetch(k) if scope.among is None else None
        while fetch is not None:
            hits = await self._hits(asked, fetch)
            kept = sift(hits, scope)
            if len(kept) >= k or len(hits) < fetch:
                return kept[:k]
            fetch = filtered.next_fetch(k, fetch, len(kept))
        return await self._sifted(asked, k, filtered.expression())

    async def fetch(
        self, space: Space, cell_chunks: Mapping[int, Sequence[UUID]], *, mark: int | None = None
    ) -> list[ChunkVector]:
        """See `VectorStore.fetch`."""
        keys = keys_of(space, cell_chunks)
        # Milvus Lite looks for each key in every partition that is named. Rows of a divided cell are in none.
        how = {"partition_names": partitions_of(space, [cell for cell in cell_chunks if cell >= 0])}
        how |= LATEST if mark is None else seen_by(mark)
        found: list[ChunkVector] = []
        for start in range(0, len(keys), _INSERT_ROWS):
            some = keys[start : start + _INSERT_ROWS]
            found += rows_of(
                await self._loaded(
                    space,
                    lambda client, ids=some: client.get(space.collection, ids, FIELDS, **how),  # type: ignore[misc]  # as in `delete_chunks`
                )
            )
        return found

    async def scan(
        self,
        space: Space,
        *,
        cells: Sequence[int] | None = None,
        versions: Sequence[int] | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[list[ChunkVector]]:
        """See `VectorStore.scan`."""
        await self._check_cells(space, cells or ())
        partitions = partitions_of(space, cells) or []
        if cells is None and not space.pooled:
            partitions = await self._call(space, lambda client: client.list_partitions(space.collection))
        for partition in partitions:
            async for page in self._pages(space, partition, versions, batch, FIELDS):
                yield rows_of(page)

    async def keys(self, space: Space, *, cells: Sequence[int]) -> AsyncIterator[list[UUID]]:
        """See `VectorStore.keys`."""
        await self._check_cells(space, cells)
        for cell in cells:
            async for page in self._pages(space, space.partition(cell), None, _KEYS, ["row"]):
                yield [chunk_id_of(row["row"]) for row in page]

    async def count(self, space: Space) -> int:
        """See `VectorStore.count`."""
        return await self._count(space, within(space))

    async def drop(self, space: Space) -> bool:
        """See `VectorStore.drop`."""
        name = space.collection
        try:
            async with self._writer(space):
                if space.pooled:
                    return await self._delete(space, within(space)) > 0
                self._partitions.pop(_place(space), None)
                if not await self._call(space, lambda client: client.has_collection(name)):
                    return False
                await self._call(space, lambda client: client.drop_collection(name))
        except MissingCollection:
            return False
        if space.database and not await self._call(space, lambda client: client.list_collections()):
            await self._drop_database(space.endpoint, space.database)
        return True

    async def release(self, space: Space) -> bool:
        """See `VectorStore.release`."""
        if space.pooled:
            return False
        await self._call(space, lambda client: client.release_collection(space.collection))
        return True

    async def ping(self) -> None:
        """See `VectorStore.ping`."""
        await self._clients.call(("", ""), lambda client: client.get_server_version())

    async def check(self) -> None:
        """See `VectorStore.check`."""
        await check_servers(self._clients, self._settings)

    async def aclose(self) -> None:
        """See `VectorStore.aclose`."""
        await self._clients.aclose()

    async def _pages(
        self, space: Space, partition: str, versions: Sequence[int] | None, batch: int, fields: list[str]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        among = "" if versions is None else f" and {versions_in(versions)}"
        async for page in self._pages_at(
            _place(space), partition, lambda after: within(space, f"{after}{among}"), batch, fields, space
        ):
            yield page

    async def _among(self, asked: _Asked, k: int, scope: VersionScope) -> list[Scored]:
        fetch = min(max(scope.among or 0, k), MAX_K)
        while True:
            hits = await self._hits(asked, fetch)
            if scope.floor is None or len(hits) < fetch or hits[-1][2] <= scope.floor or fetch == MAX_K:
                return sift(hits, scope)[:k]
            fetch = min(3 * fetch, MAX_K)

    async def _sifted(self, asked: _Asked, k: int, expression: str = "") -> list[Scored]:
        """Return the best k distinct chunks; more hits are fetched only if a chunk lies in several of the cells."""
        fetch = k
        while True:
            hits = await self._hits(asked, fetch, expression)
            kept = sift(hits, None)
            if len(kept) >= k or len(hits) < fetch or fetch == MAX_K:
                return kept[:k]
            fetch = min(2 * fetch, MAX_K)

    async def _hits(self, asked: _Asked, limit: int, expression: str = "") -> list[tuple[str, int, float]]:
        space = asked.space
        found = await self._loaded(
            space,
            lambda client: client.search(
                space.collection,
                data=[np.asarray(asked.vector, dtype=np.float32)],
                anns_field="vector",
                limit=limit,
                filter=within(space, expression),
                output_fields=["version_no"],
                partition_names=asked.partitions,
                search_params={"metric_type": "IP"},
                **seen_by(asked.mark),
            ),
        )
        return [(hit.id, hit["entity"]["version_no"], hit.distance) for hit in found[0]]

    async def _upsert(self, space: Space, data: list[dict[str, Any]], partition: str) -> None:
        await self._loaded(space, lambda client: client.upsert(space.collection, data, partition_name=partition))

    async def _delete(self, space: Space, expression: str) -> int:
        await self._check_cells(space, ())
        partition = space.partition(0) if space.pooled else ""
        return await self._delete_at(_place(space)[0], space.collection, expression, partition)

    async def _count(self, space: Space, expression: str) -> int:
        await self._check_cells(space, ())
        partition = space.partition(0) if space.pooled else ""
        return await self._count_at(_place(space)[0], space.collection, expression, partition)

    async def _make_database(self, space: Space) -> None:
        main = (space.endpoint, "")
        if space.database not in await self._clients.call(main, lambda client: client.list_databases()):
            await self._clients.call(main, lambda client: client.create_database(space.database))

    async def _check_cells(self, space: Space, cells: Iterable[int]) -> None:
        """Refuse cells that are not there: Milvus Lite would answer with nothing, as if they were empty."""
        if space.pooled and not {0}.issuperset(cells):
            raise ValueError(f"cells {sorted(cells)} of {space}, which has one")
        wanted = {space.partition(cell): cell for cell in ([0] if space.pooled else cells)}
        if self._partitions.get(_place(space), set()).issuperset(wanted):
            return
        known = set(await self._call(space, lambda client: client.list_partitions(space.collection)))
        self._partitions[_place(space)] = known
        missing = sorted(cell for partition, cell in wanted.items() if partition not in known)
        if missing and space.pooled:
            raise MissingCollection(f"there is no {space}")
        if missing:
            raise ValueError(f"cells {missing} are not among the {len(known) - 1} cells of {space}")

    def _writer(self, space: Space) -> asyncio.Lock:
        return self._writing.setdefault(_place(space), asyncio.Lock())

    async def _loaded(self, space: Space, call: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        return await self._loaded_at(_place(space)[0], space.collection, call, space)

    async def _call(self, space: Space, call: Callable[[AsyncMilvusClient], Awaitable[T]]) -> T:
        return await self._clients.call(_place(space)[0], call)

    async def _blocking(self, space: Space, work: Callable[[Any, float], T]) -> T:
        return await self._clients.blocking(_place(space)[0], work)


def _place(space: Space) -> tuple[Address, str]:
    return address_of(space), space.collection
