"""What the service asks of a vector store: spaces of unit vectors in cells, searched exactly inside the cells."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards.names import Space
from tenants.errors import TesseraError

MAX_CELLS = 1023
"""A Milvus server takes 1,024 partitions a collection, one of them its own."""
MAX_K = 16_384
"""The most hits that one Milvus search returns."""
UNMARKED = 0
"""The mark of a space to which nothing was written lately."""


class MissingCollection(TesseraError):
    """The collection does not exist: its generation was dropped, or never made. Read the live generation again."""

    code = "collection_missing"
    retryable = True
    title = "Collection missing"


@dataclass(frozen=True)
class ChunkVector:
    """One row: a chunk, the version of the document it belongs to, and its unit vector (dim,)."""

    chunk_id: UUID
    version_no: int
    vector: NDArray[np.float32]


def chunks_by_cell(placed: Iterable[tuple[UUID, int]]) -> dict[int, list[UUID]]:
    """Return chunks by the cell of each, as `VectorStore.fetch` and `delete_chunks` take them."""
    by_cell: dict[int, list[UUID]] = {}
    for chunk_id, cell in placed:
        by_cell.setdefault(int(cell), []).append(chunk_id)
    return by_cell


@dataclass(frozen=True)
class HeldRow:
    """A row as the store holds it: its key, the partition it lies in, and the chunk and version it says it is."""

    key: str
    partition: str
    chunk_id: UUID
    version_no: int


@dataclass(frozen=True)
class PoolRow:
    """A row of a collection that tenants share, and whose it says it is."""

    row: HeldRow
    tenant_id: UUID
    generation: int


@dataclass(frozen=True, order=True)
class StorePlace:
    """A collection as a server names it. `collection` is '' for a database that has none."""

    endpoint: str
    database: str
    collection: str


@dataclass(frozen=True)
class Scored:
    """A chunk that was found. Higher scores are better; they compare within one result only."""

    chunk_id: UUID
    score: float


@dataclass(frozen=True, eq=False)
class VersionScope:
    """The versions that a search may return. `versions` is ascending and without repeats.

    Without `among` a search returns the best k in scope, and the store chooses how. With it, it fetches so many hits
    without a filter and returns those in scope: the best ones, but perhaps fewer than k. 0 asks for a filter at once.
    With `floor` too, it fetches as many more as it takes to have seen every hit that scores above that.
    """

    versions: NDArray[np.int64]
    among: int | None = None
    floor: float | None = None

    def allows(self, version_nos: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say for each version number (n,) whether it is in scope."""
        if not len(self.versions):
            return np.zeros(len(version_nos), dtype=np.bool_)
        at = np.searchsorted(self.versions, version_nos).clip(max=len(self.versions) - 1)
        allowed: NDArray[np.bool_] = self.versions[at] == version_nos
        return allowed

    def runs(self) -> NDArray[np.int64]:
        """Return the scope as (runs, 2): first and last of each stretch of consecutive numbers.

        Documents uploaded together have consecutive versions, so thousands of versions are often a few runs.
        """
        if not len(self.versions):
            return np.empty((0, 2), dtype=np.int64)
        breaks = np.flatnonzero(np.diff(self.versions) != 1)
        firsts = self.versions[np.concatenate(([0], breaks + 1))]
        lasts = self.versions[np.concatenate((breaks, [len(self.versions) - 1]))]
        return np.stack([firsts, lasts], axis=1)


@dataclass(frozen=True)
class EngineCosts:
    """What a search costs in milliseconds, to choose between ways that find the same.

    `call` of itself; `row` for each row of the cells visited; `literal` for each version named by a filter, and `hit`
    for each hit fetched, in each cell visited; `returned` for each hit; `fetch` for each row fetched by its key.
    """

    call: float
    row: float
    literal: float
    hit: float
    returned: float
    fetch: float


@dataclass(frozen=True)
class Budget:
    """What a server may hold: partitions in all, databases of isolated tenants."""

    partitions: int
    databases: int


