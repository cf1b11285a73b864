"""What a simulation is made of: turns, a lock, and a vector store that gives others a turn at every effect."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shards.index import IndexRow
from shards.memory_vectors import MemoryVectors
from shards.names import Space
from shards.vectors import ChunkVector, Scored


class Violated(AssertionError):
    """What must hold did not."""


@dataclass
class Version:
    """One version of one document."""

    number: int
    document: int
    rows: list[IndexRow]
    tried: bool = False


@dataclass
class Actor:
    """A coroutine on its way, and what to do when its process dies."""

    name: str
    work: Coroutine[Any, Any, None]
    began: int
    again: Callable[[], None] | None
    """Puts the work back, as the queue of jobs does; None for a reader, which does not die."""


class Turn:
    """Lets the scheduler choose who goes on."""

    def __await__(self) -> Generator[None]:
        yield


async def pause() -> None:
    await Turn()


async def no_rest(_seconds: float) -> None:
    await pause()


async def at_once(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    await pause()
    return work(*arguments, **named)


class Lock:
    """An advisory lock: waits by turns, freed at once when its holder dies."""

    def __init__(self) -> None:
        self.held = False

    async def __aenter__(self) -> None:
        while self.held:
            await pause()
        self.held = True

    async def __aexit__(self, *_: object) -> None:
        self.held = False


class Vectors(MemoryVectors):
    """The twin, with a turn before and after every effect."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance

    async def create(self, *arguments: Any, **named: Any) -> None:
        await pause()
        await super().create(*arguments, **named)
        await pause()

    async def add_cells(self, *arguments: Any) -> None:
        await pause()
        await super().add_cells(*arguments)

    async def drop_cells(self, *arguments: Any) -> None:
        await pause()
        await super().drop_cells(*arguments)
        await pause()

    async def insert(self, space: Space, cell_rows: Mapping[int, Sequence[ChunkVector]]) -> None:
        cut = self.chance.randint(0, len(cell_rows))  # a crash may fall between two cells
        for part in (list(cell_rows.items())[:cut], list(cell_rows.items())[cut:]):
            await super().insert(space, dict(part))
            await pause()

    async def delete_versions(self, *arguments: Any) -> int:
        await pause()
        found = await super().delete_versions(*arguments)
        await pause()
        return found

    async def delete_chunks(self, *arguments: Any) -> None:
        await pause()
        await super().delete_chunks(*arguments)
        await pause()

    async def fetch(self, *arguments: Any, **named: Any) -> list[ChunkVector]:
        await pause()
        return await super().fetch(*arguments, **named)

    async def search(self, *arguments: Any, **named: Any) -> list[Scored]:
        await pause()
        return await super().search(*arguments, **named)

    async def scan(self, *arguments: Any, **named: Any) -> AsyncIterator[list[ChunkVector]]:
        await pause()
        async for page in super().scan(*arguments, **{**named, "batch": 20}):
            yield page
            await pause()

    async def drop(self, space: Space) -> bool:
        await pause()
        return await super().drop(space)
