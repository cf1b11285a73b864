"""A generation laid out in a Milvus Lite server of the benchmark's own, from vectors that are at hand."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray

from shards.calibration import Calibration
from shards.catalog import Header, MicroRows
from shards.cells import Division
from shards.generation import Generation
from shards.matches import Matches
from shards.names import Space
from shards.probe import AnnHits, AnnQuery, search
from shards.routing import Routing
from shards.vectors import ChunkVector, VectorStore

_BATCH = 4000


@dataclass(frozen=True)
class Laid:
    """Rows in a store: row `i` is chunk `ids[i]` of version `i`."""

    store: VectorStore
    generation: Generation
    made: Division
    ids: list[UUID]

    def matches(self, rows: NDArray[np.intp]) -> Matches:
        ids = b"".join(self.ids[row].bytes for row in rows)
        return Matches(rows.astype(np.int64), self.made.micro_of[rows], ids)

    async def ask(self, vector: NDArray[np.float32], target: float, *, k: int = 100, **more: object) -> AnnHits:
        query = AnnQuery(vector, k, 10, target, **more)  # type: ignore[arg-type]  # `exact` or `matches`, as given
        return await search(self.store, self.generation, query)


async def lay_out(
    store: VectorStore, rows: NDArray[np.float32], made: Division, routing: Routing, curve: Calibration
) -> Laid:
    """Write rows into cells, cell by cell."""
    cells = len(routing.cells)
    space = Space(uuid4(), 1, rows.shape[1])
    await store.create(space, cells=cells)
    ids = [UUID(bytes=blob.tobytes()) for blob in np.random.default_rng(7).integers(0, 256, (len(rows), 16), np.uint8)]
    in_cells = made.cell_of[made.micro_of]
    order = np.argsort(in_cells, kind="stable")
    for start in range(0, len(order), _BATCH):
        by_cell: dict[int, list[ChunkVector]] = {}
        for row in order[start : start + _BATCH]:
            by_cell.setdefault(int(in_cells[row]), []).append(ChunkVector(ids[row], int(row), rows[row]))
        await store.insert(space, by_cell)
    micros = MicroRows(np.arange(len(routing.rows)), made.cell_of, routing.rows, routing.sums)
    header = Header(1, "live", space, len(routing.rows), cells, 1, routing.dimension, curve, len(rows))
    return Laid(store, Generation(space.tenant_id, header, micros, routing), made, ids)
