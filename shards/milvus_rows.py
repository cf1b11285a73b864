"""How a row looks in Milvus: the schema of a collection, the key of a row, and what comes back.

The primary key is "<chunk id>:<cell>", in a pool "<chunk id>:<tenant id>:<generation>". Milvus and Milvus Lite accept
one key in two partitions and then lose or double rows, so a key never names two places. A row in a pool carries its
tenant and generation, and every call on a pool names both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import grpc  # type: ignore[import-untyped]
import numpy as np
from pymilvus import DataType, MilvusClient, MilvusException

from shards.names import Space
from shards.vectors import ChunkVector, Scored, VersionScope

FIELDS = ["row", "version_no", "vector"]


def create(client: MilvusClient, timeout_s: float, space: Space, cells: Iterable[int]) -> None:
    """Make a collection with these cells, its index, and load it; what is there already is left as it is. Each of the
    calls takes `timeout_s` at most, where pymilvus would wait for ever."""
    name = space.collection
    if not client.has_collection(name, timeout=timeout_s):
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("row", DataType.VARCHAR, is_primary=True, max_length=96)
        schema.add_field("version_no", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=space.dim)
        if space.pooled:
            schema.add_field("tenant", DataType.VARCHAR, max_length=32)
            schema.add_field("generation", DataType.INT64)
        # Pages are read at this level, and at it the time they are given counts (`MilvusInventory._pages_at`).
        client.create_collection(name, schema=schema, timeout=timeout_s, consistency_level="Session")
    add_cells(client, timeout_s, space, cells)
    if not client.list_indexes(name, timeout=timeout_s):
        index = client.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="IP")
        # Without `sync`, pymilvus sleeps half a second before it asks whether the empty index is ready.
        client.create_index(name, index, timeout=timeout_s, sync=False)
    client.load_collection(name, timeout=timeout_s)


def add_cells(client: MilvusClient, timeout_s: float, space: Space, cells: Iterable[int]) -> None:
    """Make the cells that are not there yet."""
    present = set(client.list_partitions(space.collection, timeout=timeout_s))
    for partition in map(space.partition, cells):
        if partition not in present:
            client.create_partition(space.collection, partition, timeout=timeout_s)


def drop_cells(client: MilvusClient, timeout_s: float, space: Space, cells: Iterable[int]) -> None:
    """Remove cells of a collection of its own with their rows, as far as they are there."""
    name = space.collection
    present = set(client.list_partitions(name, timeout=timeout_s))
    gone = [partition for partition in map(space.partition, cells) if partition in present]
    if not gone:
        return
    with suppress(MilvusException, grpc.RpcError):  # a server asks for it, Milvus Lite does not know it
        client.release_partitions(name, gone, timeout=timeout_s)
    for partition in gone:
        client.drop_partition(name, partition, timeout=timeout_s)


def keys_of(space: Space, cell_chunks: Mapping[int, Sequence[UUID]]) -> list[str]:
    """Return the primary keys of chunks by the cell that each lies in."""
    return [space.key(chunk_id, cell) for cell, chunk_ids in cell_chunks.items() for chunk_id in chunk_ids]


def partitions_of(space: Space, cells: Sequence[int] | None) -> list[str] | None:
    """Return the partitions of cells; of all of them (None) the bucket, or None where the collection is its own."""
    if cells is None:
        return [space.partition(0)] if space.pooled else None
    return [space.partition(cell) for cell in cells]


def entity(space: Space, row: ChunkVector, cell: int) -> dict[str, Any]:
    """Return a row as Milvus takes it."""
    values = {"row": space.key(row.chunk_id, cell), "version_no": row.version_no, "vector": row.vector}
    return values | {"tenant": space.tenant_id.hex, "generation": space.generation} if space.pooled else values


def within(space: Space, expression: str = "") -> str:
    """Return a filter that matches rows of this space only; in a collection of its own that is any row."""
    if not space.pooled:
        return expression
    mine = f'tenant == "{space.tenant_id.hex}" and generation == {space.generation}'
    return f"{mine} and ({expression})" if expression else mine


def rows_of(page: Iterable[Mapping[str, Any]]) -> list[ChunkVector]:
    """Return rows from what a query gave."""
    return [
        ChunkVector(chunk_id_of(row["row"]), row["version_no"], np.asarray(row["vector"], dtype=np.float32))
        for row in page
    ]


def chunk_id_of(row: str) -> UUID:
    """Return the chunk of a primary key."""
    return UUID(hex=row.partition(":")[0])


def sift(hits: Sequence[tuple[str, int, float]], scope: VersionScope | None) -> list[Scored]:
    """Drop hits outside the scope and repeated chunks; the hits are best first."""
    if scope is not None and hits:
        allowed = scope.allows(np.array([version for _, version, _ in hits], dtype=np.int64))
        hits = [hit for hit, ok in zip(hits, allowed, strict=True) if ok]
    best: dict[UUID, float] = {}
    for row, _, score in hits:
        best.setdefault(chunk_id_of(row), score)
    return [Scored(chunk_id, score) for chunk_id, score in best.items()]
