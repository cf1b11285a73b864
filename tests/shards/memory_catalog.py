"""The catalog in memory: transactions that see their own changes, and that a crash undoes. It has no clock: whoever
asks for what is old enough has waited himself."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray

from shards.catalog import NO_RECIPE, CellChange, Header, MicroRows, Place, Recipe
from shards.generation import NO_CELL
from shards.names import Space


@dataclass
class _Micro:
    cell: int
    rows: int
    stamp: int
    total: NDArray[np.float32]
    centroid: NDArray[np.float32]


@dataclass
class CatalogState:
    """What was committed, for one tenant. `chunks` stands for the table of that name: chunk id -> version number."""

    headers: dict[int, Header] = field(default_factory=dict)
    next_cell: dict[int, int] = field(default_factory=dict)
    micros: dict[tuple[int, int], _Micro] = field(default_factory=dict)
    places: dict[tuple[int, UUID], Place] = field(default_factory=dict)
    changes: dict[UUID, CellChange] = field(default_factory=dict)
    chunks: dict[UUID, int] = field(default_factory=dict)

    def plan(self, space: Space, state: str, cells: int, recipe: Recipe = NO_RECIPE, edition: int = 1) -> None:
        number = space.generation
        self.headers[number] = Header(
            number, state, space, 1, cells, 0, None, None, 0, None, edition=edition, recipe=recipe
        )
        self.next_cell[number] = 1

    def stamp(self, generation: int) -> int:
        header = self.headers[generation]
        self.headers[generation] = replace(header, stamp=header.stamp + 1)
        return header.stamp + 1

    def add_micros(self, generation: int, micros: MicroRows) -> None:
        stamp = self.stamp(generation)
        assert micros.centroids is not None
        for at, number in enumerate(micros.micro):
            total, centroid = micros.sums[at].copy(), micros.centroids[at].copy()
            made = _Micro(int(micros.cell[at]), int(micros.rows[at]), stamp, total, centroid)
            assert (generation, int(number)) not in self.micros, "a micro-cell is made once"
            self.micros[(generation, int(number))] = made

    def empty_micros(self, generation: int, micros: Sequence[int]) -> None:
        stamp = self.stamp(generation)
        for number in micros:
            known = self.micros[(generation, number)]
            self.micros[(generation, number)] = _Micro(NO_CELL, 0, stamp, np.zeros_like(known.total), known.centroid)

    def count(self, generation: int, changes: Mapping[int, tuple[int, NDArray[np.float32]]]) -> None:
        stamp = self.stamp(generation)
        for number, (rows, vector) in changes.items():
            known = self.micros[(generation, number)]
            total = known.total + vector
            self.micros[(generation, number)] = replace(known, rows=known.rows + rows, stamp=stamp, total=total)

    def add(self, generation: int, places: Sequence[Place]) -> set[UUID]:
        fresh = {key: place for place in places if (key := (generation, place.chunk_id)) not in self.places}
        self.places |= fresh
        return {chunk_id for _, chunk_id in fresh}

    def move(self, generation: int, places: Sequence[Place]) -> None:
        for place in places:
            if (generation, place.chunk_id) in self.places:
                self.places[(generation, place.chunk_id)] = place

    def remove(self, generation: int, versions: Sequence[int]) -> list[Place]:
        wanted = set(versions)
        gone = [key for key, place in self.places.items() if place.version_no in wanted and key[0] == generation]
        return [self.places.pop(key) for key in gone]

    def plan_change(self, generation: int, kind: str, parents: Sequence[int], children: int) -> CellChange:
        start = self.next_cell[generation]
        self.next_cell[generation] = start + children
        made = uuid5(UUID(int=generation), str(start))
        change = CellChange(made, generation, kind, "copying", tuple(parents), tuple(range(start, start + children)))
        self.changes[made] = change
        return change

    def set_change(self, change: CellChange, state: str) -> None:
        self.changes[change.id] = replace(self.changes[change.id], state=state)

    def set(self, generation: int, values: Mapping[str, Any]) -> None:
        known = {name: value for name, value in values.items() if name != "rows"}
        if "next_cell" in known:
            self.next_cell[generation] = known.pop("next_cell")
        self.headers[generation] = replace(self.headers[generation], **known)

    def retire(self, states: Sequence[str]) -> None:
        for number, header in self.headers.items():
            if header.state in states:
                self.headers[number] = replace(header, state="retired")

    def forget(self, generations: Sequence[int]) -> None:
        gone = set(generations)
        last = max(self.headers, default=0)
        if last in gone:
            self.headers[last] = replace(self.headers[last], state="gone")
        self.headers = {n: header for n, header in self.headers.items() if n == last or n not in gone}
        self.headers = {n: header for n, header in self.headers.items() if n == last or header.state != "gone"}
        self.micros = {key: micro for key, micro in self.micros.items() if key[0] not in gone}
        self.places = {key: place for key, place in self.places.items() if key[0] not in gone}
        self.changes = {key: change for key, change in self.changes.items() if change.generation not in gone}

    def store(self, chunks: Mapping[UUID, int]) -> None:
        self.chunks |= chunks

    def purge(self, versions: Sequence[int]) -> None:
        gone = set(versions)
        self.chunks = {chunk_id: version for chunk_id, version in self.chunks.items() if version not in gone}

    def purge_editions(self, chunks: Collection[UUID]) -> None:
        self.chunks = {chunk_id: version for chunk_id, version in self.chunks.items() if chunk_id not in chunks}


class MemoryCatalog:
    """`Catalog` in one transaction on a `CatalogState`: its changes are its own until `commit`."""

    def __init__(self, shared: CatalogState, tenant_id: UUID, pause: Callable[[], Awaitable[None]]) -> None:
        self.tenant_id = tenant_id
        self._shared, self._own, self._pause = shared, _copied(shared), pause
        self._changes: list[tuple[str, tuple[Any, ...]]] = []

    def commit(self) -> None:
        """Make the changes known, at one instant."""
        for name, arguments in self._changes:
            getattr(self._shared, name)(*arguments)
        self._changes = []

    async def live(self) -> Header | None:
        """See `Catalog.live`."""
        found = await self.generations("live")
        return found[0] if found else None

    async def generations(self, *states: str, before: timedelta | None = None) -> list[Header]:
        """See `Catalog.generations`."""
        await self._pause()
        return [header for _, header in sorted(self._own.headers.items()) if header.state in states]

    async def last_number(self) -> int:
        """See `Catalog.last_number`."""
        return max(self._own.headers, default=0)

    async def last_edition(self) -> int:
        """See `Catalog.last_edition`."""
        return max((header.edition for header in self._own.headers.values()), default=0)

    async def plan(self, space: Space, *, state: str, recipe: Recipe, edition: int, cells: int = 1) -> None:
        """See `Catalog.plan`."""
        await self._do("plan", space, state, cells, recipe, edition)

    async def serialise(self, space: Space) -> None:
        """See `Catalog.serialise`."""
        await self._pause()

    async def micro_rows(
        self, generation: int, *, after: int = -1, first: int = 0, centroids: bool = False
    ) -> MicroRows:
        """See `Catalog.micro_rows`."""
        await self._pause()
        found = [
            (number, micro)
            for (made, number), micro in sorted(self._own.micros.items(), key=lambda item: item[0])
            if made == generation and micro.stamp > after and number >= first
        ]
        return MicroRows(
            np.array([number for number, _ in found], dtype=np.int64),
            np.array([micro.cell for _, micro in found], dtype=np.int64),
            np.array([micro.rows for _, micro in found], dtype=np.int64),
            _stacked([micro.total for _, micro in found]),
            _stacked([micro.centroid for _, micro in found]) if centroids else None,
        )

    async def add_micros(self, generation: int, micros: MicroRows) -> None:
        """See `Catalog.add_micros`."""
        await self._do("add_micros", generation, micros)

    async def empty_micros(self, generation: int, micros: Sequence[int]) -> None:
        """See `Catalog.empty_micros`."""
        await self._do("empty_micros", generation, micros)

    async def plan_change(self, generation: int, kind: str, parents: Sequence[int], children: int) -> CellChange:
        """See `Catalog.plan_change`."""
        change: CellChange = await self._do("plan_change", generation, kind, parents, children)
        return change

    async def changes(self, generation: int, *states: str, before: timedelta | None = None) -> list[CellChange]:
        """See `Catalog.changes`."""
        await self._pause()
        known = self._own.changes.values()
        return [change for change in known if change.generation == generation and change.state in states]

    async def set_change(self, change: CellChange, state: str) -> None:
        """See `Catalog.set_change`."""
        await self._do("set_change", change, state)

    async def add(self, generation: int, places: Sequence[Place]) -> set[UUID]:
        """See `Catalog.add`."""
        fresh: set[UUID] = await self._do("add", generation, places)
        return fresh

    async def places(
        self, generation: int, *, versions: Sequence[int] | None = None, micros: Sequence[int] | None = None
    ) -> list[Place]:
        """See `Catalog.places`."""
        await self._pause()
        return [
            place
            for (made, _), place in self._own.places.items()
            if made == generation
            and (versions is None or place.version_no in versions)
            and (micros is None or place.micro in micros)
        ]

    async def move(self, generation: int, places: Sequence[Place]) -> None:
        """See `Catalog.move`."""
        await self._do("move", generation, places)

    async def remove(self, generation: int, versions: Sequence[int]) -> list[Place]:
        """See `Catalog.remove`."""
        gone: list[Place] = await self._do("remove", generation, versions)
        return gone

    async def count(self, generation: int, changes: Mapping[int, tuple[int, NDArray[np.float32]]]) -> None:
        """See `Catalog.count`."""
        await self._do("count", generation, changes)

    async def set(self, generation: int, **values: Any) -> None:
        """See `Catalog.set`."""
        await self._do("set", generation, values)

    async def retire(self, *states: str) -> None:
        """See `Catalog.retire`."""
        await self._do("retire", states)

    async def forget(self, generations: Iterable[int]) -> None:
        """See `Catalog.forget`."""
        await self._do("forget", list(generations))

    async def store(self, chunks: Mapping[UUID, int]) -> None:
        """Write chunks, as the line that ingests does."""
        await self._do("store", chunks)

    async def purge(self, versions: Sequence[int]) -> None:
        """Delete the chunks of versions, as a purge does."""
        await self._do("purge", versions)

    async def purge_editions(self, chunks: Collection[UUID]) -> None:
        """Delete the chunks of editions that are read no more."""
        await self._do("purge_editions", chunks)

    async def _do(self, name: str, *arguments: Any) -> Any:
        await self._pause()
        self._changes.append((name, arguments))
        return getattr(self._own, name)(*arguments)


def _copied(state: CatalogState) -> CatalogState:
    return CatalogState(**{name: copy.copy(values) for name, values in vars(state).items()})


def _stacked(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32)
