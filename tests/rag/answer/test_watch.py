"""What a server says of itself is looked at for a bounded time, and believed while somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, cast

import pytest
from prometheus_client.core import Metric

from rag.answer.build import build_generator
from rag.answer.generator import Asked, Finished
from rag.answer.replica import Replica
from rag.answer.replica_watch import ReplicaWatch
from rag.answer.routed import RoutedGenerator
from rag.settings import GenerationSettings
from service.generation_metrics import generation_metrics
from shards.embed import Embedder
from tests.rag.answer.conftest import LEAVE, QUESTION, TENANT, slots_of
from tests.rag.answer.model_server import ModelServer, running_model_server

GOOD = "A full-time employee has 27 days of annual leave [1]."


@pytest.fixture
async def servers() -> AsyncIterator[list[ModelServer]]:
    async with running_model_server() as one, running_model_server() as other:
        for server in (one, other):
            server.says("m", GOOD)
        yield [one, other]


def generator_on(urls: Sequence[str], embedder: Embedder, **values: Any) -> RoutedGenerator:
    settings = GenerationSettings.model_validate({"base_urls": list(urls), "model": "m", **values})
    return build_generator(settings, embedder, secret="a secret", slots=slots_of(settings))


async def ask(generator: RoutedGenerator, embedder: Embedder, model: str = "") -> Finished:
    asked = Asked(QUESTION, [LEAVE], [], {}, await embedder.embed_query(QUESTION), model)
    async with asyncio.timeout(60), aclosing(generator.answer(TENANT, asked)) as events:
        finished = [event async for event in events][-1]
    assert isinstance(finished, Finished)
    return finished


async def watched(server: ModelServer) -> tuple[ReplicaWatch, Replica]:
    watch = ReplicaWatch(60, asyncio.get_running_loop().time)
    replica = Replica(server.url, cast(Any, None), 8, fresh_s=60)
    watch.replicas.append(replica)
    return watch, replica


@pytest.mark.parametrize("endless", [{"health": 0.0}, {"health": 0.5}, {"metrics": 0.0}, {"metrics": 0.5}])
async def test_a_body_without_end_takes_no_longer_than_a_look(
    servers: list[ModelServer], endless: dict[str, float]
) -> None:
    watch, replica = await watched(servers[0])
    replica.reachable = False
    servers[0].endless = endless
    async with asyncio.timeout(4):
        await watch.look()
    assert replica.reachable, "its status says that it is there"
    servers[0].health = 503
    async with asyncio.timeout(4):
        await watch.look()
    assert not replica.reachable
    await watch.aclose()


async def test_after_an_idle_minute_nothing_is_believed_any_more(servers: list[ModelServer]) -> None:
    watch, replica = await watched(servers[0])
    now = 1000.0
    watch._clock, watch._every_s = lambda: now, 0.01
    watch.note_use()
    while replica.reading is None:
        await asyncio.sleep(0.01)
    servers[0].health = 503
    while replica.reachable:
        await asyncio.sleep(0.01)
    now += 61
    assert watch._task is not None
    await asyncio.wait_for(watch._task, 10)
    assert (replica.reachable, replica.reading) == (True, None)
    await watch.aclose()


async def test_a_question_goes_to_its_server_and_nowhere_else(
    servers: list[ModelServer], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, other = servers
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, other.url.removesuffix("/v1"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    generator = generator_on([asked.url], embedder)
    assert (await ask(generator, embedder)).degraded == ()
    asked.status, asked.headers = 307, {"location": f"{other.url}/chat/completions"}
    assert (await ask(generator, embedder)).degraded == ("generation",)
    await generator.aclose()
    assert (len(asked.requests), other.requests) == (2, [])


async def test_a_connection_is_not_used_when_the_server_may_be_closing_it(
    servers: list[ModelServer], embedder: Embedder
) -> None:
    generator = generator_on([servers[0].url], embedder)
    for pause_s in (0.0, 2.3, 0.0):
        await ask(generator, embedder)
        await asyncio.sleep(pause_s)
    await generator.aclose()
    first, second, third = servers[0].ports
    assert first == second != third, "idle for less than the five seconds after which servers close one"


async def test_a_server_with_two_keys_is_one_in_the_figures(servers: list[ModelServer], embedder: Embedder) -> None:
    one, other = servers
    models = {"large": {"base_urls": [f"{one.url}/", other.url], "api_key": "another", "model": "m"}}
    generator = generator_on([one.url], embedder, models=models)
    for place, server in enumerate(generator.servers):
        server.outstanding = place + 1
    await generator.state()
    families: dict[str, Metric] = {family.name: family for family in generation_metrics(generator)}
    for name, expected in {"outstanding": {one.url: 3, other.url: 3}, "up": {one.url: 1, other.url: 1}}.items():
        samples = families[f"tessera_generation_{name}"].samples
        assert len(samples) == 2
        assert {sample.labels["server"]: sample.value for sample in samples} == expected
    assert len(families["tessera_generation_running"].samples) == 2
    await generator.aclose()
