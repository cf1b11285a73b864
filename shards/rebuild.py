"""The next generation of a tenant's vector index, filled while the live one is read and written to.

The plan is a row in Postgres (state `building`). `fill` trains cells on what is there and copies it; `catch_up` brings
in what was written meanwhile and takes out what was deleted, by comparing with the chunks that Postgres holds, until
little is left; the last time under the tenant's writer lock, and in the same transaction `TenantIndexes.adopt` makes it
the live generation. A crash at any step leaves a collection that no query reads and that the next attempt retires.
Whoever rebuilds holds `Database.rebuild_lock(tenant_id)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards import cells
from shards.settings import ShardSettings
from shards.vectors import ChunkVector, VectorStore

_WRITE_ROWS = 2000
_READ_VERSIONS = 200


class Rebuild:
    """A generation on its way. `live` is the collection that it is copied from, `collection` its own."""

    def __init__(
        self, vectors: VectorStore, settings: ShardSettings, *, tenant_id: UUID, live: str, number: int, collection: str
    ) -> None:
        self.tenant_id, self.number, self.collection = tenant_id, number, collection
        self.centroids: NDArray[np.float32] = np.empty((0, 0), dtype=np.float32)
        self.cell_rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._vectors, self._settings, self._live = vectors, settings, live
        self._held: dict[UUID, int] = {}

    @property
    def rows(self) -> int:
        """Return how many chunks it holds."""
        return len(self._held)

    async def fill(self) -> None:
        """Train cells on the live generation's rows and copy them."""
        rows = [row async for page in self._vectors.scan(self._live) for row in page]
        matrix = np.stack([row.vector for row in rows])
        count = cells.cell_count(len(matrix), self._settings)
        self.centroids, assigned = await cells.train_async(matrix, count, seed=self.number)
        self.cell_rows = np.zeros(len(self.centroids), dtype=np.int64)
        await self._vectors.create(self.collection, dim=matrix.shape[1], cells=len(self.centroids))
        await self._write(rows, assigned)

    async def catch_up(self, stored: Mapping[UUID, int]) -> int:
        """Make it hold the chunks `stored` (the version number of each) and no others; return how many changed.

        Raises:
            RuntimeError: the live generation lacks some of them.
        """
        gone = {version for chunk_id, version in self._held.items() if chunk_id not in stored}
        missing = {chunk_id: version for chunk_id, version in stored.items() if chunk_id not in self._held}
        changed = len(missing) + sum(version in gone for version in self._held.values())
        if gone:
            await self._vectors.delete_versions(self.collection, sorted(gone))
            self._held = {chunk_id: version for chunk_id, version in self._held.items() if version not in gone}
        versions = sorted(set(missing.values()))
        for start in range(0, len(versions), _READ_VERSIONS):
            some = versions[start : start + _READ_VERSIONS]
            pages = self._vectors.scan(self._live, versions=some)
            rows = [row async for page in pages for row in page if row.chunk_id in missing]
            if rows:
                matrix = np.stack([row.vector for row in rows])
                await self._write(rows, cells.assign(matrix, self.centroids))
        lost = len(stored) - len(self._held)
        if lost:
            raise RuntimeError(f"{self._live} lacks {lost} of the {len(stored)} chunks that are stored")
        return changed

    async def _write(self, rows: Sequence[ChunkVector], assigned: NDArray[np.int64]) -> None:
        order = np.argsort(assigned, kind="stable")
        for start in range(0, len(order), _WRITE_ROWS):
            by_cell: dict[int, list[ChunkVector]] = {}
            for at in order[start : start + _WRITE_ROWS]:
                by_cell.setdefault(int(assigned[at]), []).append(rows[at])
            await self._vectors.insert(self.collection, by_cell)
        self.cell_rows += np.bincount(assigned, minlength=len(self.cell_rows))
        self._held |= {row.chunk_id: row.version_no for row in rows}
