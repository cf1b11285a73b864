"""The vector store in memory: the same behaviour without a server. For tests, and for reading what the real ones
promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards.milvus_filter import LITE
from shards.names import Space
from shards.vectors import (
    MAX_CELLS,
    MAX_K,
    UNMARKED,
    Budget,
    ChunkVector,
    EngineCosts,
    HeldRow,
    MissingCollection,
    PoolRow,
    Scored,
    StorePlace,
    VersionScope,
)


@dataclass
class _Rows:
    cells: set[int]
    rows: dict[tuple[UUID, int], ChunkVector] = field(default_factory=dict)
    written: dict[tuple[UUID, int], int] = field(default_factory=dict)
    """When each row was first there, by the store's clock."""


class MemoryVectors:
    """`VectorStore` in memory: every search is exact.

    As late as a server may be: a search sees nothing that was written after the mark that it is given.
    """

    def __init__(self) -> None:
        self._clock = UNMARKED
        self._spaces: dict[Space, _Rows] = {}
        self._released: set[Space] = set()
        self.budgets: Mapping[str, Budget] = {"": Budget(65_536, 63)}
        self.on_wake: Callable[[Space, float], None] | None = None

    def costs(self, space: Space) -> EngineCosts:
        """See `VectorStore.costs`."""
        return LITE

    async def mark(self, space: Space) -> int:
        """See `VectorStore.mark`."""
        return self._clock

    async def create(self, space: Space, *, cells: int) -> None:
        """See `VectorStore.create`."""
        most = 1 if space.pooled else MAX_CELLS
        if not 1 <= cells <= most:
            raise ValueError(f"{cells} cells, not 1..{most}")
        found = self._spaces.setdefault(space, _Rows(set()))
        found.cells |= set(range(cells))

    async def add_cells(self, space: Space, cells: Sequence[int]) -> None:
        """See `VectorStore.add_cells`."""
        space.check_own()
        found = self._found(space)
        if len(found.cells | set(cells)) > MAX_CELLS:
            raise ValueError(f"at most {MAX_CELLS} cells")
        found.cells |= set(cells)

    async def drop_cells(self, space: Space, cells: Sequence[int]) -> None:
        """See `VectorStore.drop_cells`."""
        space.check_own()
        found = self._found(space)
        found.cells -= set(cells)
        found.rows = {key: row for key, row in found.rows.items() if key[1] in found.cells}

    async def insert(self, space: Space, cell_rows: Mapping[int, Sequence[ChunkVector]]) -> None:
        """See `VectorStore.insert`."""
        found = self._found(space)
        _check_cells(found, cell_rows)
        self._clock += 1
        rows = {(row.chunk_id, cell): row for cell, placed in cell_rows.items() for row in placed}
        found.written.update({key: self._clock for key in rows if key not in found.rows})
        found.rows.update(rows)

    async def delete_versions(self, space: Space, versions: Sequence[int]) -> int:
        """See `VectorStore.delete_versions`."""
        found, wanted = self._found(space), set(versions)
        gone = [key for key, row in found.rows.items() if row.version_no in wanted]
        for key in gone:
            del found.rows[key]
        return len(gone)

    async def count_versions(self, space: Space, versions: Sequence[int]) -> int:
        """See `VectorStore.count_versions`."""
        wanted = set(versions)
        return sum(row.version_no in wanted for row in self._found(space).rows.values())

    async def delete_chunks(self, space: Space, cell_chunks: Mapping[int, Sequence[UUID]]) -> None:
        """See `VectorStore.delete_chunks`."""
        rows = self._found(space).rows
        for cell, chunk_ids in cell_chunks.items():
            for chunk_id in chunk_ids:
                rows.pop((chunk_id, cell), None)

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
        found = self._found(space)
        if not 1 <= k <= MAX_K:
            raise ValueError(f"k is {k}, not 1..{MAX_K}")
        _check_cells(found, cells or ())
        seen = _seen(found, mark)
        rows = [row for (_, cell), row in seen.items() if cells is None or cell in cells]
        if scope is not None:
            allowed = scope.allows(np.array([row.version_no for row in rows], dtype=np.int64))
            rows = [row for row, ok in zip(rows, allowed, strict=True) if ok]
        if not rows:
            return []
        scores = np.stack([row.vector for row in rows]) @ vector
        best: dict[UUID, float] = {}
        for at in np.argsort(-scores, kind="stable"):
            best.setdefault(rows[at].chunk_id, float(scores[at]))
        return [Scored(chunk_id, score) for chunk_id, score in list(best.items())[:k]]

    async def fetch(
        self, space: Space, cell_chunks: Mapping[int, Sequence[UUID]], *, mark: int | None = None
    ) -> list[ChunkVector]:
        """See `VectorStore.fetch`."""
        rows = _seen(self._found(space), mark)
        wanted = [(chunk_id, cell) for cell, chunk_ids in cell_chunks.items() for chunk_id in chunk_ids]
        return [rows[key] for key in wanted if key in rows]

    async def scan(
        self,
        space: Space,
        *,
        cells: Sequence[int] | None = None,
        versions: Sequence[int] | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[list[ChunkVector]]:
        """See `VectorStore.scan`."""
        found = self._found(space)
        _check_cells(found, cells or ())
        wanted = None if versions is None else set(versions)
        rows = [
            row
            for (_, cell), row in found.rows.items()
            if (cells is None or cell in cells) and (wanted is None or row.version_no in wanted)
        ]
        for start in range(0, len(rows), batch):
            yield rows[start : start + batch]

    async def keys(self, space: Space, *, cells: Sequence[int]) -> AsyncIterator[list[UUID]]:
        """See `VectorStore.keys`."""
        async for page in self.scan(space, cells=cells):
            yield [row.chunk_id for row in page]

    async def held_rows(
        self, space: Space, *, partitions: Sequence[str] | None = None, batch: int = 5000
    ) -> AsyncIterator[list[HeldRow]]:
        """See `VectorStore.held_rows`."""
        rows = [row for row in _held(space, self._found(space)) if partitions is None or row.partition in partitions]
        for start in range(0, len(rows), batch):
            yield rows[start : start + batch]

    async def still_held(self, space: Space, rows: Sequence[HeldRow]) -> set[HeldRow]:
        """See `VectorStore.still_held`."""
        present = {(row.key, row.partition) for row in _held(space, self._found(space))}
        return {row for row in rows if (row.key, row.partition) in present}

    async def delete_rows(self, space: Space, rows: Sequence[HeldRow]) -> None:
        """See `VectorStore.delete_rows`."""
        gone = {(row.key, row.partition) for row in rows}
        found = self._found(space)
        kept = {(chunk_id, cell) for chunk_id, cell in found.rows if _place(space, chunk_id, cell) not in gone}
        found.rows = {key: row for key, row in found.rows.items() if key in kept}

    async def partitions(self, space: Space) -> set[str]:
        """See `VectorStore.partitions`."""
        return {"_default", *map(space.partition, self._found(space).cells)}

    async def places(
        self, tenant_id: UUID | None = None, *, endpoints: Collection[str] | None = None
    ) -> list[StorePlace]:
        """See `VectorStore.places`."""
        there = [space for space in self._spaces if endpoints is None or space.endpoint in endpoints]
        wanted = [space for space in there if tenant_id in (None, space.tenant_id)]
        return sorted({_place_of(space) for space in wanted if tenant_id is None or not space.pooled})

    async def pool_rows(self, place: StorePlace, *, batch: int = 5000) -> AsyncIterator[list[PoolRow]]:
        """See `VectorStore.pool_rows`."""
        for space, found in list(self._spaces.items()):
            if _place_of(space) == place:
                yield [PoolRow(row, space.tenant_id, space.generation) for row in _held(space, found)]

    async def delete_pool_rows(self, place: StorePlace, rows: Sequence[HeldRow]) -> None:
        """See `VectorStore.delete_pool_rows`."""
        for space in self._spaces:
            if _place_of(space) == place:
                await self.delete_rows(space, rows)

    async def drop_place(self, place: StorePlace) -> bool:
        """See `VectorStore.drop_place`."""
        gone = [space for space in self._spaces if _place_of(space) == place]
        for space in gone:
            del self._spaces[space]
        return bool(gone)

    async def count(self, space: Space) -> int:
        """See `VectorStore.count`."""
        return len(self._found(space).rows)

    async def drop(self, space: Space) -> bool:
        """See `VectorStore.drop`."""
        found = self._spaces.pop(space, None)
        return found is not None and (not space.pooled or bool(found.rows))

    async def drop_tenant(self, tenant_id: UUID, *, endpoints: Collection[str] | None = None) -> tuple[int, int]:
        """See `VectorStore.drop_tenant`."""
        there = [space for space in self._spaces if endpoints is None or space.endpoint in endpoints]
        mine = [space for space in there if space.tenant_id == tenant_id]
        rows = sum(len(self._spaces.pop(space).rows) for space in mine)
        return sum(not space.pooled for space in mine), rows

    async def release(self, space: Space) -> bool:
        """See `VectorStore.release`."""
        self._found(space)
        if not space.pooled:
            self._released.add(space)
        return not space.pooled

    async def ping(self) -> None:
        """See `VectorStore.ping`."""

    async def check(self) -> None:
        """See `VectorStore.check`."""

    async def aclose(self) -> None:
        """See `VectorStore.aclose`."""

    def _found(self, space: Space) -> _Rows:
        if space not in self._spaces:
            raise MissingCollection(f"there is no {space}")
        if space in self._released:
            self._released.remove(space)
            if self.on_wake is not None:
                self.on_wake(space, 0.0)
        return self._spaces[space]


def _place(space: Space, chunk_id: UUID, cell: int) -> tuple[str, str]:
    return space.key(chunk_id, cell), space.partition(cell)


def _seen(found: _Rows, mark: int | None) -> dict[tuple[UUID, int], ChunkVector]:
    return {key: row for key, row in found.rows.items() if mark is None or found.written[key] <= mark}


def _held(space: Space, found: _Rows) -> list[HeldRow]:
    return [
        HeldRow(*_place(space, chunk_id, cell), chunk_id, row.version_no)
        for (chunk_id, cell), row in found.rows.items()
    ]


def _place_of(space: Space) -> StorePlace:
    return StorePlace(space.endpoint, space.database, space.collection)


def _check_cells(found: _Rows, cells: Mapping[int, object] | Sequence[int]) -> None:
    outside = sorted(set(cells) - found.cells)
    if outside:
        raise ValueError(f"cells {outside} are not among the {len(found.cells)} cells")
