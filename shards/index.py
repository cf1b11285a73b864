"""A tenant's index: which generation is live, what is written to it, and how it is searched.

Postgres holds the state (`Catalog`), the engines hold keys and vectors. Whoever writes holds
`Database.writer_lock(tenant_id)`; readers need no lock, because a generation that is live stays until some time after
it was retired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards import cells, names, probe
from shards.catalog import Catalog, Header, MicroRows, Place
from shards.generation import Generation, Generations
from shards.lexical import ChunkText, LexicalStore
from shards.probe import AnnHits, AnnQuery
from shards.rebuild import Rebuild
from shards.settings import ShardSettings
from shards.vectors import ChunkVector, MissingCollection, Scored, VectorStore, VersionScope


@dataclass(frozen=True)
class IndexRow:
    """A chunk on its way into the engines."""

    chunk_id: UUID
    version_no: int
    heading: str
    text: str
    vector: NDArray[np.float32]


class TenantIndexes:
    """Reads and writes the indexes of all tenants."""

    def __init__(
        self, vectors: VectorStore, lexical: LexicalStore, settings: ShardSettings, *, embedder: str, dim: int
    ) -> None:
        self.vectors = vectors
        self.lexical = lexical
        self.settings = settings
        self._embedder = embedder
        self._dim = dim
        self._generations = Generations()
        self._centroids: dict[tuple[UUID, int], tuple[int, NDArray[np.float32]]] = {}

    async def live(self, catalog: Catalog) -> Generation | None:
        """Return the generation that queries read, None before the first chunk."""
        header = await catalog.live()
        return None if header is None else await self._generations.current(catalog, header)

    async def open(self, catalog: Catalog) -> Generation:
        """Return the live generation, creating the first one (in the caller's transaction) when there is none."""
        found = await self.live(catalog)
        if found is not None:
            return found
        number = await catalog.last_number() + 1
        collection = names.collection_name(catalog.tenant_id, number)
        await self.vectors.create(collection, dim=self._dim, cells=1)
        await catalog.plan(collection, embedder=self._embedder, dim=self._dim, number=number, state="live")
        nothing = np.zeros((1, self._dim), dtype=np.float32)
        zero = np.zeros(1, dtype=np.int64)
        await catalog.add_micros(number, MicroRows(zero, zero, zero, nothing, nothing))
        header = await catalog.live()
        assert header is not None
        return await self._generations.current(catalog, header)

    async def insert(self, catalog: Catalog, generation: Generation, rows: Sequence[IndexRow]) -> None:
        """Write chunks into both engines and record where they lie. Idempotent by chunk id."""
        micros = await self._assign(catalog, generation, rows)
        in_cells = generation.cell_of(micros)
        by_cell: dict[int, list[ChunkVector]] = {}
        for row, cell in zip(rows, in_cells, strict=True):
            by_cell.setdefault(int(cell), []).append(ChunkVector(row.chunk_id, row.version_no, row.vector))
        await self.vectors.insert(generation.collection, by_cell)
        texts = [ChunkText(row.chunk_id, row.version_no, row.heading, row.text) for row in rows]
        await self.lexical.insert(names.lexical_name(generation.tenant_id), texts)
        places = [Place(row.chunk_id, row.version_no, int(micro)) for row, micro in zip(rows, micros, strict=True)]
        fresh = await catalog.add(generation.number, places)
        new = np.array([row.chunk_id in fresh for row in rows], dtype=np.bool_)
        if new.any():
            vectors = np.stack([row.vector for row in rows])
            await catalog.count(generation.number, _changes(micros[new], vectors[new], 1))

    async def delete_versions(self, catalog: Catalog, versions: Sequence[int]) -> dict[str, int]:
        """Remove versions from every generation and from the lexical index; return the counts per engine."""
        counts = {"vectors": 0, "lexical": 0}
        for header in await catalog.generations("live", "building", "retired"):
            with suppress(MissingCollection) if header.state == "building" else nullcontext():
                if header.state == "live":
                    await self._uncount(catalog, header, versions)
                counts["vectors"] += await self.vectors.delete_versions(header.collection, versions)
        counts["lexical"] = await self.lexical.delete_versions(names.lexical_name(catalog.tenant_id), versions)
        return counts

    async def search_ann(self, generation: Generation, query: AnnQuery) -> AnnHits:
        """Search a generation's vectors; see `shards.probe`."""
        return await probe.search(self.vectors, generation, query)

    async def search_bm25(self, tenant_id: UUID, query: str, *, k: int, scope: VersionScope | None) -> list[Scored]:
        """Search the tenant's lexical index."""
        return await self.lexical.search(names.lexical_name(tenant_id), query, k=k, scope=scope)

    async def word_idf(self, tenant_id: UUID, words: Sequence[str]) -> dict[str, float]:
        """Return the inverse document frequency of words in the tenant's own index."""
        return await self.lexical.word_idf(names.lexical_name(tenant_id), words)

    def wants_training(self, generation: Generation, rows: int) -> bool:
        """Say whether cells would pay now: past the threshold, or grown a multiple since they were trained."""
        if generation.routing is None:
            return rows >= self.settings.threshold
        return rows >= generation.header.trained_rows * self.settings.retrain_growth

    async def plan_next(self, catalog: Catalog, live: Generation) -> Rebuild:
        """Plan the next generation; the caller commits before it is filled. See `shards.rebuild`."""
        await catalog.retire("building")
        number = await catalog.last_number() + 1
        collection = names.collection_name(catalog.tenant_id, number)
        await catalog.plan(collection, embedder=self._embedder, dim=self._dim, number=number, state="building")
        return Rebuild(self.vectors, self.settings, live=live.collection, number=number, collection=collection)

    async def adopt(self, catalog: Catalog, rebuilt: Rebuild) -> None:
        """Make a rebuilt generation the live one and retire the other, in the caller's transaction and writer lock.

        Raises:
            RuntimeError: the collection does not hold as many rows as were written to it.
        """
        found = await self.vectors.count(rebuilt.collection)
        if found != rebuilt.rows:
            raise RuntimeError(f"{rebuilt.collection} holds {found} rows, not {rebuilt.rows}")
        await rebuilt.record(catalog)
        await catalog.add_micros(rebuilt.number, rebuilt.micros)
        await catalog.retire("live")
        await catalog.set(
            rebuilt.number,
            state="live",
            cells=rebuilt.cells,
            micros=len(rebuilt.micros.micro),
            dimension=rebuilt.dimension,
            calibration=rebuilt.calibration,
            trained_rows=rebuilt.rows,
        )

    async def drop_retired(self, catalog: Catalog) -> int:
        """Drop the collections of retired generations; return how many."""
        retired = await catalog.generations("retired")
        for header in retired:
            await self.vectors.drop(header.collection)
        await catalog.forget([header.number for header in retired])
        return len(retired)

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

    async def _assign(self, catalog: Catalog, generation: Generation, rows: Sequence[IndexRow]) -> NDArray[np.int64]:
        if generation.routing is None:
            return np.zeros(len(rows), dtype=np.int64)
        centroids = await self._trained(catalog, generation)
        return cells.assign(np.stack([row.vector for row in rows]), centroids)

    async def _trained(self, catalog: Catalog, generation: Generation) -> NDArray[np.float32]:
        """Return the centroids (micros, dim), which change only when micro-cells are added."""
        key = (generation.tenant_id, generation.number)
        kept = self._centroids.get(key)
        if kept is None or kept[0] != generation.header.micros:
            found = await catalog.micro_rows(generation.number, centroids=True)
            assert found.centroids is not None
            kept = (generation.header.micros, found.centroids)
            self._centroids[key] = kept
        return kept[1]

    async def _uncount(self, catalog: Catalog, header: Header, versions: Sequence[int]) -> None:
        """Take the rows of versions out of what is known of their micro-cells, before they are deleted."""
        gone = await catalog.remove(header.number, versions)
        if not gone:
            return
        micros = np.array([place.micro for place in gone], dtype=np.int64)
        generation = await self._generations.current(catalog, header)
        by_cell: dict[int, list[UUID]] = {}
        for place, cell in zip(gone, generation.cell_of(micros), strict=True):
            by_cell.setdefault(int(cell), []).append(place.chunk_id)
        vectors = {row.chunk_id: row.vector for row in await self.vectors.fetch(header.collection, by_cell)}
        nothing = np.zeros(self._dim, dtype=np.float32)
        matrix = np.stack([vectors.get(place.chunk_id, nothing) for place in gone])
        await catalog.count(header.number, _changes(micros, matrix, -1))


def _changes(
    micros: NDArray[np.int64], vectors: NDArray[np.float32], sign: int
) -> Mapping[int, tuple[int, NDArray[np.float32]]]:
    """Return for each micro-cell the rows and the summed vectors that come (`sign` 1) or go (-1)."""
    numbers, places, counts = np.unique(micros, return_inverse=True, return_counts=True)
    sums = np.zeros((len(numbers), vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, places, vectors)
    return {int(m): (sign * int(n), sign * total) for m, n, total in zip(numbers, counts, sums, strict=True)}
