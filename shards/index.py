"""A tenant's index: which generation is live, what is written to it, which cells a query visits.

Postgres holds the state (`index_generations`), the engines hold keys and vectors. Whoever writes holds
`Database.writer_lock(tenant_id)`; readers need no lock, because a generation that is live stays until some time after
it was retired.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shards import cells, names
from shards.lexical import ChunkText, LexicalStore
from shards.models import Chunk, DocumentVersion, IndexGeneration
from shards.probe import probe
from shards.rebuild import Rebuild
from shards.settings import ShardSettings
from shards.vectors import ChunkVector, MissingCollection, Scored, VectorStore, VersionScope

_CACHED = 256


@dataclass(frozen=True)
class Generation:
    """One generation of a tenant's vector index, ready for use. `centroids` is cells x dim, or None for one cell."""

    tenant_id: UUID
    number: int
    collection: str
    centroids: NDArray[np.float32] | None
    cell_rows: NDArray[np.int64] | None
    trained_rows: int

    @property
    def cells(self) -> int:
        """Return the number of cells."""
        return 1 if self.centroids is None else len(self.centroids)


@dataclass(frozen=True)
class IndexRow:
    """A chunk on its way into the engines."""

    chunk_id: UUID
    version_no: int
    heading: str
    text: str
    vector: NDArray[np.float32]


@dataclass(frozen=True)
class AnnHits:
    """What the vector store found, and how much of the index was looked at."""

    hits: list[Scored]
    cells_visited: int
    cells_total: int
    rows_scanned: int | None


