"""Signs of life: one a process, counted by role, gone with it; and a file that only a process that answers touches."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from redis.asyncio import Redis as AsyncRedis

from service.alive import SignOfLife, alive_key, living, members_key
from service.drain import Drain
from service.redis_access import RedisAddress
from service.settings import ProcessSettings

if TYPE_CHECKING:
    from service.local.state import StackState


async def test_processes_are_counted_by_role_and_one_that_ends_is_not_waited_for(stack: StackState) -> None:
    url, role = stack.env["TESSERA_REDIS_URL"], "test-of-signs"
    redis, cache = AsyncRedis.from_url(url), RedisAddress("TESSERA_REDIS_URL", url)
    first, second = (SignOfLife(cache, role, ProcessSettings(name=f"{role}-{n}")) for n in range(2))
    while await living(redis, cache, role) != (2,):
        await asyncio.sleep(0.01)
    first.stop()
    assert await living(redis, cache, role) == (1,)
    await redis.delete(alive_key(cache, f"{role}-1"))  # it died, and its key ran out
    assert await living(redis, cache, role) == (0,)
    second.stop()
    assert await redis.exists(members_key(cache, role)) == 0
    await redis.aclose()


async def test_the_file_is_touched_as_long_as_the_process_answers(stack: StackState, tmp_path: Path) -> None:
    path, answers = tmp_path / "alive", [True]
    settings = ProcessSettings(name="test-of-files", alive_file=str(path))
    cache = RedisAddress("TESSERA_REDIS_URL", stack.env["TESSERA_REDIS_URL"])
    sign = SignOfLife(cache, "test-of-files", settings, lambda: answers[0], every_s=0.02)
    while not path.exists():
        await asyncio.sleep(0.01)
    os.utime(path, (0, 0))
    while path.stat().st_mtime == 0:
        await asyncio.sleep(0.01)
    answers[0] = False
    await asyncio.sleep(0.1)
    os.utime(path, (0, 0))
    await asyncio.sleep(0.2)
    assert path.stat().st_mtime == 0, "a process that hangs is said to live"
    sign.stop()
    assert not path.exists(), "it says that a process lives which has ended"


async def test_a_process_does_not_begin_with_the_file_of_the_one_before(stack: StackState, tmp_path: Path) -> None:
    path = tmp_path / "alive"
    path.touch()
    settings = ProcessSettings(name="test-of-old-files", alive_file=str(path))
    cache = RedisAddress("TESSERA_REDIS_URL", stack.env["TESSERA_REDIS_URL"])
    sign = SignOfLife(cache, "test-of-old-files", settings, lambda: False)
    assert not path.exists()
    sign.stop()


async def test_a_redis_that_says_nothing_keeps_nobody_from_touching_the_file(tmp_path: Path) -> None:
    path = tmp_path / "alive"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = RedisAddress("TESSERA_REDIS_CACHE_URL", f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        SignOfLife(cache, "silent", ProcessSettings(name="silent", alive_file=str(path)), every_s=0.02)
        async with asyncio.timeout(2):
            for _ in range(3):
                while not path.exists():
                    await asyncio.sleep(0.01)
                path.unlink()


def test_a_process_leaves_in_two_steps() -> None:
    drain = Drain(delay_s=0.05)
    assert not drain.is_over()
    drain.begin()
    drain.begin()
    assert (drain.leaving, drain.is_over(), drain.closing.is_set()) == (True, False, False)
    time.sleep(0.06)
    assert drain.is_over()
    assert drain.closing.is_set()
