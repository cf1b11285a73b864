"""What workers count is added up over all of them, also those that left and those that Redis was away from."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from service import worker_seconds
from service.redis_access import RedisAddress, connected_async
from shards.embed import NAME
from shards.embed_models import EmbedModels
from shards.settings import EmbedSettings

if TYPE_CHECKING:
    from service.local.state import StackState

NOWHERE = RedisAddress("TESSERA_REDIS_URL", "redis://127.0.0.1:1/0")


async def call(models: EmbedModels, times: int) -> None:
    async def done() -> None:
        """Take no time."""

    for _ in range(times):
        await models.bundled.seconds.count("batch", done())


async def test_what_workers_counted_is_added_up(stack: StackState, tmp_path: Path) -> None:
    cache = RedisAddress("TESSERA_REDIS_URL", stack.env["TESSERA_REDIS_URL"], prefix=uuid4().hex)
    redis = connected_async(cache)
    first, second = (EmbedModels(EmbedSettings(cache_dir=tmp_path)) for _ in range(2))
    async with worker_seconds.written(cache, first, every_s=0.05):
        await call(first, 3)
        async with worker_seconds.written(cache, second, every_s=60):
            await call(second, 2)
        async with asyncio.timeout(10):
            while sum((await worker_seconds.read(redis, cache))[NAME].found["batch", "answered"].counts) < 5:
                await asyncio.sleep(0.02)
        await call(first, 4)
    found = (await worker_seconds.read(redis, cache))[NAME].found["batch", "answered"]
    ours = [models.bundled.seconds.found["batch", "answered"] for models in (first, second)]
    assert found.counts == [sum(both) for both in zip(*(one.counts for one in ours), strict=True)]
    assert abs(found.total_s - sum(one.total_s for one in ours)) < 1e-9
    await redis.delete(cache.key("worker-embedding-seconds"))
    await redis.aclose()


async def test_a_redis_that_is_away_harms_nobody(tmp_path: Path) -> None:
    models, redis = EmbedModels(EmbedSettings(cache_dir=tmp_path)), connected_async(NOWHERE)
    async with worker_seconds.written(NOWHERE, models, every_s=0.01):
        await call(models, 1)
        await asyncio.sleep(0.05)
    assert await worker_seconds.read(redis, NOWHERE) == {}
    await redis.aclose()
