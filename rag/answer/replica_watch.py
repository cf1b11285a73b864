"""Looks at the servers of the models while they are in use: do they live, and how busy are they?"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

import httpx

from rag.answer.replica import Clock, Reading, Replica
from rag.answer.server_metrics import read_load
from shards.authorities import authorities

_TIMEOUT_S = 2.0
"""For a look at one server in all, however slowly it speaks."""
_IDLE_S = 60.0
"""Servers that nobody has asked for so long are not looked at."""
_MOST_CAUSES = 10
_MOST_BYTES = 8 * 1024 * 1024
_MOST_HEALTH_BYTES = 16 * 1024
"""Read so that the connection can be used again; it says nothing that counts."""


class ReplicaWatch:
    """Looks every `every_s` seconds, from the first request on until there were none for a minute."""

    def __init__(self, every_s: float, clock: Clock) -> None:
        self.replicas: list[Replica] = []
        self._every_s, self._clock = every_s, clock
        self._client = httpx.AsyncClient(
            timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False, verify=authorities()
        )
        self._task: asyncio.Task[None] | None = None
        self._used_at = 0.0

    def note_use(self) -> None:
        """Note a request: looking begins, or goes on."""
        self._used_at = self._clock()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_on())

    async def look(self) -> None:
        """Look at every server once."""
        await asyncio.gather(*(self._look_at(replica) for replica in self.replicas))

    async def aclose(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._client.aclose()

    async def _look_on(self) -> None:
        try:
            while self._clock() - self._used_at < _IDLE_S:
                await self.look()
                await asyncio.sleep(self._every_s)
        finally:
            for replica in self.replicas:
                replica.forget()

    async def _look_at(self, replica: Replica) -> None:
        root = server_root(replica.url)
        # A server under load answers late; requests show whether it answers at all.
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._ask_health(replica, root)
                if replica.reachable:
                    await self._read(replica, root)
        except (TimeoutError, httpx.TimeoutException):
            replica.absent = False

    async def _ask_health(self, replica: Replica, root: str) -> None:
        answered = False
        try:
            async with self._client.stream("GET", f"{root}/health") as answer:
                answered = True
                # Servers without such a route answer 404, or refuse: they are there.
                alive = answer.status_code < 500
                if alive and not replica.reachable:
                    replica.ejection.reached(self._clock())
                replica.reachable, replica.absent = alive, False
                await _body(answer, _MOST_HEALTH_BYTES)
        except httpx.TimeoutException:
            raise
        except httpx.HTTPError as error:
            replica.reachable, replica.absent = replica.reachable and answered, has_no_address(error)

    async def _read(self, replica: Replica, root: str) -> None:
        at, outstanding = self._clock(), replica.outstanding
        with suppress(httpx.HTTPError):
            async with self._client.stream("GET", f"{root}/metrics") as answer:
                text = await _body(answer, _MOST_BYTES) if answer.status_code == 200 else None
            load = None if text is None else read_load(text)
            replica.reading = None if load is None else Reading(load, at, outstanding)


def has_no_address(error: BaseException) -> bool:
    """Say whether a request failed because its server's name stands for nothing: as that of a replica which is started
    only under load."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None or isinstance(cause, socket.gaierror):
            break
        cause = cause.__cause__ or cause.__context__
    return isinstance(cause, socket.gaierror)


def server_root(base_url: str) -> str:
    """Return where a server has `/health` and `/metrics`: beside its `/v1`."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


async def _body(answer: httpx.Response, most: int) -> str | None:
    """Return a body, None for one of more bytes than `most`."""
    whole = bytearray()
    async for block in answer.aiter_bytes():
        whole += block
        if len(whole) > most:
            return None
    return whole.decode(errors="replace")
