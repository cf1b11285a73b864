"""Signs of life: each long-running process keeps a key of its own in Redis, which expires soon after it does, and where
an orchestrator looks at files it touches one as long as it answers."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from ingestion.queues import COMMON
from service.redis_access import RedisAddress, connected
from service.settings import ProcessSettings

TTL_S = 10
EVERY_S = 3.0
_TIMEOUT_S = 3.0


def process_name(role: str, settings: ProcessSettings) -> str:
    """Return what the process is called: as its keeper calls it, or after role, host and number."""
    return settings.name or f"{role}@{socket.gethostname()}:{os.getpid()}"


def alive_key(cache: RedisAddress, name: str) -> str:
    """Return the key that a process keeps."""
    return cache.key(f"alive:{name}")


def members_key(cache: RedisAddress, role: str) -> str:
    """Return the key of the set of names in a role (`worker`, `scheduler`, `worker:<queue>`), those that died lately
    too."""
    return cache.key(f"members:{role}")


class SignOfLife:
    """Renews a process's signs from threads until it is stopped.

    The key says that the process is there; the file, that it `answers` as well: one that hangs is to be restarted. Each
    has a thread of its own: a Redis that does not answer keeps nobody from touching the file. The file is no older than
    the process, and gone after it: where it lies may outlive both.
    """

    def __init__(
        self,
        cache: RedisAddress,
        role: str,
        settings: ProcessSettings,
        answers: Callable[[], bool] = lambda: True,
        *,
        every_s: float = EVERY_S,
        also: Sequence[str] = (),
    ) -> None:
        """Begin; `also` are further roles of the process."""
        name = process_name(role, settings)
        self._redis, self._cache, self._name = connected(cache), cache, name
        self._alive, self._members = alive_key(cache, name), [members_key(cache, one) for one in (role, *also)]
        self._file = Path(settings.alive_file) if settings.alive_file else None
        self._forget_file()
        self._answers = answers
        self._every_s = every_s
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(sign,), name=f"alive-{role}", daemon=True)
            for sign in (self._say, self._touch)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and take the key back: nobody waits for a process that left in order."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(self._every_s)
        self._forget_file()
        with suppress(RedisError):
            self._redis.delete(self._alive)
            for members in self._members:
                self._redis.srem(members, self._name)

    def _forget_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what cannot be removed grows old
                self._file.unlink(missing_ok=True)

    def _repeat(self, sign: Callable[[], None]) -> None:
        while True:
            with suppress(RedisError, OSError):  # the key expires and /readyz says so; the file grows old
                sign()
            if self._stopped.wait(self._every_s):
                return

    def _touch(self) -> None:
        if self._file is not None and self._answers():
            self._file.touch()

    def _say(self) -> None:
        with self._redis.pipeline() as said:
            said.set(self._alive, "1", ex=TTL_S)
            for members in self._members:
                said.sadd(members, self._name)
            said.execute()
        for members in self._members:
            names = _names(self._redis.smembers(members))
            signs = self._redis.mget([alive_key(self._cache, name) for name in names])
            dead = [name for name, sign in zip(names, signs, strict=True) if sign is None]
            if dead:
                self._redis.srem(members, *dead)


async def living(redis: Redis, cache: RedisAddress, *roles: str) -> tuple[int, ...]:
    """Return how many processes live in each role. Raises `RedisError` when Redis does not answer."""
    found = []
    for role in roles:
        names = _names(await redis.smembers(members_key(cache, role)))
        signs = await redis.mget([alive_key(cache, name) for name in names]) if names else []
        found.append(sum(sign is not None for sign in signs))
    return tuple(found)


def _names(members: Iterable[str | bytes]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else name for name in members]


def worker_role(queue: str) -> str:
    """Return the role of the workers that read a queue."""
    return "worker" if queue == COMMON else f"worker:{queue}"


async def readers(redis: Redis, cache: RedisAddress, *queues: str) -> dict[str, int]:
    """Return how many living workers read each queue. Raises `RedisError` when Redis does not answer."""
    return dict(zip(queues, await living(redis, cache, *map(worker_role, queues)), strict=True))


async def served_queues(redis: Redis, cache: RedisAddress, queues: Sequence[str]) -> frozenset[str] | None:
    """Return which of these queues a living worker reads; None when Redis does not answer."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return frozenset(queue for queue, number in (await readers(redis, cache, *queues)).items() if number)
    except (RedisError, TimeoutError, OSError):
        return None
