"""What Milvus servers hold, row by row and collection by collection, whether or not Postgres knows of it.

This is what a check compares with Postgres, so nothing here trusts a name: a row is known by its key and the partition
it was read from.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from pymilvus import AsyncMilvusClient, MilvusException

from shards.milvus_clients import LATEST, Address, MilvusClients
from shards.milvus_rows import chunk_id_of, within
from shards.names import Space, collection_prefix, tenant_database, tenant_of
from shards.vectors import HeldRow, MissingCollection, PoolRow, StorePlace

T = TypeVar("T")

_KEYS_AT_ONCE = 1000
_KEYS = ["row", "version_no"]
_NOBODY = UUID(int=0)
_POOL = "pool_"


class MilvusInventory:
    """The part of `VectorStore` that lists, and removes what was listed."""

    _clients: MilvusClients
    _partitions: dict[tuple[Address, str], set[str]]
    """What is known of the partitions of collections, so that a call need not ask."""
    on_wake: Callable[[Space, float], None] | None

    async def held_rows(
        self, space: Space, *, partitions: Sequence[str] | None = None, batch: int = 5000
    ) -> AsyncIterator[list[HeldRow]]:
        """See `VectorStore.held_rows`."""
        address, name = address_of(space), space.collection
        if partitions is None:
            partitions = await self._with_rows(space)
        for partition in partitions:
            try:
                pages = self._pages_at((address, name), partition, lambda after: within(space, after), batch, _KEYS)
                async for page in pages:
                    yield [_held(row, partition) for row in page]
            except MilvusException:
                if partition in await self.partitions(space):
                    raise  # else it was dropped since it was listed, and holds nothing

    async def still_held(self, space: Space, rows: Sequence[HeldRow]) -> set[HeldRow]:
        """See `VectorStore.still_held`."""
        address, name = address_of(space), space.collection
        known = await self.partitions(space)
        found: set[HeldRow] = set()
        for partition, keys in _by_partition(rows).items():
            for start in range(0, len(keys) if partition in known else 0, _KEYS_AT_ONCE):
                some = keys[start : start + _KEYS_AT_ONCE]

                def get(client: AsyncMilvusClient, ids: list[str] = some, where: str = partition) -> Any:
                    return client.get(name, ids, _KEYS, partition_names=[where], **LATEST)

                page = await self._loaded_at(address, name, get)
                present = {row["row"] for row in page}
                found |= {row for row in rows if row.partition == partition and row.key in present}
        return found

    async def delete_rows(self, space: Space, rows: Sequence[HeldRow]) -> None:
        """See `VectorStore.delete_rows`."""
        await self._delete_keys(address_of(space), space.collection, rows)

    async def partitions(self, space: Space) -> set[str]:
        """See `VectorStore.partitions`."""
        found = await self._clients.call(address_of(space), lambda client: client.list_partitions(space.collection))
        return set(found)

    async def places(
        self, tenant_id: UUID | None = None, *, endpoints: Collection[str] | None = None
    ) -> list[StorePlace]:
        """See `VectorStore.places`."""
        found: list[StorePlace] = []
        for endpoint in self._servers(endpoints):
            if not self._clients.has_databases(endpoint):
                found += await self._without_databases(endpoint)
                continue
            known = await self._clients.call((endpoint, ""), lambda client: client.list_databases())
            wanted = set(known) - {"default"}
            if tenant_id is not None:  # a client is opened for every database that is looked into
                wanted &= {tenant_database(tenant_id)}
            for database in ["", *wanted]:
                names = await self._clients.call((endpoint, database), lambda client: client.list_collections())
                found += [StorePlace(endpoint, database, name) for name in names or ([""] if database else [])]
        if tenant_id is None:
            return sorted(found)
        prefix, own = collection_prefix(tenant_id), tenant_database(tenant_id)
        return sorted(place for place in found if place.collection.startswith(prefix) or place.database == own)

    async def pool_rows(self, place: StorePlace, *, batch: int = 5000) -> AsyncIterator[list[PoolRow]]:
        """See `VectorStore.pool_rows`."""
        address, name = (place.endpoint, place.database), place.collection
        fields = [*_KEYS, "tenant", "generation"]
        for partition in await self._clients.call(address, lambda client: client.list_partitions(name)):
            async for page in self._pages_at((address, name), partition, str, batch, fields):
                yield [PoolRow(_held(row, partition), _uuid(row["tenant"]), int(row["generation"])) for row in page]

    async def delete_pool_rows(self, place: StorePlace, rows: Sequence[HeldRow]) -> None:
        """See `VectorStore.delete_pool_rows`."""
        await self._delete_keys((place.endpoint, place.database), place.collection, rows)

    async def drop_place(self, place: StorePlace) -> bool:
        """See `VectorStore.drop_place`."""
        address = (place.endpoint, place.database)
        try:
            names = await self._clients.call(address, lambda client: client.list_collections())
            if place.collection in names:
                await self._clients.call(address, lambda client: client.drop_collection(place.collection))
            if place.database and not set(names) - {place.collection}:
                await self._drop_database(place.endpoint, place.database)
        except MissingCollection:
            return False
        return place.collection in names or not place.collection

    async def drop_tenant(self, tenant_id: UUID, *, endpoints: Collection[str] | None = None) -> tuple[int, int]:
        """See `VectorStore.drop_tenant`."""
        dropped = rows = 0
        for endpoint in self._servers(endpoints):
            address = (endpoint, "")
            for name in await self._clients.call(address, lambda client: client.list_collections()):
                if name.startswith(_POOL):
                    rows += await self._delete_at(address, name, f'tenant == "{tenant_id.hex}"')
        for place in await self.places(tenant_id, endpoints=endpoints):
            if place.collection:
                rows += await self._count_at((place.endpoint, place.database), place.collection, "")
            dropped += int(await self.drop_place(place) and bool(place.collection))
        return dropped, rows

    def _servers(self, endpoints: Collection[str] | None) -> list[str]:
        """Return those of the servers that there are."""
        return [one for one in self._clients.endpoints if endpoints is None or one in endpoints]

    async def _without_databases(self, endpoint: str) -> list[StorePlace]:
        """Return the collections of a server that has one database, as if it had more: on an endpoint each belongs to
        an isolated tenant."""
        names = await self._clients.call((endpoint, ""), lambda client: client.list_collections())
        owners = {name: tenant_of(name) if endpoint else None for name in names}
        return [StorePlace(endpoint, tenant_database(owner) if owner else "", name) for name, owner in owners.items()]

    async def _drop_database(self, endpoint: str, database: str) -> None:
        if not self._clients.has_databases(endpoint):
            return
        await self._clients.forget((endpoint, database))
        await self._clients.call((endpoint, ""), lambda client: client.drop_database(database))

    async def _count_at(self, address: Address, name: str, expression: str, partition: str = "") -> int:
        found = await self._loaded_at(
            address,
            name,
            lambda client: client.query(
                name,
                filter=expression,
                output_fields=["count(*)"],
                partition_names=[partition] if partition else None,
                **LATEST,
            ),
        )
        return int(found[0]["count(*)"])

    async def _delete_at(self, address: Address, name: str, expression: str, partition: str = "") -> int:
        found = await self._count_at(address, name, expression, partition)
        if found:
            await self._loaded_at(
                address, name, lambda client: client.delete(name, filter=expression, partition_name=partition or None)
            )
        return found

    async def _delete_keys(self, address: Address, name: str, rows: Sequence[HeldRow]) -> None:
        for partition, keys in _by_partition(rows).items():
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = keys[start : start + _KEYS_AT_ONCE]

                def gone(client: AsyncMilvusClient, ids: list[str] = some, where: str = partition) -> Any:
                    return client.delete(name, ids=ids, partition_name=where)

                await self._loaded_at(address, name, gone)

    async def _with_rows(self, space: Space) -> list[str]:
        """Return the partitions to look into: of a pool the bucket alone when all of the tenant's rows lie there."""
        address, name = address_of(space), space.collection
        known = sorted(await self.partitions(space))
        if not space.pooled:
            return known
        bucket = space.partition(0)
        if bucket in known:
            inside = await self._count_at(address, name, within(space), bucket)
            if await self._count_at(address, name, within(space)) == inside:
                return [bucket]
        return known

    async def _pages_at(
        self,
        place: tuple[Address, str],
        partition: str,
        within: Callable[[str], str],
        batch: int,
        fields: list[str],
        space: Space | None = None,
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Stream a partition's rows. One partition: a server looks for the next page among all rows in scope."""
        (address, name), last = place, ""
        # What was written by now is on the pages: a server waits for that with the first of them, not with each.
        now = await self._clients.now(address)
        while True:
            # `iterator` makes a server return the smallest keys first; without it a limit takes any rows. pymilvus
            # then sends no consistency level, so the collection's own holds, which obeys the time.
            page = await self._loaded_at(
                address,
                name,
                lambda client, after=last: client.query(  # type: ignore[misc]  # mypy does not infer its default
                    name,
                    filter=within(f"row > {json.dumps(after, ensure_ascii=False)}"),
                    limit=batch,
                    output_fields=fields,
                    partition_names=[partition],
                    iterator="True",
                    guarantee_timestamp=now,
                ),
                space,
            )
            if page:
                last = page[-1]["row"]
                yield page
            if len(page) < batch:
                return

    async def _loaded_at(
        self, address: Address, name: str, call: Callable[[AsyncMilvusClient], Awaitable[T]], space: Space | None = None
    ) -> T:
        """Call; a collection that its server has not loaded, or has released, is loaded first."""
        try:
            found, load_ms = await self._clients.loaded(address, name, call)
        except MissingCollection:
            self._partitions.pop((address, name), None)
            raise
        if load_ms is not None and self.on_wake is not None and space is not None:
            self.on_wake(space, load_ms)
        return found


def address_of(space: Space) -> Address:
    """Return the server and database of a space."""
    return space.endpoint, space.database


def _by_partition(rows: Iterable[HeldRow]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.partition, []).append(row.key)
    return found


def _held(row: Mapping[str, Any], partition: str) -> HeldRow:
    try:
        chunk_id = chunk_id_of(row["row"])
    except ValueError:  # a key that nobody here made is a row of no chunk
        chunk_id = _NOBODY
    return HeldRow(row["row"], partition, chunk_id, int(row["version_no"]))


def _uuid(text: str) -> UUID:
    try:
        return UUID(hex=text)
    except ValueError:
        return _NOBODY
