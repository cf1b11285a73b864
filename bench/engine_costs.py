"""What a search costs on a Milvus server, as `shards.vectors.EngineCosts` counts it; prints one JSON line.

    python -m bench.engine_costs [--uri URI --token USER:PASSWORD] [--rows 20000] [--cells 40]

Without a URI a Milvus Lite server is started. Each figure is a difference of the fastest of many calls, so that it
holds on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from bench.local_stack import print_line
from bench.stores import milvus_lite
from shards.milvus import MilvusVectors
from shards.names import Space
from shards.settings import MilvusSettings
from shards.vectors import ChunkVector, EngineCosts, VersionScope

DIM = 384
TIMES = 40
FILTER_CELLS = 8
LITERALS = 2000
HITS = 2000
KEYS = 500


class Measured:
    """A collection of random rows, one version a row, and a question."""

    def __init__(self, store: MilvusVectors, space: Space, cells: int, rows_per_cell: int, mark: int) -> None:
        self.store, self.space, self.cells, self.rows_per_cell = store, space, cells, rows_per_cell
        self._mark, self._question = mark, unit(np.random.default_rng(2), 1)[0]

    async def search(self, cells: int, *, k: int = 10, scope: VersionScope | None = None) -> float:
        """Return the milliseconds of a search of so many cells."""
        named = list(range(cells))
        return await fastest(
            lambda: self.store.search(self.space, self._question, k=k, cells=named, scope=scope, mark=self._mark)
        )

    async def fetch(self, keys: list[UUID]) -> float:
        """Return the milliseconds of reading rows of the first cell by their keys."""
        return await fastest(lambda: self.store.fetch(self.space, {0: keys}, mark=self._mark))


def unit(rng: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Return random unit vectors (rows, DIM)."""
    made = rng.standard_normal((rows, DIM)).astype(np.float32)
    normal: NDArray[np.float32] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return normal


async def fastest(call: Callable[[], Awaitable[object]]) -> float:
    """Return the milliseconds of the fastest of many calls."""
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await call()
        taken.append(1000 * (time.perf_counter() - began))
    return min(taken)


async def costs(store: MilvusVectors, cells: int, rows_per_cell: int) -> EngineCosts:
    """Fill a collection, and measure what a search of it costs."""
    space = Space(uuid4(), 1, DIM)
    await store.create(space, cells=cells)
    rng, first = np.random.default_rng(1), []
    for cell in range(cells):
        vectors = unit(rng, rows_per_cell)
        rows = [ChunkVector(uuid4(), 2 * (cell * rows_per_cell + at), vector) for at, vector in enumerate(vectors)]
        await store.insert(space, {cell: rows})
        first = first or [row.chunk_id for row in rows[:KEYS]]
    measured = Measured(store, space, cells, rows_per_cell, await store.mark(space))
    found = await fitted(measured, first)
    await store.drop(space)
    return found


async def fitted(on: Measured, keys: list[UUID]) -> EngineCosts:
    """Return the costs by differences of searches that differ in one thing."""
    one, all_cells = await on.search(1), await on.search(on.cells)
    row = (all_cells - one) / ((on.cells - 1) * on.rows_per_cell)
    # Every other number is no version's: nothing of the filter can be a range, and nothing is in scope.
    nothing = VersionScope(np.arange(LITERALS, dtype=np.int64) * 2 + 1, among=0)
    filtered = await on.search(FILTER_CELLS, scope=nothing) - await on.search(FILTER_CELLS)
    deep, deep_wide = await on.search(1, k=HITS), await on.search(FILTER_CELLS, k=HITS)
    hits_one, hits_wide = min(HITS, on.rows_per_cell), min(HITS * FILTER_CELLS, on.rows_per_cell * FILTER_CELLS)
    scanned = (FILTER_CELLS - 1) * on.rows_per_cell * row
    returned_one, returned_wide = hits_one, min(HITS, hits_wide)
    # deep - one = hits_one (hit + returned); deep_wide likewise over more cells, of which HITS come back.
    per_one = (deep - one) / hits_one
    hit = ((deep_wide - one - scanned) - per_one * returned_wide) / max(hits_wide - returned_wide, 1)
    fetch = (await on.fetch(keys) - await on.fetch(keys[:1])) / (len(keys) - 1)
    return EngineCosts(
        call=one - on.rows_per_cell * row,
        row=row,
        literal=filtered / (LITERALS * FILTER_CELLS),
        hit=max(hit, 0.0),
        returned=max(per_one * returned_one / hits_one - max(hit, 0.0), 0.0),
        fetch=fetch,
    )


async def main() -> None:
    """Measure by the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uri", default="")
    parser.add_argument("--token", default="")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--cells", type=int, default=40)
    chosen = parser.parse_args()
    with ExitStack() as stack:
        uri = chosen.uri
        if not uri:
            uri = stack.enter_context(milvus_lite(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        store = MilvusVectors(MilvusSettings(uri=uri, token=SecretStr(chosen.token), timeout_s=60))
        found = await costs(store, chosen.cells, chosen.rows // chosen.cells)
        server = store._clients.server("")
        await store.aclose()
    print_line({"bench": "engine_costs", "server": server.version if server else "", **asdict(found)})


if __name__ == "__main__":
    asyncio.run(main())
