"""Places that a tenant has in the whole service: two processes share them, none is lost, and no Redis is no outage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from service.local.ports import free_port
from tenants.errors import TooManyRequests
from tenants.shared_places import SharedPlaces

if TYPE_CHECKING:
    from service.local.state import StackState


@pytest.fixture
async def two(stack: StackState) -> AsyncIterator[tuple[SharedPlaces, SharedPlaces]]:
    """What two processes have."""
    here, there = (SharedPlaces(Redis.from_url(stack.env["TESSERA_REDIS_URL"])) for _ in range(2))
    yield here, there
    await asyncio.gather(here.aclose(), there.aclose())


async def test_two_processes_have_the_places_of_one(two: tuple[SharedPlaces, SharedPlaces]) -> None:
    here, there = two
    tenant, taken, over = uuid4(), 0, asyncio.Event()

    async def hold(places: SharedPlaces) -> bool:
        nonlocal taken
        try:
            async with places.taken("search", tenant, 3):
                taken += 1
                await over.wait()
        except TooManyRequests:
            return False
        return True

    tasks = [asyncio.create_task(hold(places)) for _ in range(10) for places in two]
    while sum(task.done() for task in tasks) < 17:
        await asyncio.sleep(0.01)
    assert taken == 3
    async with here.taken("stream", tenant, 3), there.taken("search", uuid4(), 3):
        pass  # another kind, another tenant
    over.set()
    assert sum(await asyncio.gather(*tasks)) == 3
    async with here.taken("search", tenant, 1, patience_s=5):
        pass


async def test_who_waits_gets_the_place_that_comes_free_elsewhere(two: tuple[SharedPlaces, SharedPlaces]) -> None:
    here, there = two
    tenant, got = uuid4(), asyncio.Event()

    async def wait() -> None:
        async with there.taken("search", tenant, 1, patience_s=30):
            got.set()

    async with here.taken("search", tenant, 1):
        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
        assert not got.is_set()
    await asyncio.wait_for(waiting, 20)


async def test_places_of_a_dead_process_come_free_and_those_of_a_living_one_do_not(stack: StackState) -> None:
    redis = stack.env["TESSERA_REDIS_URL"]
    here, there, dead = (SharedPlaces(Redis.from_url(redis), lent_s=0.6) for _ in range(3))
    tenant = uuid4()
    async with here.taken("search", tenant, 2):
        holding = dead.taken("search", tenant, 2)
        await holding.__aenter__()
        assert dead._renewing is not None
        dead._renewing.cancel()
        with pytest.raises(TooManyRequests):
            async with there.taken("search", tenant, 2):
                pass
        async with there.taken("search", tenant, 2, patience_s=20):
            with pytest.raises(TooManyRequests):
                async with there.taken("search", tenant, 2):
                    pass
        await holding.__aexit__(None, None, None)
    for one in (here, there, dead):
        await one.aclose()


async def test_a_cancelled_taker_leaves_nothing_taken(two: tuple[SharedPlaces, SharedPlaces]) -> None:
    here, there = two
    tenant = uuid4()

    async def hold() -> None:
        async with here.taken("search", tenant, 1):
            await asyncio.sleep(60)

    for pause in (0, 0.0005, 0.02):
        task = asyncio.create_task(hold())
        await asyncio.sleep(pause)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with there.taken("search", tenant, 1, patience_s=5):
            pass


async def test_without_redis_each_process_counts_for_itself() -> None:
    alone = SharedPlaces(Redis.from_url(f"redis://127.0.0.1:{free_port()}/0"))
    tenant = uuid4()
    async with alone.taken("search", tenant, 1), alone.taken("search", tenant, 1):
        pass
    await alone.aclose()
