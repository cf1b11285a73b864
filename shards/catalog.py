"""What Postgres knows of a tenant's vector index: generations, their micro-cells, where every chunk lies.

`Catalog` speaks for one tenant in one transaction of its caller, who commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards.calibration import Calibration
from shards.names import Space
from shards.vectors import UNMARKED


@dataclass(frozen=True)
class Recipe:
    """How the chunks of an edition are made: by which embedding model, of how many tokens at most (None: as the
    installation's setting says at the time)."""

    model: str
    chunk_tokens: int | None = None


NO_RECIPE = Recipe("")


@dataclass(frozen=True)
class Header:
    """A generation without its micro-cells. `stamp` is that of the newest change to them.

    State: building (a copy of the live one), embedding (of chunks made anew), live, retired, gone. Generations of one
    `edition` hold the same chunks; those of another hold the same documents, cut or embedded by another recipe.
    """

    number: int
    state: str
    space: Space
    micros: int
    cells: int
    stamp: int
    dimension: float | None
    calibration: Calibration | None
    trained_rows: int
    trained_residual: float | None = None
    """How far rows lay from their micro-cell's mean after the training: `Routing.residual`."""
    edition: int = 1
    recipe: Recipe = NO_RECIPE
    mark: int = UNMARKED
    """`VectorStore.mark` after the last write to it: what a search must have seen."""


@dataclass(frozen=True)
class Place:
    """Where a chunk lies in one generation."""

    chunk_id: UUID
    version_no: int
    micro: int


@dataclass(frozen=True, eq=False)
class MicroRows:
    """Some micro-cells of a generation, as arrays over them: `micro`, `cell`, `rows` (n,), `sums` (n, dim), and
    `centroids` (n, dim) where they were asked for."""

    micro: NDArray[np.int64]
    cell: NDArray[np.int64]
    rows: NDArray[np.int64]
    sums: NDArray[np.float32]
    centroids: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class CellChange:
    """Cells of a generation (`parents`) that become others (`children`).

    Kind: split, merge. State: copying, flipped (queries read the children), done (the parents are gone), abandoned.
    """

    id: UUID
    generation: int
    kind: str
    state: str
    parents: tuple[int, ...]
    children: tuple[int, ...]


class Catalog(Protocol):
    """The index of one tenant, as Postgres has it."""

    tenant_id: UUID

    async def live(self) -> Header | None:
        """Return the generation that queries read, None before the first chunk."""

    async def generations(self, *states: str, before: timedelta | None = None) -> list[Header]:
        """Return the generations in these states, or of them those retired at least so long ago."""

    async def plan(self, space: Space, *, state: str, recipe: Recipe, edition: int, cells: int = 1) -> None:
        """Record a new generation of one empty micro-cell, that is to have so many cells."""

    async def serialise(self, space: Space) -> None:
        """Let nobody else write to a collection that tenants share, until the transaction ends; nothing for others."""

    async def last_number(self) -> int:
        """Return the highest number that a generation has, 0 before the first."""

    async def last_edition(self) -> int:
        """Return the highest edition that a generation has, 0 before the first."""

    async def micro_rows(
        self, generation: int, *, after: int = -1, first: int = 0, centroids: bool = False
    ) -> MicroRows:
        """Return the micro-cells from number `first` that changed after a stamp."""

    async def add_micros(self, generation: int, micros: MicroRows) -> None:
        """Record micro-cells with their centroids."""

    async def empty_micros(self, generation: int, micros: Sequence[int]) -> None:
        """Record that micro-cells hold nothing any more and lie in no cell."""

    async def plan_change(self, generation: int, kind: str, parents: Sequence[int], children: int) -> CellChange:
        """Record that cells are to become so many others, whose numbers were never used."""

    async def changes(self, generation: int, *states: str, before: timedelta | None = None) -> list[CellChange]:
        """Return the changes that are in these states (at least so long), the oldest first."""

    async def set_change(self, change: CellChange, state: str) -> None:
        """Record the state of a change."""

    async def add(self, generation: int, places: Sequence[Place]) -> set[UUID]:
        """Record where chunks lie; return those that were not known. One that is known stays where it is."""

    async def places(
        self, generation: int, *, versions: Sequence[int] | None = None, micros: Sequence[int] | None = None
    ) -> list[Place]:
        """Return where the chunks (of these versions, in these micro-cells) lie."""

    async def move(self, generation: int, places: Sequence[Place]) -> None:
        """Record that chunks lie in other micro-cells now."""

    async def remove(self, generation: int, versions: Sequence[int]) -> list[Place]:
        """Forget the chunks of versions; return where they lay."""

    async def count(self, generation: int, changes: Mapping[int, tuple[int, NDArray[np.float32]]]) -> None:
        """Add to the rows and the sum of micro-cells, and give them and the generation a new stamp."""

    async def set(self, generation: int, **values: Any) -> None:
        """Change columns of a generation."""

    async def retire(self, *states: str) -> None:
        """Retire the generations in these states: queries that began before may read them a little longer."""

    async def forget(self, generations: Iterable[int]) -> None:
        """Delete all that is known of generations whose collections are gone, but for the highest number: no number is
        used again, since processes and engines remember what they read under it."""
