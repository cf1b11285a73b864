"""Cells divided anew, beside the cells that queries read: one that grew becomes several, neighbours that shrank one.

The rows of the parents are clustered afresh into micro-cells and copied into child cells of the same collection; under
the writer lock `TenantIndexes.flip` moves the chunks to the children at one commit. The parents stay, unread by new
queries, until those that began before have ended. A crash before the flip leaves child cells that nothing names, and
the next attempt drops them; a crash after it leaves parents to be dropped. No number of a cell is used twice.
"""

from __future__ import annotations

from uuid import UUID

import numpy as np

from shards import cells
from shards.catalog import Catalog, CellChange
from shards.copying import Copy
from shards.generation import Generation
from shards.pace import Pace
from shards.settings import ShardSettings
from shards.vectors import VectorStore


class Reshape(Copy):
    """A change of cells on its way."""

    def __init__(
        self,
        vectors: VectorStore,
        settings: ShardSettings,
        generation: Generation,
        change: CellChange,
        pace: Pace,
    ) -> None:
        super().__init__(vectors, generation, generation.space, pace)
        self.change = change
        self.first_micro = generation.header.micros
        self.replaced: list[int] = np.flatnonzero(np.isin(generation.micros.cell, change.parents)).tolist()
        self.micros_of_source = self.replaced
        self._settings = settings

    async def fill(self) -> bool:
        """Divide the parents' rows and copy them into the children; return False when there are too few by now."""
        parents, children = self.change.parents, np.array(self.change.children)
        await self._vectors.add_cells(self.space, self.change.children)
        rows = await self.read_all(parents)
        if len(rows) < len(children):
            return False
        matrix = np.stack([row.vector for row in rows])
        per_cell = cells.micros_a_cell(len(rows), len(children), self._settings)
        made = await self._pace.compute(cells.divide, matrix, len(children), per_cell, seed=self.first_micro)
        self.divided(made, children)
        await self.write(rows, made.micro_of)
        return True

    async def catch_up(self, catalog: Catalog) -> int:
        """See `Copy.catch_up`. The cells share a collection with those that are written to: what a repeated upload
        removed from them is written again."""
        present: set[UUID] = set()
        async for page in self._vectors.keys(self.space, cells=self.change.children):
            present.update(page)
        for place in [place for chunk_id, place in self.held.items() if chunk_id not in present]:
            self._uncount(place)
        return await super().catch_up(catalog)