class VectorStore(Protocol):
    """Spaces of chunk vectors, each divided into cells. Nothing done to one space is seen in another, even where they
    share a collection (`Space.pooled`).

    Every method but `create`, `drop` and `drop_tenant` raises `MissingCollection` when the space's collection (in a
    pool: its bucket) does not exist, and every method raises `Unavailable` with the code `vectors_unavailable` when
    the store does not answer; the same store object works again once it does.

    Writes to one collection must not overlap. A store serialises those of its own process; across processes the caller
    holds the tenant's writer lock and, for a pool, `Catalog.serialise`.

    A server may show a write some time after it acknowledged it. Whoever wrote asks for the `mark` and keeps it where
    readers find it; a search that is given the mark has seen what was written before. What counts, lists or scans has
    seen everything, at the price of waiting for it.
    """

    budgets: Mapping[str, Budget]
    """What each server may hold, by the name of its endpoint; '' is the main one."""
    on_wake: Callable[[Space, float], None] | None
    """Told of each space that a call had to have loaded first, and how many milliseconds that took."""

    async def create(self, space: Space, *, cells: int) -> None:
        """Make a space with cells 0..cells-1. Repeating it, also after a crash half-way, completes it.

        Raises:
            ValueError: more than MAX_CELLS cells, or in a pool more than one.
        """

    async def add_cells(self, space: Space, cells: Sequence[int]) -> None:
        """Make further cells; those that are there stay as they are.

        Raises:
            ValueError: more than MAX_CELLS cells, or a pool.
        """

    async def drop_cells(self, space: Space, cells: Sequence[int]) -> None:
        """Remove cells with their rows; those that are not there are passed over. No search may name them any more.

        Raises:
            ValueError: a pool.
        """

    def costs(self, space: Space) -> EngineCosts:
        """Return what a search costs on the space's server, as far as is known of it by now."""

    async def mark(self, space: Space) -> int:
        """Return the mark of all that was written to the space until now, by anybody: a number that grows."""

    async def insert(self, space: Space, cell_rows: Mapping[int, Sequence[ChunkVector]]) -> None:
        """Write rows into cells. The same chunk in the same cell again replaces the row; it is never doubled.

        When it returns, the rows are durable, and seen by a search of any process that is given a later mark. When it
        raises, some rows may have been written; repeat it.

        Raises:
            ValueError: an unknown cell.
        """

    async def delete_versions(self, space: Space, versions: Sequence[int]) -> int:
        """Remove every row of these versions and return how many there were. A search that is given a later mark does
        not return them."""

    async def count_versions(self, space: Space, versions: Sequence[int]) -> int:
        """Return how many rows of these versions there are."""

    async def delete_chunks(self, space: Space, cell_chunks: Mapping[int, Sequence[UUID]]) -> None:
        """Remove the rows of chunks by the cell that each lies in; those not there are passed over."""

    async def search(
        self,
        space: Space,
        vector: NDArray[np.float32],
        *,
        k: int,
        cells: Sequence[int] | None,
        scope: VersionScope | None,
        mark: int = UNMARKED,
    ) -> list[Scored]:
        """Return the `k` rows of the cells with the greatest cosine to `vector` (dim,), best first.

        The answer is the true best k of the rows that lie in `cells` (None: all; empty: nothing) and whose version is
        in `scope` (None: any). A chunk appears once. Rows of replaced versions count like any other until they are
        deleted, so a caller who drops them afterwards asks for a few more. The order of equal scores is not defined.
        What was written after the `mark` may be missed, and what was deleted after it found.

        Raises:
            ValueError: `k` not in 1..MAX_K, or an unknown cell.
        """

    async def fetch(
        self, space: Space, cell_chunks: Mapping[int, Sequence[UUID]], *, mark: int | None = None
    ) -> list[ChunkVector]:
        """Return the rows of chunks by the cell that each lies in, in no particular order; those not there are left
        out. Without a `mark` nothing is missed; with one, what a search may miss."""

    def scan(
        self,
        space: Space,
        *,
        cells: Sequence[int] | None = None,
        versions: Sequence[int] | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[list[ChunkVector]]:
        """Stream every row (in these cells, of these versions), in no particular order, in lists of at most `batch`.

        Rows written meanwhile may be missed. A chunk that lies in two cells comes twice.

        Raises:
            ValueError: an unknown cell.
        """

    def keys(self, space: Space, *, cells: Sequence[int]) -> AsyncIterator[list[UUID]]:
        """Stream the chunk of every row in these cells, as `scan` does, without the vectors."""

    def held_rows(
        self, space: Space, *, partitions: Sequence[str] | None = None, batch: int = 5000
    ) -> AsyncIterator[list[HeldRow]]:
        """Stream every row of the space (in these partitions), wherever it lies: also outside its cells, in a pool in
        any bucket. Without the vectors."""

    async def still_held(self, space: Space, rows: Sequence[HeldRow]) -> set[HeldRow]:
        """Return those of these rows that are there now, each in its partition."""

    async def delete_rows(self, space: Space, rows: Sequence[HeldRow]) -> None:
        """Remove rows by key and partition; those not there are passed over."""

    async def partitions(self, space: Space) -> set[str]:
        """Return the partitions of the space's collection, the engine's own included."""

    async def places(
        self, tenant_id: UUID | None = None, *, endpoints: Collection[str] | None = None
    ) -> list[StorePlace]:
        """Return every collection (or those of a tenant's own) of these servers, of all without them, sorted; a
        database without any as one with the name ''."""

    def pool_rows(self, place: StorePlace, *, batch: int = 5000) -> AsyncIterator[list[PoolRow]]:
        """Stream every row of a collection that tenants share."""

    async def delete_pool_rows(self, place: StorePlace, rows: Sequence[HeldRow]) -> None:
        """Remove rows of a collection that tenants share by key and partition."""

    async def drop_place(self, place: StorePlace) -> bool:
        """Remove a collection, and its database when it was the last one there; return whether it was there."""

    async def count(self, space: Space) -> int:
        """Return the number of rows."""

    async def drop(self, space: Space) -> bool:
        """Remove the space; return whether it was there (in a pool: whether it had rows)."""

    async def drop_tenant(self, tenant_id: UUID, *, endpoints: Collection[str] | None = None) -> tuple[int, int]:
        """Remove whatever a tenant has on these servers, on any without them, known to Postgres or not; return how many
        collections were its own, and how many rows there were."""

    async def release(self, space: Space) -> bool:
        """Let the engine free the memory of a space until a call needs it again; return False where it is shared."""

    async def ping(self) -> None:
        """Return when the store answers."""

    async def check(self) -> None:
        """Return when every server answers and can be used as the settings say.

        Raises:
            Misconfigured: one never will: a refused login, a missing privilege, too old, not that kind of server.
            Unavailable: one does not answer.
        """

    async def aclose(self) -> None:
        """Release the connections. The store is not used afterwards."""
