"""What one step of the write line has ready for the next, bounded by weight: a step waits for the one after it."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")


class Buffer(Generic[T]):
    """A queue of weighted items. Belongs to one event loop; any number of tasks put, one gets."""

    def __init__(self, most: int) -> None:
        """`most` is the weight of all items together. One that is heavier by itself is taken when nothing else is
        there."""
        self._most = most
        self._weight = 0
        self._items: asyncio.Queue[tuple[T, int]] = asyncio.Queue()
        self._taken = asyncio.Event()

    async def room(self, weight: int) -> None:
        """Wait until an item of a weight has room; put it before anything else is awaited."""
        while self._weight and self._weight + weight > self._most:
            self._taken.clear()
            await self._taken.wait()

    def put(self, item: T, weight: int = 0) -> None:
        """Add an item. One without weight need not wait for room."""
        self._weight += weight
        self._items.put_nowait((item, weight))

    async def get(self) -> T:
        """Take the oldest item, or wait for one. Nothing is lost when the wait is cancelled."""
        item, weight = await self._items.get()
        self._weight -= weight
        self._taken.set()
        return item
