"""Waking the scheduler: whoever gave it work says so, and it looks at the queue at once instead of asking all the time.

What is said may be lost, with Redis or without: the queue is in Postgres, and the scheduler looks now and then anyway.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from redis.exceptions import RedisError

from service.redis_access import RedisAddress, connected_async

_KEY = "wake"
_TIMEOUT_S = 3.0
_LISTEN_S = 30.0
_AWAY_PAUSE_S = 1.0
_PAUSE_S = 0.05


class Waker:
    """Says that there is work, without making anybody wait and not more often than it helps. Belongs to one event
    loop."""

    def __init__(self, broker: RedisAddress) -> None:
        self._redis, self._key = connected_async(broker, _TIMEOUT_S), broker.key(_KEY)
        self._saying: asyncio.Task[None] | None = None
        self._again = False

    def wake(self) -> None:
        """Have it said; while that is under way, once more after it and no more."""
        if self._saying is None or self._saying.done():
            self._saying = asyncio.create_task(self._say())
        else:
            self._again = True

    async def aclose(self) -> None:
        """Finish what is being said and close the connection."""
        if self._saying is not None:
            await self._saying
        await self._redis.aclose()

    async def _say(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            with suppress(RedisError, OSError):
                async with self._redis.pipeline() as told:
                    told.lpush(self._key, "1")
                    told.ltrim(self._key, 0, 0)  # one is enough, and nobody may be there to take it
                    await told.execute()
            await asyncio.sleep(_PAUSE_S)


class Woken:
    """Listens to what the wakers say."""

    def __init__(self, broker: RedisAddress) -> None:
        self._redis, self._key = connected_async(broker, _LISTEN_S + _TIMEOUT_S), broker.key(_KEY)
        self._heard = asyncio.Event()
        self._ended = time.monotonic()
        self._listening = asyncio.create_task(self._listen())

    async def wait(self, stop: asyncio.Event, *, least_s: float, most_s: float) -> None:
        """Wait until somebody said that there is work since the last wait, or until `stop`: at least and at most so
        long since the last wait ended."""
        passed = time.monotonic() - self._ended
        with suppress(TimeoutError):
            async with asyncio.timeout(least_s - passed):
                await stop.wait()
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._heard)]
        await asyncio.wait(waits, timeout=most_s - max(passed, least_s), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        self._heard.clear()
        self._ended = time.monotonic()

    async def aclose(self) -> None:
        """Stop listening."""
        while not self._listening.done():  # before Python 3.12 what opens a connection can swallow a cancellation
            self._listening.cancel()
            await asyncio.wait((self._listening,), timeout=0.1)
        await self._redis.aclose()

    async def _listen(self) -> None:
        while True:
            try:
                if await self._redis.blpop([self._key], timeout=_LISTEN_S):
                    self._heard.set()
            except (RedisError, OSError):
                await asyncio.sleep(_AWAY_PAUSE_S)