class TenantIndexes:
    """Reads and writes the indexes of all tenants."""

    def __init__(
        self, vectors: VectorStore, lexical: LexicalStore, settings: ShardSettings, *, embedder: str, dim: int
    ) -> None:
        self.vectors = vectors
        self.lexical = lexical
        self._settings = settings
        self._embedder = embedder
        self._dim = dim
        self._cache: OrderedDict[tuple[UUID, int], Generation] = OrderedDict()

    async def live(self, session: AsyncSession, tenant_id: UUID) -> Generation | None:
        """Return the generation that queries read, None before the first chunk. One query; centroids are cached."""
        number = await session.scalar(
            select(IndexGeneration.generation).where(
                IndexGeneration.tenant_id == tenant_id, IndexGeneration.state == "live"
            )
        )
        if number is None:
            return None
        cached = self._cache.get((tenant_id, number))
        if cached is not None:
            self._cache.move_to_end((tenant_id, number))
            return cached
        generation = _generation(await session.get_one(IndexGeneration, (tenant_id, number)))
        self._cache[(tenant_id, number)] = generation
        while len(self._cache) > _CACHED:
            self._cache.popitem(last=False)
        return generation

    async def open(self, session: AsyncSession, tenant_id: UUID) -> Generation:
        """Return the live generation, creating the first one (in the caller's transaction) when there is none."""
        found = await self.live(session, tenant_id)
        if found is not None:
            return found
        row = self._new_row(tenant_id, 1, "live")
        await self.vectors.create(row.collection, dim=self._dim, cells=1)
        session.add(row)
        await session.flush()
        return _generation(row)

    async def insert(self, generation: Generation, rows: Sequence[IndexRow]) -> None:
        """Write chunks into both engines. Idempotent by chunk id."""
        by_cell: dict[int, list[ChunkVector]] = {}
        for row, cell in zip(rows, _assign(generation, rows), strict=True):
            by_cell.setdefault(int(cell), []).append(ChunkVector(row.chunk_id, row.version_no, row.vector))
        await self.vectors.insert(generation.collection, by_cell)
        texts = [ChunkText(row.chunk_id, row.version_no, row.heading, row.text) for row in rows]
        await self.lexical.insert(names.lexical_name(generation.tenant_id), texts)

    async def delete_versions(self, session: AsyncSession, tenant_id: UUID, versions: Sequence[int]) -> dict[str, int]:
        """Remove versions from every generation and from the lexical index; return the counts per engine."""
        generations = await session.scalars(select(IndexGeneration).where(IndexGeneration.tenant_id == tenant_id))
        counts = {"vectors": 0, "lexical": 0}
        for generation in generations:
            with suppress(MissingCollection) if generation.state == "building" else nullcontext():
                counts["vectors"] += await self.vectors.delete_versions(generation.collection, versions)
        counts["lexical"] = await self.lexical.delete_versions(names.lexical_name(tenant_id), versions)
        return counts

    async def search_ann(
        self,
        generation: Generation,
        vector: NDArray[np.float32],
        *,
        k: int,
        scope: VersionScope | None,
        exact: bool = False,
    ) -> AnnHits:
        """Search the cells nearest to `vector` (all of them when `exact`)."""
        visited = None
        if generation.centroids is not None and generation.cell_rows is not None and not exact:
            visited = probe(
                vector,
                generation.centroids,
                generation.cell_rows,
                share=self._settings.probe_share,
                rows=self._settings.probe_rows,
            )
        hits = await self.vectors.search(generation.collection, vector, k=k, cells=visited, scope=scope)
        scanned = None
        if generation.cell_rows is not None:
            scanned = int(generation.cell_rows.sum() if visited is None else generation.cell_rows[visited].sum())
        total = generation.cells
        return AnnHits(hits, total if visited is None else len(visited), total, scanned)

    async def search_bm25(self, tenant_id: UUID, query: str, *, k: int, scope: VersionScope | None) -> list[Scored]:
        """Search the tenant's lexical index."""
        return await self.lexical.search(names.lexical_name(tenant_id), query, k=k, scope=scope)

    async def word_idf(self, tenant_id: UUID, words: Sequence[str]) -> dict[str, float]:
        """Return the inverse document frequency of words in the tenant's own index."""
        return await self.lexical.word_idf(names.lexical_name(tenant_id), words)

    def wants_training(self, generation: Generation, rows: int) -> bool:
        """Say whether cells would pay now: past the threshold, or grown a multiple since they were trained."""
        if generation.centroids is None:
            return rows >= self._settings.threshold
        return rows >= generation.trained_rows * self._settings.retrain_growth

    async def plan_next(self, session: AsyncSession, live: Generation) -> Rebuild:
        """Plan the next generation; the caller commits before it is filled. See `shards.rebuild`."""
        table = IndexGeneration
        mine = table.tenant_id == live.tenant_id
        await session.execute(
            update(table).where(mine, table.state == "building").values(state="retired", retired_at=datetime.now(UTC))
        )
        number = int(await session.scalar(select(func.max(table.generation)).where(mine)) or 0) + 1
        row = self._new_row(live.tenant_id, number, "building")
        session.add(row)
        await session.flush()
        return Rebuild(
            self.vectors,
            self._settings,
            tenant_id=live.tenant_id,
            live=live.collection,
            number=number,
            collection=row.collection,
        )

    async def stored(self, session: AsyncSession, tenant_id: UUID) -> dict[UUID, int]:
        """Return every chunk that Postgres holds, with its version's number: what the live generation holds."""
        query = (
            select(Chunk.id, DocumentVersion.version_no)
            .join(
                DocumentVersion,
                (DocumentVersion.tenant_id == Chunk.tenant_id)
                & (DocumentVersion.document_id == Chunk.document_id)
                & (DocumentVersion.version == Chunk.version),
            )
            .where(Chunk.tenant_id == tenant_id)
        )
        return {row.id: row.version_no for row in await session.execute(query)}

    async def adopt(self, session: AsyncSession, rebuilt: Rebuild) -> None:
        """Make a rebuilt generation the live one and retire the other, in the caller's transaction and writer lock.

        Raises:
            RuntimeError: the collection does not hold as many rows as were written to it.
        """
        found = await self.vectors.count(rebuilt.collection)
        if found != rebuilt.rows:
            raise RuntimeError(f"{rebuilt.collection} holds {found} rows, not {rebuilt.rows}")
        table = IndexGeneration
        mine = table.tenant_id == rebuilt.tenant_id
        await session.execute(
            update(table).where(mine, table.state == "live").values(state="retired", retired_at=datetime.now(UTC))
        )
        await session.execute(
            update(table)
            .where(mine, table.generation == rebuilt.number)
            .values(
                state="live",
                cells=len(rebuilt.centroids),
                centroids=rebuilt.centroids.astype(np.float32).tobytes(),
                cell_rows=rebuilt.cell_rows.tolist(),
                trained_rows=rebuilt.rows,
            )
        )

    async def drop_retired(self, session: AsyncSession, tenant_id: UUID) -> int:
        """Drop the collections of retired generations; return how many."""
        retired = await session.scalars(
            select(IndexGeneration).where(IndexGeneration.tenant_id == tenant_id, IndexGeneration.state == "retired")
        )
        dropped = 0
        for row in retired:
            await self.vectors.drop(row.collection)
            await session.delete(row)
            dropped += 1
        return dropped

    async def drop_tenant(self, tenant_id: UUID) -> dict[str, int]:
        """Drop every collection and the lexical index of a tenant, known to Postgres or not; return the counts."""
        prefix = names.collection_prefix(tenant_id)
        counts = {"collections": 0, "vectors": 0, "lexical_entries": 0}
        for collection in await self.vectors.collections():
            if collection.startswith(prefix):
                counts["vectors"] += await self.vectors.count(collection)
                counts["collections"] += int(await self.vectors.drop(collection))
        name = names.lexical_name(tenant_id)
        if name in await self.lexical.indexes():
            counts["lexical_entries"] = await self.lexical.count(name)
            await self.lexical.drop(name)
        return counts

    def _new_row(self, tenant_id: UUID, number: int, state: str) -> IndexGeneration:
        return IndexGeneration(
            tenant_id=tenant_id,
            generation=number,
            state=state,
            collection=names.collection_name(tenant_id, number),
            embedder=self._embedder,
            dim=self._dim,
            cells=1,
            trained_rows=0,
        )


def _assign(generation: Generation, rows: Sequence[IndexRow]) -> NDArray[np.int64]:
    if generation.centroids is None:
        return np.zeros(len(rows), dtype=np.int64)
    return cells.assign(np.stack([row.vector for row in rows]), generation.centroids)


def _generation(row: IndexGeneration) -> Generation:
    centroids = None
    if row.centroids is not None:
        centroids = np.frombuffer(row.centroids, dtype=np.float32).reshape(row.cells, row.dim)
    return Generation(
        tenant_id=row.tenant_id,
        number=row.generation,
        collection=row.collection,
        centroids=centroids,
        cell_rows=None if row.cell_rows is None else np.array(row.cell_rows, dtype=np.int64),
        trained_rows=row.trained_rows,
    )
