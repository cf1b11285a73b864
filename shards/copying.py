"""Rows on their way from where queries find them to where they will: written, caught up, verified, never half visible.

Whoever copies compares with the places that Postgres holds until little is missing, the last time under the tenant's
writer lock, in the transaction that flips. So a writer need not know that a copy is under way, and cannot forget it:
what it wrote or deleted meanwhile is found by the comparison. Repeating a copy writes the same keys again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards import cells
from shards.catalog import Catalog, MicroRows, Place
from shards.cells import Division
from shards.generation import Generation
from shards.names import Space
from shards.pace import Pace
from shards.vectors import ChunkVector, VectorStore, chunks_by_cell

_WRITE_ROWS = 100
_READ_ROWS = 200
_REST = 2.0
"""Time to rest after a read or a write, in multiples of what it took: an engine at work keeps queries waiting."""


class Copy:
    """Rows of a generation, or of some of its micro-cells, copied into new cells of `space`.

    Their micro-cells are numbered from `first_micro`. `micros_of_source` are those that are copied; None for all.
    """

    def __init__(self, vectors: VectorStore, source: Generation, space: Space, pace: Pace) -> None:
        self._source = source
        self.micros_of_source: list[int] | None = None
        self.space = space
        self.first_micro = 0
        self.held: dict[UUID, Place] = {}
        self._vectors, self._pace = vectors, pace
        self._centroids: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
        self._cell_of: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._sums: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
        self._rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._written: dict[UUID, NDArray[np.float32]] = {}
        self._unrecorded: dict[UUID, Place] = {}
        self._forgotten: set[int] = set()

    @property
    def rows(self) -> int:
        """Return how many chunks it holds."""
        return len(self.held)

    @property
    def micros(self) -> MicroRows:
        """Return the micro-cells with what they hold."""
        numbers = self.first_micro + np.arange(len(self._rows))
        return MicroRows(numbers, self._cell_of, self._rows, self._sums, self._centroids)

    async def catch_up(self, catalog: Catalog) -> int:
        """Make it hold the chunks that the catalog places in its source and no others; return how many changed.

        Raises:
            RuntimeError: some of them cannot be read there.
        """
        await catalog.serialise(self.space)
        places = await catalog.places(self._source.number, micros=self.micros_of_source)
        stored = {place.chunk_id: place for place in places}
        taken = [place for chunk_id, place in self.held.items() if chunk_id not in stored]
        missing = [place for place in places if place.chunk_id not in self.held]
        if taken:
            await self._take_out(taken)
        if missing:
            wanted = {place.chunk_id for place in missing}
            rows = [row for row in await self._read(missing) if row.chunk_id in wanted]
            if rows:
                await self.write(rows, cells.assign(np.stack([row.vector for row in rows]), self._centroids))
        lost = len(stored) - len(self.held)
        if lost:
            raise RuntimeError(f"{lost} of {len(stored)} chunks cannot be read in {self._source.space}")
        return len(missing) + len(taken)

    async def verify(self, cell_numbers: Sequence[int]) -> None:
        """Read back what the cells hold, and compare it chunk by chunk with what was written to them.

        Raises:
            RuntimeError: they differ.
        """
        found: set[UUID] = set()
        count = 0
        async for page in self._vectors.keys(self.space, cells=cell_numbers):
            found.update(page)
            count += len(page)
        if found != self.held.keys() or count != len(self.held):
            raise RuntimeError(
                f"the new cells of {self.space} hold {count} rows of {len(found)} chunks, not those of the"
                f" {len(self.held)} that were written"
            )

    def divided(self, made: Division, cell_numbers: NDArray[np.int64]) -> None:
        """Take over a division of rows; its cells get these numbers."""
        self._centroids, self._cell_of = made.centroids, cell_numbers[made.cell_of]
        self._sums = np.zeros_like(made.centroids)
        self._rows = np.zeros(len(made.centroids), dtype=np.int64)

    async def read_all(self, cell_numbers: Sequence[int] | None = None) -> list[ChunkVector]:
        """Return the source's rows (in these cells), read with rests in between."""
        rows: list[ChunkVector] = []
        began = time.monotonic()
        async for page in self._vectors.scan(self._source.space, cells=cell_numbers, batch=_READ_ROWS):
            rows += page
            await self._pace.rest(_REST * (time.monotonic() - began))
            began = time.monotonic()
        return rows

    async def write(self, rows: Sequence[ChunkVector], assigned: NDArray[np.int64]) -> None:
        """Write rows into the cells of their micro-cells (rows,), numbered from 0, and count them."""
        in_cells = self._cell_of[assigned]
        order = np.argsort(in_cells, kind="stable")
        for start in range(0, len(order), _WRITE_ROWS):
            by_cell: dict[int, list[ChunkVector]] = {}
            for at in order[start : start + _WRITE_ROWS]:
                by_cell.setdefault(int(in_cells[at]), []).append(rows[at])
            began = time.monotonic()
            await self._vectors.insert(self.space, by_cell)
            await self._pace.rest(_REST * (time.monotonic() - began))
        for row, micro in zip(rows, assigned, strict=True):
            if row.chunk_id not in self.held:
                place = Place(row.chunk_id, row.version_no, self.first_micro + int(micro))
                self.held[row.chunk_id] = place
                self._written[row.chunk_id] = row.vector
                self._sums[micro] += row.vector
                self._rows[micro] += 1
                self._unrecorded[row.chunk_id] = place

    async def _read(self, places: Sequence[Place]) -> list[ChunkVector]:
        source = self._source
        if source.routing is None and source.cells > 1:  # made before micro-cells: only its versions can be looked for
            versions = sorted({place.version_no for place in places})
            pages = self._vectors.scan(source.space, versions=versions)
            return [row async for page in pages for row in page]
        by_cell = chunks_by_cell((place.chunk_id, source.micros.cell[place.micro]) for place in places)
        return await self._vectors.fetch(source.space, by_cell)

    async def _take_out(self, places: Sequence[Place]) -> None:
        by_cell = chunks_by_cell((place.chunk_id, self._cell_of[place.micro - self.first_micro]) for place in places)
        # By key: the version may rightly have rows in other cells of the same collection.
        await self._vectors.delete_chunks(self.space, by_cell)
        for place in places:
            self._uncount(place)

    def _uncount(self, place: Place) -> None:
        """Strike a chunk off. Its vector is remembered, because a purge may have removed the row from the store."""
        self._sums[place.micro - self.first_micro] -= self._written.pop(place.chunk_id)
        self._rows[place.micro - self.first_micro] -= 1
        del self.held[place.chunk_id]
        self._unrecorded.pop(place.chunk_id, None)
        self._forgotten.add(place.version_no)
