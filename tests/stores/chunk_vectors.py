"""Rows for the vector stores, and what a search of them must find by definition."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import TypeVar
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray

from shards.names import Space
from shards.vectors import ChunkVector, VectorStore, VersionScope

DIM = 16
CELLS = 4
Rng = np.random.Generator
Row = TypeVar("Row")


def unit(rng: Rng) -> NDArray[np.float32]:
    vector = rng.standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def chunks(rng: Rng, versions: Iterable[int]) -> list[ChunkVector]:
    """A chunk of each of these versions."""
    return [ChunkVector(uuid4(), version, unit(rng)) for version in versions]


def filled(rng: Rng, rows: int) -> dict[int, list[ChunkVector]]:
    """So many chunks in each cell, each of a version of its own."""
    return {cell: chunks(rng, range(cell * rows, (cell + 1) * rows)) for cell in range(CELLS)}


def dealt(rows: Sequence[ChunkVector]) -> dict[int, Sequence[ChunkVector]]:
    """Rows dealt out to the cells in turn."""
    return {cell: rows[cell::CELLS] for cell in range(CELLS)}


def scope(versions: Iterable[int]) -> VersionScope:
    return VersionScope(np.array(sorted(set(versions)), dtype=np.int64))


def best(
    by_cell: dict[int, Sequence[ChunkVector]],
    query: NDArray[np.float32],
    k: int,
    *,
    cells: Collection[int] | None = None,
    versions: Collection[int] | None = None,
) -> dict[UUID, float]:
    """The answer by definition, best first: one row at a time."""
    scored = [
        (float(row.vector @ query), row.chunk_id)
        for cell, rows in by_cell.items()
        for row in rows
        if (cells is None or cell in cells) and (versions is None or row.version_no in versions)
    ]
    return {chunk_id: score for score, chunk_id in sorted(scored, key=lambda item: -item[0])[:k]}


async def found(
    store: VectorStore,
    space: Space,
    query: NDArray[np.float32],
    k: int,
    *,
    cells: Sequence[int] | None = None,
    within: VersionScope | None = None,
) -> dict[UUID, float]:
    """The store's answer after all that was written, best first; no chunk is in it twice."""
    hits = await store.search(space, query, k=k, cells=cells, scope=within, mark=await store.mark(space))
    scores = {hit.chunk_id: hit.score for hit in hits}
    assert len(scores) == len(hits)
    return scores


async def listed(pages: AsyncIterator[Sequence[Row]], batch: int = 5000) -> list[Row]:
    """All that is on the pages, none of which is empty or too long."""
    rows: list[Row] = []
    async for page in pages:
        assert 0 < len(page) <= batch
        rows += page
    return rows


def ids(rows: Iterable[ChunkVector]) -> set[UUID]:
    return {row.chunk_id for row in rows}
