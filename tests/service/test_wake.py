"""Whoever gives the scheduler work wakes it; what is said is neither lost nor piled up, and nobody waits for Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from service.local.ports import free_port
from service.local.state import StackState
from service.redis_access import RedisAddress
from service.wake import Waker, Woken

FOR_EVER_S = 60.0


@pytest.fixture
async def redis_url(stack: StackState) -> AsyncIterator[str]:
    """A Redis that nobody else uses."""
    url = stack.env["TESSERA_REDIS_URL"].rsplit("/", 1)[0] + "/5"
    yield url
    async with Redis.from_url(url) as redis:
        await redis.flushdb()


@pytest.fixture
async def waker(redis_url: str) -> AsyncIterator[Waker]:
    found = Waker(address(redis_url))
    yield found
    await found.aclose()


@pytest.fixture
async def woken(redis_url: str) -> AsyncIterator[Woken]:
    found = Woken(address(redis_url))
    yield found
    await found.aclose()


async def wait(woken: Woken, stop: asyncio.Event | None = None, *, least_s: float = 0.0) -> None:
    async with asyncio.timeout(10):
        await woken.wait(stop or asyncio.Event(), least_s=least_s, most_s=FOR_EVER_S)


async def test_what_is_said_ends_the_wait(waker: Waker, woken: Woken) -> None:
    waiting = asyncio.create_task(wait(woken))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    waker.wake()
    await waiting


async def test_what_is_said_between_two_waits_is_not_lost(waker: Waker, woken: Woken) -> None:
    for _ in range(3):
        waker.wake()
        await asyncio.sleep(0.1)
        await wait(woken)


async def test_what_is_said_to_nobody_does_not_pile_up(waker: Waker, redis_url: str) -> None:
    for _ in range(5):
        waker.wake()
        await asyncio.sleep(0.06)
    await waker.aclose()
    async with Redis.from_url(redis_url) as redis:
        [key] = await redis.keys("*")
        assert await redis.llen(key) == 1


async def test_many_words_at_once_are_said_at_most_twice(waker: Waker, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        before = (await redis.info("commandstats"))["cmdstat_ltrim"]["calls"] if await told_before(redis) else 0
        for _ in range(50):
            waker.wake()
        await waker.aclose()
        assert (await redis.info("commandstats"))["cmdstat_ltrim"]["calls"] - before <= 2


async def told_before(redis: Redis) -> bool:
    return "cmdstat_ltrim" in await redis.info("commandstats")


async def test_it_waits_as_long_as_it_must(waker: Waker, woken: Woken) -> None:
    await wait(woken, set_already())
    waiting = asyncio.create_task(wait(woken, least_s=FOR_EVER_S))
    waker.wake()
    await asyncio.sleep(0.2)
    assert not waiting.done(), "whatever was said"
    waiting.cancel()


async def test_a_stop_ends_the_wait_at_once(woken: Woken) -> None:
    await wait(woken, set_already(), least_s=FOR_EVER_S)


async def test_nobody_waits_for_a_redis_that_is_away() -> None:
    url = f"redis://127.0.0.1:{free_port()}/0"
    waker, woken = Waker(address(url)), Woken(address(url))
    waker.wake()
    async with asyncio.timeout(10):
        await woken.wait(asyncio.Event(), least_s=0.0, most_s=0.1)
        await waker.aclose()
        await woken.aclose()


def set_already() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def address(url: str) -> RedisAddress:
    return RedisAddress("TESSERA_REDIS_URL", url)
