"""Looks at the servers of the models while they are in use: do they live, and how busy are they?"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

import httpx

from rag.answer.replica import Clock, Reading, Replica
from rag.answer.server_metrics import read_load

_TIMEOUT_S = 2.0
_IDLE_S = 60.0
"""Servers that nobody has asked for so long are not looked at."""
_MOST_BYTES = 8 * 1024 * 1024


class ReplicaWatch:
    """Looks every `every_s` seconds, from the first request on until there were none for a minute."""

    def __init__(self, every_s: float, clock: Clock) -> None:
        self.replicas: list[Replica] = []
        self._every_s, self._clock = every_s, clock
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False)
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
        while self._clock() - self._used_at < _IDLE_S:
            await self.look()
            await asyncio.sleep(self._every_s)

    async def _look_at(self, replica: Replica) -> None:
        root = server_root(replica.url)
        try:
            health = await self._client.get(f"{root}/health")
        except httpx.TimeoutException:
            return  # a server under load answers late; requests show whether it answers at all
        except httpx.HTTPError:
            replica.reachable = False
            return
        # Servers without such a route answer 404, or refuse: they are there.
        alive = health.status_code < 500
        if alive and not replica.reachable:
            replica.ejection.reached(self._clock())
        replica.reachable = alive
        if alive:
            await self._read(replica, root)

    async def _read(self, replica: Replica, root: str) -> None:
        at, outstanding = self._clock(), replica.outstanding
        with suppress(httpx.HTTPError):
            async with self._client.stream("GET", f"{root}/metrics") as answer:
                text = await _body(answer) if answer.status_code == 200 else None
            load = None if text is None else read_load(text)
            replica.reading = None if load is None else Reading(load, at, outstanding)


def server_root(base_url: str) -> str:
    """Return where a server has `/health` and `/metrics`: beside its `/v1`."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


async def _body(answer: httpx.Response) -> str | None:
    """Return a body, None for one without end."""
    whole = bytearray()
    async for block in answer.aiter_bytes():
        whole += block
        if len(whole) > _MOST_BYTES:
            return None
    return whole.decode(errors="replace")
