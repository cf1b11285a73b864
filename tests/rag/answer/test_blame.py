"""What is held against a replica: that it kept somebody waiting, not that somebody had no time left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from rag.answer.completion import ChatRequest, ReplicaFailed, Usage
from rag.answer.figures import GenerationFigures
from rag.answer.generator import Budget
from rag.answer.model_stream import ModelStream
from rag.answer.replica import Replica
from rag.answer.replica_pool import NoReplica
from rag.answer.routes import routes_of
from rag.answer.servers import ModelServers
from rag.answer.tries import Tries
from rag.settings import GenerationSettings
from shards.embed import Embedder
from tests.rag.answer.model_server import ModelServer, chunk, running_model_server

REQUEST = ChatRequest("m", [{"role": "user", "content": "Say something."}], 64, "salt", "auto")


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with running_model_server() as running:
        running.says("m", "well")
        yield running


@pytest.fixture
async def stream(server: ModelServer, embedder: Embedder) -> AsyncIterator[ModelStream]:
    settings = GenerationSettings(
        base_url=server.url, model="m", poll_s=60, first_token_timeout_s=1.2, concurrent_per_replica=1
    )
    figures = GenerationFigures()
    models = ModelServers(settings, embedder, figures, secret="a secret")
    yield ModelStream("m", models.pool(routes_of(settings)["m"]), settings, figures)
    await models.aclose()


async def read(stream: ModelStream, begin_s: float, end_s: float = 60) -> ReplicaFailed | None:
    now = asyncio.get_running_loop().time()
    pieces = stream.pieces(REQUEST, Budget(now + begin_s, now + end_s), Usage(), Tries(now))
    try:
        async with asyncio.timeout(60), aclosing(pieces):
            async for _ in pieces:
                pass
    except ReplicaFailed as error:
        return error
    return None


def failures(stream: ModelStream) -> int:
    replica: Replica = stream.pool.replicas[0]
    return replica.ejection._failures


async def test_a_replica_that_keeps_one_waiting_has_failed(server: ModelServer, stream: ModelStream) -> None:
    server.first_token_s = 3600
    assert await read(stream, 0.6) is not None
    assert failures(stream) == 1


async def test_one_that_was_asked_at_the_last_moment_has_not(server: ModelServer, stream: ModelStream) -> None:
    server.first_token_s = 3600
    assert await read(stream, 0.05) is not None
    first = asyncio.create_task(read(stream, 0.2))  # holds the only place until the other has 0.1 s left
    await asyncio.sleep(0)
    second = await read(stream, 0.3)
    await first
    assert second is not None
    assert len(server.requests) >= 2
    assert failures(stream) == 0


async def test_without_time_nobody_is_asked(server: ModelServer, stream: ModelStream) -> None:
    with pytest.raises(NoReplica):
        await stream.pool.lease([], asyncio.get_running_loop().time())
    assert await read(stream, 0) is not None
    assert (server.requests, failures(stream), stream.pool.replicas[0].outstanding) == ([], 0, 0)


async def test_an_answer_that_takes_too_long_in_all_is_not_its_replicas_failure(
    server: ModelServer, stream: ModelStream
) -> None:
    async def goes_on(_: ModelServer) -> AsyncIterator[str]:
        while True:
            yield chunk("and ")
            await asyncio.sleep(0.02)

    server.scripts["m"] = goes_on
    failed = await read(stream, 1, 0.5)
    assert failed is not None
    assert (failed.kind, failed.began, failures(stream)) == ("over", True, 0)


async def test_one_that_falls_silent_has_failed(server: ModelServer, stream: ModelStream) -> None:
    async def hangs(_: ModelServer) -> AsyncIterator[str]:
        yield chunk("and ")
        await asyncio.sleep(3600)

    server.scripts["m"] = hangs
    short = ModelStream("m", stream.pool, stream.settings.model_copy(update={"idle_timeout_s": 0.3}), stream.figures)
    failed = await read(short, 1)
    assert failed is not None
    assert (failed.kind, failures(stream)) == ("error", 1)


async def test_whoever_may_not_ask_twice_takes_no_place(server: ModelServer, embedder: Embedder) -> None:
    """A late answer without a second try left does not hold one for a moment, which others would see as taken."""
    async with running_model_server() as other:
        server.first_token_s = other.first_token_s = 3600
        other.says("m", "well")
        settings = GenerationSettings(base_urls=[server.url, other.url], model="m", poll_s=60, hedge_share=0)
        models = ModelServers(settings, embedder, GenerationFigures(), secret="a secret")
        stream = ModelStream("m", models.pool(routes_of(settings)["m"]), settings, GenerationFigures())
        reading = asyncio.create_task(read(stream, 0.6))
        while not sum(one.outstanding for one in models.replicas):
            await asyncio.sleep(0)
        idle = next(one for one in models.replicas if not one.outstanding)
        await reading
        assert idle._asked_at == float("-inf")
        await models.aclose()
