"""How long workers' calls of embedding models took: added up over all workers in Redis, for they answer no HTTP.

What cannot be written now is written later. An emptied Redis begins at nothing, as a process does that restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.redis_access import RedisAddress, connected_async
from shards.call_seconds import CallSeconds, Seconds
from shards.embed_models import EmbedModels

EVERY_S = 3.0
_KEY = "worker-embedding-seconds"
_TOTAL = "total"
_Figures = dict[str, float]


@asynccontextmanager
async def written(cache: RedisAddress, models: EmbedModels, every_s: float = EVERY_S) -> AsyncIterator[None]:
    """Write what this worker counts, every few seconds and in the end."""
    redis, said = connected_async(cache), _Figures()

    async def write() -> None:
        now = _figures(models.seconds)
        more = {name: value - said.get(name, 0.0) for name, value in now.items() if value != said.get(name, 0.0)}
        if not more:
            return
        with suppress(RedisError):
            async with redis.pipeline(transaction=True) as adding:
                for name, value in more.items():
                    adding.hincrbyfloat(cache.key(_KEY), name, value)
                await adding.execute()
            said.update(now)

    async def keep_writing() -> None:
        while True:
            await asyncio.sleep(every_s)
            await write()

    writing = asyncio.create_task(keep_writing())
    try:
        yield
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await write()
        await redis.aclose()


async def read(redis: Redis, cache: RedisAddress) -> dict[str, CallSeconds]:
    """Return the sums over all workers, living and gone, by model; {} when Redis does not answer."""
    try:
        found = await redis.hgetall(cache.key(_KEY))
    except RedisError:
        return {}
    models: dict[str, CallSeconds] = {}
    for name, value in found.items():
        call, outcome, place, model = (name.decode() if isinstance(name, bytes) else name).split("|", 3)
        seconds = models.setdefault(model, CallSeconds()).found.setdefault((call, outcome), Seconds())
        if place == _TOTAL:
            seconds.total_s = float(value)
        elif int(place) < len(seconds.counts):
            seconds.counts[int(place)] = round(float(value))
    return models


def _figures(models: dict[str, CallSeconds]) -> _Figures:
    return {name: value for model, calls in models.items() for name, value in _of(model, calls)}


def _of(model: str, calls: CallSeconds) -> Iterator[tuple[str, float]]:
    for (call, outcome), seconds in calls.found.items():
        yield f"{call}|{outcome}|{_TOTAL}|{model}", seconds.total_s
        for place, count in enumerate(seconds.counts):
            if count:
                yield f"{call}|{outcome}|{place}|{model}", float(count)
