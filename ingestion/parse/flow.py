"""Outcomes of parsing as they come: a document that takes long is overtaken by those after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingestion.parse.buffer import Buffer
from ingestion.parse.document import ParsedDocument
from ingestion.parse.original import Original
from tenants.errors import DocumentRejected

Outcome = ParsedDocument | DocumentRejected
_AHEAD_CHARS = 100_000
"""Text that is parsed ahead of whoever takes the outcomes."""


@dataclass(frozen=True)
class ParseItem:
    """One document: its content, in a file or without a name, and its format as `detect_format` gave it."""

    content: Path | Original
    format: str
    filename: str


class ParseStream:
    """The documents of one call of `ParserPool.stream`, and what is known of each."""

    def __init__(
        self,
        items: Sequence[ParseItem],
        patience_s: float | None,
        work: Callable[[ParseStream, int], Awaitable[None]],
    ) -> None:
        self.items = items
        self._patience_s = patience_s
        self._work = work
        self._events: Buffer[tuple[int, Outcome | None] | BaseException] = Buffer(_AHEAD_CHARS)
        self._open = set(range(len(items)))
        """Items without an outcome."""
        self._untold = set(self._open)
        """Items whose outcome was not yielded."""
        self._overdue: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def outcomes(self) -> AsyncGenerator[tuple[int, Outcome | None], None]:
        """Yield the place and outcome of every item; None first for one that is overdue, its outcome later.

        Raises:
            Unavailable: no worker can be had.
            OSError: a file cannot be read.
        """
        if self.items:
            self._begin(0)
        try:
            while self._untold:
                event = await self._events.get()
                if isinstance(event, BaseException):
                    raise event
                if event[1] is not None:
                    self._untold.discard(event[0])
                yield event
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def give_up(self, at: int) -> bool:
        """Stop work on an overdue item: no outcome of it follows. False when it has one by now."""
        if at not in self._open:
            return False
        self._open.discard(at)
        self._untold.discard(at)
        self._overdue[at].cancel()
        return True

    def stop(self) -> list[int]:
        """Begin no further item; return those that are left without an outcome. What is overdue goes on."""
        left = sorted(self._open - self._overdue.keys())
        self._open.difference_update(left)
        self._untold.difference_update(left)
        for task in self._tasks - set(self._overdue.values()):
            task.cancel()
        return left

    async def give(self, at: int, outcome: Outcome) -> None:
        """Take the outcome of an item from whoever parses it, who waits while much is there that nobody has taken."""
        size = len(outcome.text) if isinstance(outcome, ParsedDocument) else 0
        await self._events.room(size)
        if at in self._open:
            self._open.discard(at)
            self._events.put((at, outcome), size)

    def first_open(self, at: int) -> int:
        """Return the first item from `at` on that has no outcome yet."""
        return next((one for one in range(at, len(self.items)) if one in self._open), len(self.items))

    def parted_after(self, at: int) -> bool:
        """Whether the items after this one are parsed elsewhere."""
        return at in self._overdue

    async def patiently(self, at: int, answer: Awaitable[Outcome]) -> Outcome:
        """Wait for the answer about an item; when patience ends, begin with those after it."""
        reading = asyncio.ensure_future(answer)
        try:
            if self._patience_s is not None and at not in self._overdue:
                await asyncio.wait({reading}, timeout=self._patience_s)
                if not reading.done():
                    self._part(at)
            return await reading
        finally:
            reading.cancel()

    def _part(self, at: int) -> None:
        task = asyncio.current_task()
        assert task is not None, "parsing runs in tasks"
        self._overdue[at] = task
        self._events.put((at, None))
        if at + 1 < len(self.items):
            self._begin(at + 1)

    def _begin(self, at: int) -> None:
        task = asyncio.ensure_future(self._work(self, at))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._events.put(error)
