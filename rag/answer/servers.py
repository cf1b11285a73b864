"""The servers of the declared models: one client and one state each, whichever models are on them."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Sequence

import httpx2
import openai

from rag.answer.figures import GenerationFigures
from rag.answer.generator import Generator
from rag.answer.model_stream import ModelStream
from rag.answer.openai_chat import OpenAIChatGenerator
from rag.answer.replica import Replica
from rag.answer.replica_pool import HedgeBudget, ReplicaPool
from rag.answer.replica_watch import ReplicaWatch
from rag.answer.routes import Route
from rag.settings import GenerationSettings
from shards.authorities import authorities
from shards.embed import Embedder

_READINGS = 3.0
"""A reading is believed for so many times the pause between two."""
_FRESH_S = 2.0
"""What a look may take beside that."""


_KEPT, _KEPT_S = 100, 2.0
"""Idle connections to a server, and for how long they are kept."""


class ModelServers:
    """Opened once; `models` are the generators by the names that tenants know."""

    def __init__(
        self, settings: GenerationSettings, embedder: Embedder, figures: GenerationFigures, *, secret: str
    ) -> None:
        self.models: dict[str, Generator] = {}
        self._settings, self._embedder, self._figures = settings, embedder, figures
        self._secret = secret
        self._replicas: dict[tuple[str, str], Replica] = {}
        self._watch = ReplicaWatch(settings.poll_s, loop_time)
        self._verify = authorities()
        self._pools: list[Sequence[Replica]] = []
        self._freed = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._hedges = HedgeBudget(settings.hedge_share)
        self.dice = random.Random()  # noqa: S311 - no secret
        """Decides between replicas that suit as well as each other."""

    @property
    def replicas(self) -> list[Replica]:
        """Every server, as far as this process knows it."""
        return list(self._replicas.values())

    @property
    def expected(self) -> list[Replica]:
        """Every server but those that are not started while another replica of each of their models is there."""
        missed = {one for pool in self._pools if all(one.absent for one in pool) for one in pool}
        return [one for one in self.replicas if not one.absent or one in missed]

    def add(self, route: Route) -> None:
        """Open a declared model."""
        pool = self.pool(route)
        stream = ModelStream(route.name, pool, self._settings, self._figures)
        self.models[route.name] = OpenAIChatGenerator(route, stream, self._embedder, secret=self._secret)

    def pool(self, route: Route) -> ReplicaPool:
        """Return the replicas of a declared model."""
        replicas = [self._replica(url, route.api_key) for url in route.urls]
        self._pools.append(replicas)
        watched = self._watch.note_use
        return ReplicaPool(replicas, loop_time, self._freed, self._hedges, self.dice, watched, self._closing)

    async def look(self) -> None:
        """Look at every server now."""
        await self._watch.look()

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._watch.aclose()
        for replica in self._replicas.values():
            await replica.client.close()

    def _replica(self, url: str, api_key: str) -> Replica:
        if (url, api_key) not in self._replicas:
            client = openai.AsyncOpenAI(
                base_url=url,
                # The client insists on a key; servers without authentication ignore it.
                api_key=api_key or "none",
                timeout=openai.Timeout(None, connect=self._settings.connect_timeout_s),
                max_retries=0,
                http_client=_http_client(self._verify),
            )
            fresh_s = _READINGS * self._settings.poll_s + _FRESH_S
            replica = Replica(url, client, self._settings.concurrent_per_replica, fresh_s)
            self._replicas[url, api_key] = replica
            self._watch.replicas.append(replica)
        return self._replicas[url, api_key]


def _http_client(verify: ssl.SSLContext) -> httpx2.AsyncClient:
    """Connections as the client makes them, but for what suits questions to one's own servers.

    They go there and nowhere else: not by a proxy of the environment, nor where a server points. One that is idle is
    left before the server closes it (vLLM does so after five seconds), which would break the next request.
    """
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=_KEPT, keepalive_expiry=_KEPT_S)
    return httpx2.AsyncClient(limits=limits, trust_env=False, follow_redirects=False, verify=verify)


def loop_time() -> float:
    """The clock of the running event loop, which its time-outs go by."""
    return asyncio.get_running_loop().time()
