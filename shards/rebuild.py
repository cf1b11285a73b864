"""The next generation of a tenant's vector index, filled while the live one is read and written to.

The plan is a row in Postgres (state `building`). `fill` trains cells on what is there and copies it, `catch_up` follows
what is written meanwhile, and under the writer lock `TenantIndexes.adopt` makes it the live generation at one commit. A
crash at any step leaves a collection that no query reads and that the next attempt retires. Whoever rebuilds holds
`Database.rebuild_lock(tenant_id)`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shards import cells
from shards.calibration import Calibration, calibrate_on_sentences
from shards.catalog import Catalog
from shards.copying import Copy
from shards.generation import Generation
from shards.names import Space
from shards.pace import Pace
from shards.routing import routing_over
from shards.settings import ShardSettings
from shards.vectors import VectorStore


class Rebuild(Copy):
    """A generation on its way, copied from the live one."""

    def __init__(
        self,
        vectors: VectorStore,
        settings: ShardSettings,
        *,
        live: Generation,
        space: Space,
        cells: int,
        pace: Pace,
    ) -> None:
        super().__init__(vectors, live, space, pace)
        self.number = space.generation
        self.dimension: float | None = None
        self.residual: float | None = None
        self.wanted = cells
        self.calibration: Calibration | None = None
        self._settings = settings

    @property
    def cells(self) -> int:
        """Return the number of cells."""
        return int(self._cell_of.max()) + 1

    async def fill(self, catalog: Catalog, queries: NDArray[np.float32]) -> None:
        """Train cells on the live generation's rows, calibrate them with `queries` (q, dim), and copy the rows."""
        rows = await self.read_all()
        matrix = np.stack([row.vector for row in rows]) if rows else np.empty((0, self.space.dim), dtype=np.float32)
        assigned = await self._pace.compute(self._divide, matrix, queries)
        await catalog.serialise(self.space)
        await self._vectors.create(self.space, cells=self.cells)
        await self.write(rows, assigned)

    async def record(self, catalog: Catalog) -> None:
        """Write down where its chunks lie, as far as that is new, in the caller's transaction."""
        if self._forgotten:
            await catalog.remove(self.number, sorted(self._forgotten))
        await catalog.add(self.number, list(self._unrecorded.values()))

    def recorded(self) -> None:
        """Take note that what `record` wrote was committed."""
        self._forgotten, self._unrecorded = set(), {}

    def _divide(self, matrix: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
        count = min(self.wanted, len(matrix))
        if count < 2:
            made = cells.undivided(len(matrix), self.space.dim)
            self.divided(made, np.arange(1))
            return made.micro_of
        micros = cells.micros_a_cell(len(matrix), count, self._settings)
        made = cells.divide(matrix, count, micros, seed=self.number)
        self.divided(made, np.arange(count))
        routing = routing_over(matrix, made, seed=self.number)
        self.dimension, self.residual = routing.dimension, routing.residual
        if len(queries):
            self.calibration = calibrate_on_sentences(routing, matrix, made.micro_of, queries, self.number)
        return made.micro_of
