"""The next generation of a tenant's vector index, filled while the live one is read and written to.

The plan is a row in Postgres (state `building`). `fill` trains cells on what is there and copies it; `catch_up` brings
in what was written meanwhile and takes out what was deleted, by comparing with the chunks that Postgres holds, until
little is left; the last time under the tenant's writer lock, and in the same transaction `TenantIndexes.adopt` makes it
the live generation. A crash at any step leaves a collection that no query reads and that the next attempt retires.
Whoever rebuilds holds `Database.rebuild_lock(tenant_id)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards import cells
from shards.calibration import Calibration, calibrate, true_cells
from shards.catalog import Catalog, MicroRows, Place
from shards.generation import routing_of
from shards.routing import effective_dimension, means_of
from shards.settings import ShardSettings
from shards.vectors import ChunkVector, VectorStore

_WRITE_ROWS = 2000
_READ_VERSIONS = 200
_DIMENSION_ROWS = 2000

InThread = Callable[..., Awaitable[Any]]


class Rebuild:
    """A generation on its way. `live` is the collection that it is copied from, `collection` its own."""

    def __init__(
        self,
        vectors: VectorStore,
        settings: ShardSettings,
        *,
        live: str,
        number: int,
        collection: str,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self.number, self.collection = number, collection
        self.dimension: float | None = None
        self.calibration: Calibration | None = None
        self._vectors, self._settings, self._live, self._in_thread = vectors, settings, live, in_thread
        self._centroids: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
        self._cell_of: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._sums: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
        self._rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._held: dict[UUID, Place] = {}
        self._unrecorded: dict[UUID, Place] = {}
        self._forgotten: set[int] = set()

    @property
    def rows(self) -> int:
        """Return how many chunks it holds."""
        return len(self._held)

    @property
    def cells(self) -> int:
        """Return the number of cells."""
        return int(self._cell_of.max()) + 1

    @property
    def micros(self) -> MicroRows:
        """Return the micro-cells with what they hold."""
        numbers = np.arange(len(self._rows))
        return MicroRows(numbers, self._cell_of, self._rows, self._sums, self._centroids)

    async def fill(self, queries: NDArray[np.float32]) -> None:
        """Train cells on the live generation's rows, calibrate them with `queries` (q, dim), and copy the rows."""
        rows = [row async for page in self._vectors.scan(self._live) for row in page]
        matrix = np.stack([row.vector for row in rows])
        assigned = await self._in_thread(self._divide, matrix, queries)
        await self._vectors.create(self.collection, dim=matrix.shape[1], cells=self.cells)
        await self._write(rows, assigned)

    async def catch_up(self, stored: Mapping[UUID, int]) -> int:
        """Make it hold the chunks `stored` (the version number of each) and no others; return how many changed.

        Raises:
            RuntimeError: the live generation lacks some of them.
        """
        gone = {place.version_no for chunk_id, place in self._held.items() if chunk_id not in stored}
        missing = {chunk_id: version for chunk_id, version in stored.items() if chunk_id not in self._held}
        taken = [place for place in self._held.values() if place.version_no in gone]
        if gone:
            await self._take_out(taken, sorted(gone))
        versions = sorted(set(missing.values()))
        for start in range(0, len(versions), _READ_VERSIONS):
            some = versions[start : start + _READ_VERSIONS]
            pages = self._vectors.scan(self._live, versions=some)
            rows = [row async for page in pages for row in page if row.chunk_id in missing]
            if rows:
                await self._write(rows, cells.assign(np.stack([row.vector for row in rows]), self._centroids))
        lost = len(stored) - len(self._held)
        if lost:
            raise RuntimeError(f"{self._live} lacks {lost} of the {len(stored)} chunks that are stored")
        return len(missing) + len(taken)

    async def record(self, catalog: Catalog) -> None:
        """Write down where its chunks lie, as far as that is new, in the caller's transaction."""
        if self._forgotten:
            await catalog.remove(self.number, sorted(self._forgotten))
        await catalog.add(self.number, list(self._unrecorded.values()))

    def recorded(self) -> None:
        """Take note that what `record` wrote was committed."""
        self._forgotten, self._unrecorded = set(), {}

    def _divide(self, matrix: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
        settings = self._settings
        count = cells.cell_count(len(matrix), settings)
        made = cells.divide(matrix, count, settings.micros_per_cell, seed=self.number)
        self._centroids, self._cell_of = made.centroids, made.cell_of
        self._sums = np.zeros_like(made.centroids)
        np.add.at(self._sums, made.micro_of, matrix)
        self._rows = np.bincount(made.micro_of, minlength=len(self._sums)).astype(np.int64)
        some = np.random.default_rng(self.number).permutation(len(matrix))[:_DIMENSION_ROWS]
        means = means_of(self._sums, self._rows)
        self.dimension = effective_dimension(matrix[some], means[made.micro_of[some]])
        routing = routing_of(self.micros, self.dimension)
        if routing is not None and len(queries):
            truth = true_cells(matrix, routing.cell_of[made.micro_of], queries)
            self.calibration = calibrate(routing, queries, truth, source="sentences")
        # Counted again as they are written.
        self._sums, self._rows = np.zeros_like(self._sums), np.zeros_like(self._rows)
        return made.micro_of

    async def _write(self, rows: Sequence[ChunkVector], assigned: NDArray[np.int64]) -> None:
        in_cells = self._cell_of[assigned]
        order = np.argsort(in_cells, kind="stable")
        for start in range(0, len(order), _WRITE_ROWS):
            by_cell: dict[int, list[ChunkVector]] = {}
            for at in order[start : start + _WRITE_ROWS]:
                by_cell.setdefault(int(in_cells[at]), []).append(rows[at])
            await self._vectors.insert(self.collection, by_cell)
        for row, micro in zip(rows, assigned, strict=True):
            if row.chunk_id in self._held:
                continue
            place = Place(row.chunk_id, row.version_no, int(micro))
            self._held[row.chunk_id] = self._unrecorded[row.chunk_id] = place
            self._sums[micro] += row.vector
            self._rows[micro] += 1

    async def _take_out(self, places: Sequence[Place], versions: Sequence[int]) -> None:
        by_cell: dict[int, list[UUID]] = {}
        for place in places:
            by_cell.setdefault(int(self._cell_of[place.micro]), []).append(place.chunk_id)
        vectors = {row.chunk_id: row.vector for row in await self._vectors.fetch(self.collection, by_cell)}
        await self._vectors.delete_versions(self.collection, versions)
        for place in places:
            if place.chunk_id in vectors:
                self._sums[place.micro] -= vectors[place.chunk_id]
            self._rows[place.micro] -= 1
            self._held.pop(place.chunk_id, None)
            self._unrecorded.pop(place.chunk_id, None)
        self._forgotten |= set(versions)
