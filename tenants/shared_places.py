"""Places of which a tenant has so many in the whole service, whichever process serves it: they are counted in Redis.

A place is lent for a while and renewed as long as it is taken, so those of a process that dies come free by themselves.
What counts them is one script, by the clock of Redis: two processes that take the last one at the same moment do not
both have it. While Redis is away each process counts for itself alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError
from uuid_utils.compat import uuid7

from tenants.errors import TooManyRequests

log = logging.getLogger(__name__)
LENT_S = 30.0
"""How long a place stays taken after its process has died."""
_TRIED_MS = 5000
_AWAY_S = 2.0
"""How long Redis is not asked again after it did not answer."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.1
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_RENEW = """
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""


async def try_places(redis: Redis, key: str) -> None:
    """Take, renew and give back a place below a key of its own: may this client?

    Raises:
        RedisError: it may not, or Redis does not answer. In operation each process would count for itself, in silence.
    """
    await redis.register_script(_TAKE)(keys=[key], args=[1, "tried", _TRIED_MS])
    await redis.register_script(_RENEW)(keys=[key], args=["tried", _TRIED_MS])
    await redis.zrem(key, "tried")


class SharedPlaces:
    """Takes and gives back places for one process. Belongs to one event loop."""

    def __init__(self, redis: Redis, prefix: str = "tessera", *, lent_s: float = LENT_S) -> None:
        self._redis, self._prefix = redis, prefix
        self._lent_s = lent_s
        self._take_script = redis.register_script(_TAKE)
        self._renew_script = redis.register_script(_RENEW)
        self._taken: dict[str, str] = {}
        """Key by place, of those that this process has."""
        self._away_until = 0.0
        self._renewing: asyncio.Task[None] | None = None
        self._giving: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def taken(self, kind: str, tenant_id: UUID, most: int, *, patience_s: float = 0.0) -> AsyncIterator[None]:
        """Hold one of the `most` places of a kind that the tenant has.

        Raises:
            TooManyRequests: all are taken, and none came free in time.
        """
        place, key = uuid7().hex, f"{self._prefix}:places:{kind}:{tenant_id.hex}"
        await self._wait(key, place, most, time.monotonic() + patience_s)
        try:
            yield
        finally:
            self._give_back(key, place)

    async def aclose(self) -> None:
        """Give back what is left and close the connection."""
        for place, key in list(self._taken.items()):
            self._give_back(key, place)
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await asyncio.gather(*self._giving)
        await self._redis.aclose()

    async def _wait(self, key: str, place: str, most: int, deadline: float) -> None:
        pause = _FIRST_PAUSE_S
        while not await self._take(key, place, most):
            if time.monotonic() + pause > deadline:
                raise TooManyRequests(f"All {most} places of this tenant are taken; try again shortly.")
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 1.5)

    async def _take(self, key: str, place: str, most: int) -> bool:
        """Take a place if one is free; always, while nobody can say."""
        if time.monotonic() < self._away_until:
            return True
        try:
            free = await self._take_script(keys=[key], args=[most, place, int(self._lent_s * 1000)])
        except asyncio.CancelledError:
            self._taken[place] = key  # maybe
            self._give_back(key, place)
            raise
        except (RedisError, OSError) as error:
            self._note_away(error)
            return True
        if free:
            self._taken[place] = key
            if self._renewing is None:
                self._renewing = asyncio.create_task(self._renew())
        return bool(free)

    def _note_away(self, error: Exception) -> None:
        if time.monotonic() - self._away_until > _AWAY_S:
            log.warning("Redis does not answer: places are counted by each process for itself (%s)", error)
        self._away_until = time.monotonic() + _AWAY_S

    def _give_back(self, key: str, place: str) -> None:
        """Beside the caller, who need not wait for it."""
        if self._taken.pop(place, None) is not None:
            task = asyncio.create_task(self._remove(key, place))
            self._giving.add(task)
            task.add_done_callback(self._giving.discard)

    async def _remove(self, key: str, place: str) -> None:
        with suppress(RedisError, OSError):  # then it comes free when its time is over
            await self._redis.zrem(key, place)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lent_s / 3)
            for place, key in list(self._taken.items()):
                if place in self._taken:
                    with suppress(RedisError, OSError):
                        await self._renew_script(keys=[key], args=[place, int(self._lent_s * 1000)])
