"""A tenant's index: which generation is live, what is written to it, and how it is searched.

Postgres holds the state (`Catalog`), the engines hold keys and vectors. Whoever writes holds
`Database.writer_lock(tenant_id)`; readers need no lock, because a generation that is live stays until some time after
it was retired.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards import cells, names, probe
from shards.balance import wishes
from shards.catalog import Catalog, CellChange, Header, Place, Recipe
from shards.editions import dead_editions, empty_micros
from shards.generation import NO_CELL, Generation, Generations
from shards.lexical import ChunkText, DamagedIndex, LexicalStore
from shards.pace import Pace
from shards.placement import Target, first_space, space_of, target
from shards.probe import AnnHits, AnnQuery
from shards.rebuild import Rebuild
from shards.reshape import Reshape
from shards.settings import ShardSettings
from shards.vectors import MAX_CELLS, ChunkVector, MissingCollection, Scored, VectorStore, VersionScope, chunks_by_cell
from tenants.context import Placement

_CENTROIDS_KEPT = 32
"""Generations whose centroids a writing process remembers."""


@dataclass(frozen=True)
class IndexRow:
    """A chunk on its way into the engines."""

    chunk_id: UUID
    version_no: int
    heading: str
    text: str
    vector: NDArray[np.float32]
    language: str | None = None


class TenantIndexes:
    """Reads and writes the indexes of all tenants."""

    def __init__(
        self,
        vectors: VectorStore,
        lexical: LexicalStore,
        settings: ShardSettings,
        *,
        embedder: str,
        dim: int,
        pace: Pace | None = None,
    ) -> None:
        self.vectors = vectors
        self.lexical = lexical
        self.settings = settings
        self.first_recipe = Recipe(embedder)
        self._dim = dim
        self._pace = pace or Pace()
        self._generations = Generations()
        self._centroids: OrderedDict[tuple[UUID, int], tuple[int, NDArray[np.int64], NDArray[np.float32]]]
        self._centroids = OrderedDict()

    async def live(self, catalog: Catalog) -> Generation | None:
        """Return the generation that queries read, None before the first chunk."""
        header = await catalog.live()
        return None if header is None else await self._generations.current(catalog, header)

    def kept(self, tenant_id: UUID, header: Header) -> Generation | None:
        """Return the generation of a header that was just read, None if more of it has to be read first: `current`."""
        return self._generations.kept(tenant_id, header)

    async def current(self, catalog: Catalog, header: Header) -> Generation:
        """Return the generation of a header that was just read."""
        return await self._generations.current(catalog, header)

    async def plan_first(self, catalog: Catalog, placement: Placement, *, edition: int | None = None) -> None:
        """Plan the tenant's first generation where there is none. The caller commits before `open`, so that its space
        is known, and is cleared by every purge, whatever becomes of the first attempt to write to it. `edition` is that
        of chunks which are there already, because the generation that they were in is lost."""
        if await catalog.live() is not None or await catalog.generations("building"):
            return
        number = await catalog.last_number() + 1
        if edition is None:
            edition = await catalog.last_edition() + 1
        space = first_space(catalog.tenant_id, number, self._dim, placement, self.settings)
        await catalog.plan(space, state="building", recipe=self.first_recipe, edition=edition)
        await catalog.add_micros(number, empty_micros(self._dim))

    async def open(self, catalog: Catalog) -> Generation:
        """Return the live generation. The first one, which `plan_first` planned, becomes it in the caller's
        transaction."""
        found = await self.live(catalog)
        if found is not None:
            return found
        [first] = await catalog.generations("building")
        await catalog.serialise(first.space)
        await self.vectors.create(first.space, cells=1)
        await catalog.set(first.number, state="live")
        header = await catalog.live()
        assert header is not None
        return await self._generations.current(catalog, header)

    async def insert(
        self, catalog: Catalog, generation: Generation, rows: Sequence[IndexRow], *, repeated: Sequence[int] = ()
    ) -> bool:
        """Write chunks into both engines and record where they lie; return what `insert_texts` does.

        Idempotent by chunk id. What an interrupted attempt wrote of the versions `repeated` is removed first: it may
        lie in other cells than the rows belong to by now.
        """
        await catalog.serialise(generation.space)
        if repeated:
            await self.vectors.delete_versions(generation.space, repeated)
        micros = await self._assign(catalog, generation, rows)
        in_cells = generation.cell_of(micros)
        by_cell: dict[int, list[ChunkVector]] = {}
        for row, cell in zip(rows, in_cells, strict=True):
            by_cell.setdefault(int(cell), []).append(ChunkVector(row.chunk_id, row.version_no, row.vector))
        await self._write(catalog, generation, by_cell)
        texts = [ChunkText(row.chunk_id, row.version_no, row.heading, row.text, row.language) for row in rows]
        left = await self.insert_texts(generation.header, texts)
        places = [Place(row.chunk_id, row.version_no, int(micro)) for row, micro in zip(rows, micros, strict=True)]
        fresh = await catalog.add(generation.number, places)
        new = np.array([row.chunk_id in fresh for row in rows], dtype=np.bool_)
        if new.any():
            vectors = np.stack([row.vector for row in rows])
            await catalog.count(generation.number, _changes(micros[new], vectors[new], 1))
        return left

    async def insert_texts(self, header: Header, texts: Sequence[ChunkText]) -> bool:
        """Write chunks into a generation's lexical index, which comes to lie as its vectors do: shared or by itself.
        Return whether it was moved for that and something stayed, for which the caller queues a `drop_retired`."""
        name = names.lexical_name(header.space.tenant_id, header.edition)
        left = await self.lexical.place(name, shared=header.space.pooled)
        await self.lexical.insert(name, texts)
        return left

    async def restore(self, catalog: Catalog, generation: Generation, rows: Sequence[IndexRow]) -> bool:
        """Write the vectors of chunks that the engine lost: each into the cell in which Postgres places it. Those that
        have no place are inserted as new ones. Return what `insert_texts` does."""
        await catalog.serialise(generation.space)
        await self.complete(generation)
        versions = sorted({row.version_no for row in rows})
        placed = {place.chunk_id: place.micro for place in await catalog.places(generation.number, versions=versions)}
        by_cell: dict[int, list[ChunkVector]] = {}
        for row in rows:
            if row.chunk_id in placed:
                [cell] = generation.cell_of(np.array([placed[row.chunk_id]]))
                by_cell.setdefault(int(cell), []).append(ChunkVector(row.chunk_id, row.version_no, row.vector))
        await self._write(catalog, generation, by_cell)
        fresh = [row for row in rows if row.chunk_id not in placed]
        return bool(fresh) and await self.insert(catalog, generation, fresh)

    async def complete(self, generation: Generation) -> None:
        """Make the generation's collection and cells as far as they are not there."""
        space = generation.space
        wanted = {0} if space.pooled else {int(cell) for cell in generation.micros.cell if cell != NO_CELL}
        try:
            present = await self.vectors.partitions(space)
        except MissingCollection:
            present = set()
        if space.pooled or not present:
            await self.vectors.create(space, cells=1)
            present |= {space.partition(0)}
        missing = sorted(cell for cell in wanted if space.partition(cell) not in present)
        if missing:
            await self.vectors.add_cells(space, missing)

    async def forget_versions(self, catalog: Catalog, versions: Sequence[int]) -> None:
        """Take versions out of what is known of the generations that are written to. The caller commits before
        `delete_versions`: the vectors are needed for it, so a repeat after a crash must not find them counted but
        gone."""
        for header in await catalog.generations("live", "embedding"):
            await self._uncount(catalog, header, versions)

    async def delete_versions(self, catalog: Catalog, versions: Sequence[int]) -> dict[str, int]:
        """Remove versions from every generation and every lexical index; return the counts per engine."""
        counts = {"vectors": 0, "lexical": 0}
        headers = await catalog.generations("live", "building", "embedding", "retired")
        for header in headers:
            await catalog.serialise(header.space)
            with nullcontext() if header.state == "live" else suppress(MissingCollection):
                counts["vectors"] += await self.vectors.delete_versions(header.space, versions)
        for edition in sorted({header.edition for header in headers}):
            name = names.lexical_name(catalog.tenant_id, edition)
            counts["lexical"] += await self.lexical.delete_versions(name, versions)
        return counts

    async def count_versions(self, catalog: Catalog, versions: Sequence[int]) -> dict[str, int]:
        """Return how many entries of versions each engine holds: what proves that they were removed."""
        counts = {"vectors": 0, "lexical": 0}
        headers = await catalog.generations("live", "building", "embedding", "retired")
        for header in headers:
            with suppress(MissingCollection):
                counts["vectors"] += await self.vectors.count_versions(header.space, versions)
        for edition in sorted({header.edition for header in headers}):
            name = names.lexical_name(catalog.tenant_id, edition)
            counts["lexical"] += await self.lexical.count_versions(name, versions)
        return counts

    async def search_ann(self, generation: Generation, query: AnnQuery) -> AnnHits:
        """Search a generation's vectors; see `shards.probe`."""
        return await probe.search(self.vectors, generation, query)

    async def search_bm25(
        self, generation: Generation, query: str, *, k: int, scope: VersionScope | None
    ) -> list[Scored]:
        """Search the lexical index of a generation's chunks."""
        name = names.lexical_name(generation.tenant_id, generation.header.edition)
        return await self.lexical.search(name, query, k=k, scope=scope)

    async def word_idf(self, generation: Generation, words: Sequence[str]) -> dict[str, float]:
        """Return the inverse document frequency of words in the tenant's own index."""
        return await self.lexical.word_idf(names.lexical_name(generation.tenant_id, generation.header.edition), words)

    def wants_upkeep(self, generation: Generation, rows: int, placement: Placement) -> bool:
        """Say whether the generation is to be moved, trained anew, or its cells divided or joined."""
        if target(generation, rows, placement, self.settings, room=MAX_CELLS) is not None:
            return True
        return generation.routing is not None and bool(wishes(generation.routing, self.settings, most=1))

    async def plan_next(self, catalog: Catalog, live: Generation, wanted: Target) -> Rebuild:
        """Plan the next generation; the caller commits before it is filled. See `shards.rebuild`."""
        number, header = await catalog.last_number() + 1, live.header
        space = space_of(catalog.tenant_id, number, live.space.dim, wanted.tier, wanted.endpoint, self.settings)
        await catalog.plan(space, state="building", recipe=header.recipe, edition=header.edition, cells=wanted.cells)
        return Rebuild(self.vectors, self.settings, live=live, space=space, cells=wanted.cells, pace=self._pace)

    async def adopt(self, catalog: Catalog, rebuilt: Rebuild) -> None:
        """Make a rebuilt generation the live one and retire the other, in the caller's transaction and writer lock. Its
        words move along, and back with the next write if the transaction fails: one of this process, or one of another
        that comes a minute later.

        Raises:
            RuntimeError: the collection does not hold what was written to it.
        """
        await rebuilt.verify(range(rebuilt.cells))
        for header in await catalog.generations("live"):
            name = names.lexical_name(catalog.tenant_id, header.edition)
            await self.lexical.place(name, shared=rebuilt.space.pooled)
        await rebuilt.record(catalog)
        await catalog.add_micros(rebuilt.number, rebuilt.micros)
        await catalog.retire("live")
        await catalog.set(
            rebuilt.number,
            state="live",
            next_cell=rebuilt.cells,
            cells=rebuilt.cells,
            micros=len(rebuilt.micros.micro),
            rows=rebuilt.rows,
            dimension=rebuilt.dimension,
            calibration=rebuilt.calibration,
            trained_rows=rebuilt.rows,
            trained_residual=rebuilt.residual,
            mark=await self.vectors.mark(rebuilt.space),
        )

    async def plan_changes(
        self, catalog: Catalog, live: Generation, heat: Mapping[int, float] | None = None, *, room: int = MAX_CELLS
    ) -> list[CellChange]:
        """Plan the changes of cells that are due and for which the engine has room; the caller commits before the first
        is begun."""
        due = [] if live.routing is None else wishes(live.routing, self.settings, heat=heat)
        due = [wish for wish, more in zip(due, accumulate(wish.children for wish in due), strict=True) if more <= room]
        return [await catalog.plan_change(live.number, wish.kind, wish.parents, wish.children) for wish in due]

    async def abandon(self, catalog: Catalog, live: Generation) -> None:
        """Give up what was planned and never came to its end, by whoever holds the rebuild lock now."""
        await catalog.retire("building")
        for change in await catalog.changes(live.number, "copying"):
            await self.vectors.drop_cells(live.space, change.children)
            await catalog.set_change(change, "abandoned")

    def reshape(self, live: Generation, change: CellChange) -> Reshape:
        """Begin a planned change. See `shards.reshape`."""
        return Reshape(self.vectors, self.settings, live, change, self._pace)

    async def flip(self, catalog: Catalog, reshaped: Reshape) -> None:
        """Let queries read the children of a change, in the caller's transaction and writer lock.

        Raises:
            RuntimeError: the children do not hold what was written to them.
        """
        change = reshaped.change
        await reshaped.verify(change.children)
        header = await catalog.live()
        assert header is not None
        micros = reshaped.micros
        await catalog.move(change.generation, list(reshaped.held.values()))
        await catalog.empty_micros(change.generation, reshaped.replaced)
        await catalog.add_micros(change.generation, micros)
        cells_now = header.cells - len(change.parents) + len(change.children)
        mark = await self.vectors.mark(reshaped.space)
        await catalog.set(change.generation, micros=header.micros + len(micros.micro), cells=cells_now, mark=mark)
        await catalog.set_change(change, "flipped")

    async def drop_retired(self, catalog: Catalog, *, grace: timedelta) -> int:
        """Drop the collections of generations and the cells that were replaced at least `grace` ago, and what moves of
        words left: no query that began before reads them any more. Return how many of the first two."""
        retired = await catalog.generations("retired", before=grace)
        for edition in await dead_editions(catalog, grace=grace):
            await self.lexical.drop(names.lexical_name(catalog.tenant_id, edition))
        for header in retired:
            await catalog.serialise(header.space)
            await self.vectors.drop(header.space)
        await catalog.forget([header.number for header in retired])
        dropped = len(retired)
        for header in await catalog.generations("live"):
            await self.lexical.tidy(names.lexical_name(catalog.tenant_id, header.edition), grace=grace)
            for change in await catalog.changes(header.number, "flipped", before=grace):
                await self.vectors.drop_cells(header.space, change.parents)
                await catalog.set_change(change, "done")
                dropped += len(change.parents)
        return dropped

    async def drop_tenant(self, catalog: Catalog, *, endpoints: Collection[str]) -> dict[str, int]:
        """Drop every collection of a tenant on these vector servers, known to Postgres or not, and every lexical index;
        return the counts."""
        for header in await catalog.generations("live", "building", "embedding", "retired"):
            await catalog.serialise(header.space)
        collections, rows = await self.vectors.drop_tenant(catalog.tenant_id, endpoints=endpoints)
        counts = {"collections": collections, "vectors": rows, "lexical_entries": 0}
        for name in await self.lexical.indexes(of=catalog.tenant_id):
            with suppress(DamagedIndex):  # what cannot be read is not counted, and goes all the same
                counts["lexical_entries"] += await self.lexical.count(name)
            await self.lexical.drop(name)
        return counts

    async def _write(
        self, catalog: Catalog, generation: Generation, by_cell: Mapping[int, Sequence[ChunkVector]]
    ) -> None:
        """Write rows, and what a search must have seen to find them, which holds from the caller's commit on."""
        await self.vectors.insert(generation.space, by_cell)
        await catalog.set(generation.number, mark=await self.vectors.mark(generation.space))

    async def _assign(self, catalog: Catalog, generation: Generation, rows: Sequence[IndexRow]) -> NDArray[np.int64]:
        if generation.routing is None:
            return np.zeros(len(rows), dtype=np.int64)
        numbers, centroids = await self._trained(catalog, generation)
        return numbers[cells.assign(np.stack([row.vector for row in rows]), centroids)]

    async def _trained(self, catalog: Catalog, generation: Generation) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the numbers (n,) and centroids (n, dim) of the micro-cells that take rows. They change only when
        some are replaced by others, which have higher numbers."""
        key, made = (generation.tenant_id, generation.number), generation.header.micros
        kept = self._centroids.get(key)
        if kept is None or kept[0] != made:
            dim = generation.space.dim
            before = kept or (0, np.empty(0, dtype=np.int64), np.empty((0, dim), dtype=np.float32))
            more = await catalog.micro_rows(generation.number, first=before[0], centroids=True)
            assert more.centroids is not None
            numbers = np.concatenate([before[1], more.micro])
            centroids = np.concatenate([before[2], more.centroids.reshape(len(more.micro), dim)])
            taking = generation.micros.cell[numbers] != NO_CELL
            kept = (made, numbers[taking], centroids[taking])
        self._centroids[key] = kept
        self._centroids.move_to_end(key)
        while len(self._centroids) > _CENTROIDS_KEPT:
            self._centroids.popitem(last=False)
        return kept[1], kept[2]

    async def _uncount(self, catalog: Catalog, header: Header, versions: Sequence[int]) -> None:
        gone = await catalog.remove(header.number, versions)
        if not gone:
            return
        micros = np.array([place.micro for place in gone], dtype=np.int64)
        generation = await self._generations.current(catalog, header)
        chunk_ids = [place.chunk_id for place in gone]
        by_cell = chunks_by_cell(zip(chunk_ids, generation.cell_of(micros), strict=True))
        vectors = {row.chunk_id: row.vector for row in await self.vectors.fetch(header.space, by_cell)}
        nothing = np.zeros(header.space.dim, dtype=np.float32)
        matrix = np.stack([vectors.get(chunk_id, nothing) for chunk_id in chunk_ids])
        await catalog.count(header.number, _changes(micros, matrix, -1))


def _changes(
    micros: NDArray[np.int64], vectors: NDArray[np.float32], sign: int
) -> Mapping[int, tuple[int, NDArray[np.float32]]]:
    """Return for each micro-cell the rows and the summed vectors that come (`sign` 1) or go (-1)."""
    numbers, places, counts = np.unique(micros, return_inverse=True, return_counts=True)
    sums = np.zeros((len(numbers), vectors.shape[1]), dtype=np.float32)
    np.add.at(sums, places, vectors)
    return {int(m): (sign * int(n), sign * total) for m, n, total in zip(numbers, counts, sums, strict=True)}
