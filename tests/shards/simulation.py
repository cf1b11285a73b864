"""A tenant's index under a seeded scheduler: writers, deleters, purgers, readers, upkeep and crashes in any order.

Every call to a store and every statement is a place where another actor may go on, or where an actor's process may die:
its locks are freed, its transaction is undone, what it wrote to the vector store stays. A reader is checked against a
model: it finds every chunk that was there from its beginning to its end, and none that was deleted before. At the end,
when everything interrupted was done again, stores and catalog hold exactly what the model holds.

    python -m tests.shards.simulation [--seeds 2000] [--first 0] [--steps 400]
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from shards.calibration import Calibration
from shards.catalog import Header
from shards.generation import NO_CELL, Generation
from shards.index import IndexRow, TenantIndexes
from shards.memory import MemoryLexical
from shards.pace import Pace
from shards.placement import target
from shards.probe import AnnQuery
from shards.settings import ShardSettings
from tenants.context import Placement
from tenants.errors import TesseraError
from tests.shards.memory_catalog import CatalogState, MemoryCatalog
from tests.shards.turns_taken import Actor, Lock, Vectors, Version, Violated, at_once, no_rest, pause

DIM = 6
TENANT = UUID(int=7)
SETTINGS = ShardSettings(
    threshold=40, rows_per_cell=50, max_cells=8, micros_per_cell=3, retrain_growth=3.0, pooled_rows=15, pool_buckets=3
).model_copy(update={"rows_per_cell": 10})
PLACEMENTS = [Placement(tier=tier) for tier in ("auto", "auto", "pooled", "dedicated", "isolated")]
VISIT_ALL = Calibration("sentences", 0, (), (), (), (), ())
KINDS = {"read": 100, "crash": 100, "split": 20, "merge": 5, "rebuilt: dedicated": 80, "rebuilt: isolated": 25}
KINDS |= {"rebuilt: pooled": 2}
"""What a run counts, and how often each has to happen in a hundred runs, or nothing was tried."""
NO_QUESTIONS = np.empty((0, DIM), dtype=np.float32)


@dataclass
class World:
    """The tenant. `active` is what its documents show; `purges` are versions to be removed everywhere."""

    chance: random.Random
    state: CatalogState = field(default_factory=CatalogState)
    active: dict[int, Version] = field(default_factory=dict)
    versions: dict[int, Version] = field(default_factory=dict)
    purges: list[int] = field(default_factory=list)
    uploads: list[Version] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    writer: Lock = field(default_factory=Lock)
    rebuild: Lock = field(default_factory=Lock)
    placement: Placement = PLACEMENTS[0]
    step: int = 0
    flipped: int = 0
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vectors = Vectors(self.chance)
        # Some tenants never leave the pool, some soon, some are hardly in it.
        self.settings = SETTINGS.model_copy(update={"pooled_rows": self.chance.choice([8, 15, 60, 60])})
        self.restart()

    def restart(self) -> None:
        """A new process: nothing is remembered but what the stores hold."""
        self.indexes = TenantIndexes(
            self.vectors, MemoryLexical(), self.settings, embedder="sim", dim=DIM, pace=Pace(at_once, no_rest)
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryCatalog]:
        yield MemoryCatalog(self.state, TENANT, pause)

    def note(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # What the service does, in the order in which it does it.

    async def upload(self, version: Version) -> None:
        async with self.writer, self.transaction() as catalog:
            generation = await self.opened(catalog)
            await self.indexes.insert(
                catalog, generation, version.rows, repeated=[version.number] if version.tried else []
            )
            await catalog.store({row.chunk_id: version.number for row in version.rows})
            await pause()
            catalog.commit()  # nothing may come between this and the next two lines: they are one transaction
            replaced = self.active.get(version.document)
            if replaced is not None and replaced.number > version.number:
                self.purges.append(version.number)
            else:
                self.active[version.document] = version
                self.purges += [replaced.number] if replaced is not None else []

    async def opened(self, catalog: MemoryCatalog) -> Generation:
        await self.indexes.plan_first(catalog, self.placement)
        await pause()
        catalog.commit()
        return await self.indexes.open(catalog)

    async def purge(self, number: int) -> None:
        async with self.writer, self.transaction() as catalog:
            await self.indexes.forget_versions(catalog, [number])
            await pause()
            catalog.commit()
            await self.indexes.delete_versions(catalog, [number])
            await catalog.purge([number])
            await pause()
            catalog.commit()

    async def upkeep(self) -> None:
        async with self.rebuild:
            async with self.transaction() as catalog:
                live = await self.indexes.live(catalog)
                if live is None:
                    return
                await self.indexes.abandon(catalog, live)
                rows, room = len(self.state.chunks), self.chance.choice([0, 4, 100, 100, 100, 100])
                wanted = target(live, rows, self.placement, self.settings, room=room)
                rebuilt = await self.indexes.plan_next(catalog, live, wanted) if wanted else None
                changes = [] if wanted else await self.indexes.plan_changes(catalog, live, room=room)
                catalog.commit()
            if rebuilt is not None:
                async with self.transaction() as catalog:
                    await rebuilt.fill(catalog, NO_QUESTIONS)
                rebuilt.calibration = VISIT_ALL
                async with self.transaction() as catalog:
                    await rebuilt.catch_up(catalog)
                    await rebuilt.record(catalog)
                    catalog.commit()
                rebuilt.recorded()
                async with self.writer, self.transaction() as catalog:
                    await rebuilt.catch_up(catalog)
                    await self.indexes.adopt(catalog, rebuilt)
                    await pause()
                    catalog.commit()
                    self.flipped = self.step
                self.note(f"rebuilt: {rebuilt.space.tier}")
            for change in changes:
                async with self.transaction() as catalog:
                    live = await self.indexes.live(catalog)
                assert live is not None
                reshaped = self.indexes.reshape(live, change)
                if not await reshaped.fill():
                    continue
                async with self.writer, self.transaction() as catalog:
                    await reshaped.catch_up(catalog)
                    await self.indexes.flip(catalog, reshaped)
                    await pause()
                    catalog.commit()
                    self.flipped = self.step
                self.note(change.kind)

    async def drop(self) -> None:
        async with self.writer, self.transaction() as catalog:
            if any(actor.began <= self.flipped for actor in self.actors if actor.again is None):
                return  # a reader from before the last flip is still under way: the grace has not passed
            await self.indexes.drop_retired(catalog, grace=timedelta())
            catalog.commit()

    async def read(self) -> None:
        async with self.transaction() as catalog:
            began = {row.chunk_id for version in self.active.values() for row in version.rows}
            generation = await self.indexes.live(catalog)
        if generation is None:
            if began:
                raise Violated("there are chunks, and no generation")
            return
        query = AnnQuery(unit(self.chance), 1000, 1000, 0.98, exact=self.chance.random() < 0.3)
        found = await self.indexes.search_ann(generation, query)
        hits = [hit.chunk_id for hit in found.hits]
        now = {row.chunk_id for version in self.active.values() for row in version.rows}
        shown = [chunk_id for chunk_id in hits if chunk_id in now]
        if len(shown) != len(set(shown)):
            raise Violated("a chunk was found twice")
        lost = (began - set(hits)) & now
        if lost:
            raise Violated(f"{len(lost)} of {len(began)} chunks were not found ({found.plan})")
        self.note("read")

    # What may happen next.

    def start(self, name: str, work: Coroutine[Any, Any, None], again: Callable[[], None] | None) -> None:
        self.actors.append(Actor(name, work, self.step, again))

    def begin(self, *, quiet: bool = False) -> None:
        """Start something at random."""
        draw = self.chance.random()
        if self.uploads and draw < 0.25:
            version = self.uploads.pop(0)
            self.start("upload", self.upload(version), lambda: self.upload_again(version))
        elif self.purges and draw < 0.45:
            number = self.purges.pop(0)
            self.start("purge", self.purge(number), lambda: self.purges.append(number))
        elif draw < 0.6 and not any(actor.name == "upkeep" for actor in self.actors):
            self.start("upkeep", self.upkeep(), lambda: None)
        elif draw < 0.65 and not any(actor.name == "drop" for actor in self.actors):
            self.start("drop", self.drop(), lambda: None)
        elif draw < 0.66:
            self.placement = self.chance.choice(PLACEMENTS)
        elif quiet:
            return
        elif draw < 0.75:
            self.start("read", self.read(), None)
        elif draw < 0.78 and (tried := [version for version in self.uploads if version.tried]):
            self.uploads.remove(tried[0])  # deleted before it was tried again: what the attempt wrote is to go
            self.purges.append(tried[0].number)
        elif draw < 0.83 and self.active:
            version = self.active.pop(self.chance.choice(sorted(self.active)))
            self.purges.append(version.number)
        else:
            self.new_version()

    def upload_again(self, version: Version) -> None:
        version.tried = True
        self.uploads.insert(0, version)

    def new_version(self) -> None:
        known = sorted({version.document for version in self.versions.values()})
        document = self.chance.choice(known) if known and self.chance.random() < 0.2 else len(known)
        number = len(self.versions) + 1
        # Later documents speak of other things, so that cells grow unevenly.
        topic = np.array([1.0, number / 8, 0, 0, 0, 0]) + np.array([self.chance.gauss(0, 0.5) for _ in range(DIM)])
        rows = []
        for at in range(self.chance.randint(2, 12)):
            vector = topic + np.array([self.chance.gauss(0, 0.4) for _ in range(DIM)])
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
            rows.append(IndexRow(UUID(int=number << 32 | at), number, "", "word", vector))
        version = Version(number, document, rows)
        if not any(other.document == document for other in self.uploads):
            self.versions[number] = version
            self.uploads.append(version)

    def crash(self) -> None:
        """End one worker process: what it does alone, or everything but the readers."""
        dying = [actor for actor in self.actors if actor.again is not None]
        if dying and self.chance.random() < 0.5:
            dying = [self.chance.choice(dying)]
        self.actors = [actor for actor in self.actors if actor not in dying]
        for actor in reversed(dying):
            actor.work.close()
            if actor.again is not None:
                actor.again()
        self.restart()
        self.note("crash")

    def advance(self) -> None:
        """Let one actor go on to its next turn."""
        self.step += 1
        actor = self.chance.choice(self.actors)
        try:
            actor.work.send(None)
        except StopIteration:
            self.actors.remove(actor)

    def run(self, steps: int) -> None:
        for _ in range(self.chance.randint(8, 16)):
            self.new_version()
        for step in range(steps):
            if len(self.actors) < 4 and self.chance.random() < 0.35:
                self.begin()
            if self.actors:
                self.advance()
            if step > steps / 4 and self.chance.random() < 0.012:
                self.crash()
        self.settle()
        self.check()

    def settle(self) -> None:
        """Let everything end, do again what was interrupted, and what is due, until nothing changes."""
        for _ in range(40):
            while self.actors:
                self.advance()
            before = dict(self.counts)
            if self.uploads or self.purges:
                for _ in range(10):
                    self.begin(quiet=True)
                continue
            self.start("upkeep", self.upkeep(), lambda: None)
            while self.actors:
                self.advance()
            if before == self.counts:
                break
        for name in ("drop", "read"):
            self.start(name, getattr(self, name)(), None if name == "read" else (lambda: None))
            while self.actors:
                self.advance()

    def check(self) -> None:
        """Compare stores and catalog with the model."""
        expected = {row.chunk_id: row for version in self.active.values() for row in version.rows}
        if self.state.chunks.keys() != expected.keys():
            raise Violated("the chunks are not those of the documents")
        live = [header for header in self.state.headers.values() if header.state == "live"]
        if not live:
            return
        [header] = live
        if set(self.vectors._spaces) != {header.space}:
            raise Violated(f"spaces linger: {[str(space) for space in self.vectors._spaces]}")
        held = [chunk_id for chunk_id, _ in self.vectors._spaces[header.space].rows]
        if sorted(held) != sorted(expected):
            raise Violated(f"the store holds {len(held)} rows, {len(expected)} are right")
        self.check_micros(header, expected)

    def check_micros(self, header: Header, expected: Mapping[UUID, IndexRow]) -> None:
        """Compare what is known of the micro-cells with the rows in them."""
        stored = self.vectors._spaces[header.space]
        micros = {number: micro for (made, number), micro in self.state.micros.items() if made == header.number}
        cells = {micro.cell for micro in micros.values()} - {NO_CELL}
        if cells != stored.cells:
            raise Violated(f"cells {sorted(stored.cells)} in the store, {sorted(cells)} in the catalog")
        if header.cells != len(cells):
            raise Violated(f"{header.cells} cells recorded, {len(cells)} there")
        places = {key[1]: place for key, place in self.state.places.items() if key[0] == header.number}
        if places.keys() != expected.keys():
            raise Violated("the places are not those of the chunks")
        for number, micro in micros.items():
            members = [expected[place.chunk_id].vector for place in places.values() if place.micro == number]
            if micro.rows != len(members):
                raise Violated(f"micro-cell {number} counts {micro.rows} rows and holds {len(members)}")
            total = np.sum(members, axis=0) if members else np.zeros(DIM)
            if not np.allclose(micro.total, total, atol=1e-4):
                raise Violated(f"the sum of micro-cell {number} is wrong")
        for chunk_id, cell in stored.rows:
            if micros[places[chunk_id].micro].cell != cell:
                raise Violated("a row lies in another cell than the catalog says")


def unit(chance: random.Random) -> NDArray[np.float32]:
    vector = np.array([chance.gauss(0, 1) for _ in range(DIM)], dtype=np.float32)
    normal: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return normal


def simulate(seed: int, steps: int = 400, *, kind: type[World] = World) -> dict[str, int]:
    """Run one world; the same seed is the same run. Returns what happened how often.

    Raises:
        Violated: with the seed and the step.
    """
    world = kind(random.Random(seed))
    try:
        world.run(steps)
    except (Violated, TesseraError, RuntimeError, KeyError, ValueError, AssertionError) as error:
        raise Violated(f"seed {seed}, step {world.step}: {type(error).__name__}: {error}") from error
    finally:
        for actor in world.actors:
            actor.work.close()
    return world.counts


def main(about: str | None, run: Callable[[int, int], dict[str, int]], *, steps: int) -> None:
    """Run many worlds by the command line."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=steps)
    chosen = parser.parse_args()
    began, totals = time.perf_counter(), Counter[str]()
    for seed in range(chosen.first, chosen.first + chosen.seeds):
        totals.update(run(seed, chosen.steps))
    spent = time.perf_counter() - began
    print(f"{chosen.seeds} seeds in {spent:.1f} s, nothing violated: {dict(totals)}")  # noqa: T201 - its result


if __name__ == "__main__":
    main(__doc__, simulate, steps=400)
