"""The world of `simulation`, whose tenant also moves to other editions of its chunks, and changes its mind.

A move is done as `ingestion.reembed_tasks` does it: slices that die anywhere, what lacks asked of the catalog, the
switch under the writer lock. A reader must find, of the edition that it began with, what was there from its beginning
to its end.

    python -m tests.shards.edition_simulation [--seeds 2000] [--first 0] [--steps 500]
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid5

import numpy as np

from shards import editions
from shards.catalog import Header, Recipe
from shards.editions import NextEdition
from shards.index import IndexRow
from shards.placement import first_space, may_stay, next_place, space_of
from shards.probe import AnnQuery
from tests.shards import simulation
from tests.shards.memory_catalog import MemoryCatalog
from tests.shards.simulation import DIM, TENANT, World, unit
from tests.shards.turns_taken import Version, Violated, pause

KINDS = {
    "read": 100,
    "crash": 100,
    "switched": 25,
    "gave up": 8,
    "embedded anew": 2,
    "begun anew": 2,
    "rebuilt: dedicated": 50,
}
"""What a run counts, and how often each has to happen in fifty runs, or nothing was tried."""
_AT_ONCE = 3


class EditionWorld(World):
    """`moving` stands for the job that moves the tenant: it is begun again until it ends or is cancelled."""

    moving = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.purged: set[int] = set()
        self.version_of: dict[UUID, int] = {}

    def rows_of(self, version: Version, header: Header) -> list[IndexRow]:
        """Return the chunks of a version in an edition: other ids, other vectors, in odd ones twice as many."""
        made = []
        for row in version.rows:
            for part in range(1 + header.edition % 2):
                chunk_id = uuid5(row.chunk_id, f"{header.edition}:{part}")
                vector = np.roll(row.vector, header.edition + part).astype(np.float32)
                made.append(replace(row, chunk_id=chunk_id, vector=vector))
                self.version_of[chunk_id] = version.number
        return made

    async def upload(self, version: Version) -> None:
        async with self.transaction() as catalog:
            before = await catalog.live()
        await pause()  # embedded here, by the recipe that was found
        async with self.writer, self.transaction() as catalog:
            generation = await self.opened(catalog)
            if before is not None and before.recipe != generation.header.recipe:
                self.uploads.insert(0, version)
                self.note("embedded anew")
                return
            rows = self.rows_of(version, generation.header)
            await self.indexes.insert(catalog, generation, rows, repeated=[version.number] if version.tried else [])
            await catalog.store({row.chunk_id: version.number for row in rows})
            await pause()
            catalog.commit()
            replaced = self.active.get(version.document)
            if replaced is not None and replaced.number > version.number:
                self.purges.append(version.number)
            else:
                self.active[version.document] = version
                self.purges += [replaced.number] if replaced is not None else []

    async def purge(self, number: int) -> None:
        await super().purge(number)
        self.purged.add(number)

    async def move(self) -> None:
        """A slice of the move."""
        if self.rebuild.held:
            return
        async with self.rebuild:
            number = await self.begun()
            for _ in range(self.chance.randint(1, 6)):
                if number is None or not self.moving or await self.slice(number):
                    return

    async def begun(self) -> int | None:
        async with self.writer, self.transaction() as catalog:
            [header] = await catalog.generations("embedding") or [None]
            if header is None and not self.moving:
                return None
            live = await catalog.live()
            if header is None or (live is not None and not may_stay(header.space, live.space, self.placement)):
                if header is not None:
                    self.note("begun anew")
                header = await self.planned(catalog)
            await editions.prepare(catalog, self.vectors, header)
            return header.number

    async def planned(self, catalog: MemoryCatalog) -> Header:
        live, number = await catalog.live(), await catalog.last_number() + 1
        space = first_space(TENANT, number, DIM, self.placement, self.settings)
        if live is not None:
            space = space_of(TENANT, number, DIM, *next_place(live.space, self.placement), self.settings)
        header = await editions.begin(catalog, NextEdition(space, Recipe(f"model {number}")))
        await pause()
        catalog.commit()
        return header

    async def lacking(self, catalog: MemoryCatalog, number: int) -> list[Version]:
        held = {place.version_no for place in await catalog.places(number)}
        return [version for _, version in sorted(self.active.items()) if version.number not in held]

    async def slice(self, number: int) -> bool:
        """Write some documents; return whether the move is over."""
        async with self.transaction() as catalog:
            versions = (await self.lacking(catalog, number))[:_AT_ONCE]
        await pause()
        async with self.writer, self.transaction() as catalog:
            header = await editions.embedding(catalog, number)
            if header is None or not self.moving:
                return True
            versions = [version for version in versions if self.active.get(version.document) is version]
            rows = [row for version in versions for row in self.rows_of(version, header)]
            if rows:
                generation = await self.indexes.current(catalog, header)
                numbers = [version.number for version in versions]
                await self.indexes.insert(catalog, generation, rows, repeated=numbers)
                await catalog.store({row.chunk_id: row.version_no for row in rows})
            over = not await self.lacking(catalog, number)
            if over:
                await editions.adopt(catalog, self.vectors, number)
            await pause()
            if not self.moving:  # cancelled while it was written: the claim is lost, nothing is committed
                return True
            catalog.commit()
            if over:
                live = [header.number for header in self.state.headers.values() if header.state == "live"]
                if live != [number]:
                    raise Violated(f"generations {live} are live after the switch to {number}")
                stored = self.vectors._spaces[header.space].rows.values()
                if any(row.version_no in self.purged for row in stored):
                    raise Violated("what was removed everywhere is in the next edition")
                self.flipped, self.moving = self.step, False
                self.note("switched")
        return over

    async def give_up(self) -> None:
        async with self.writer, self.transaction() as catalog:
            if not self.moving and await catalog.generations("embedding"):
                await catalog.retire("embedding")
                catalog.commit()
                self.note("gave up")

    async def drop(self) -> None:
        async with self.writer, self.transaction() as catalog:
            if any(actor.began <= self.flipped for actor in self.actors if actor.again is None):
                return
            dead = await editions.dead_editions(catalog, grace=timedelta())
            await catalog.purge_editions(await self.chunks_of(catalog, dead))
            await self.indexes.drop_retired(catalog, grace=timedelta())
            catalog.commit()

    async def chunks_of(self, catalog: MemoryCatalog, dead: list[int]) -> set[UUID]:
        found: set[UUID] = set()
        for header in await catalog.generations("retired"):
            if header.edition in dead:
                found |= {place.chunk_id for place in await catalog.places(header.number)}
        return found

    async def read(self) -> None:
        async with self.transaction() as catalog:
            began, purged = list(self.active.values()), set(self.purged)
            generation = await self.indexes.live(catalog)
        if generation is None:
            if began:
                raise Violated("there are chunks, and no generation")
            return
        query = AnnQuery(unit(self.chance), 2000, 2000, 0.98, exact=True)
        found = [hit.chunk_id for hit in (await self.indexes.search_ann(generation, query)).hits]
        if len(found) != len(set(found)):
            raise Violated("a chunk was found twice")
        if purged & {self.version_of[chunk_id] for chunk_id in found}:
            raise Violated("what was removed everywhere was found")
        still = [version for version in began if self.active.get(version.document) is version]
        wanted = {row.chunk_id for version in still for row in self.rows_of(version, generation.header)}
        if not wanted <= set(found):
            raise Violated(f"{len(wanted - set(found))} of {len(wanted)} chunks were not found")
        if not wanted <= self.state.chunks.keys():
            raise Violated("the text of what was found is gone")
        self.note("read")

    def begin(self, *, quiet: bool = False) -> None:
        draw = self.chance.random()
        if draw < 0.2 and (self.moving or not quiet) and not any(actor.name == "move" for actor in self.actors):
            self.moving = True
            self.start("move", self.move(), lambda: None)
        elif draw < 0.21:
            self.moving = False
        elif draw < 0.23 and not any(actor.name == "drop" for actor in self.actors):
            self.start("drop", self.give_up(), lambda: None)
        else:
            super().begin(quiet=quiet)

    def settle(self) -> None:
        """Let the move end too, then all the rest."""
        for _ in range(400):
            while self.actors:
                self.advance()
            if self.moving:
                self.start("move", self.move(), lambda: None)
            elif any(header.state == "embedding" for header in self.state.headers.values()):
                self.start("drop", self.give_up(), lambda: None)
            else:
                break
        self.moving = False
        super().settle()

    def check(self) -> None:
        """Compare as if the live edition's chunks were the only ones there ever were: at the end they are."""
        live = [header for header in self.state.headers.values() if header.state == "live"]
        if live:
            for version in self.active.values():
                version.rows = self.rows_of(version, live[0])
        super().check()


def simulate(seed: int, steps: int = 500) -> dict[str, int]:
    """Run one world, as `simulation.simulate` does."""
    return simulation.simulate(seed, steps, kind=EditionWorld)


if __name__ == "__main__":
    simulation.main(__doc__, simulate, steps=500)
