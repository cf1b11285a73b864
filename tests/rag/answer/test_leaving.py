"""Whoever asked leaves: anyio cancels a task again at every turn of the loop, as Starlette does with a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing

import anyio
import pytest

from rag.answer.completion import ChatRequest, Usage
from rag.answer.figures import GenerationFigures
from rag.answer.model_stream import ModelStream
from rag.answer.openai_chat import budget_from_now
from rag.answer.routes import routes_of
from rag.answer.servers import ModelServers
from rag.answer.tries import Tries
from rag.settings import GenerationSettings
from shards.embed import Embedder
from tests.rag.answer.model_server import ModelServer, chunk, running_model_server

REQUEST = ChatRequest("m", [{"role": "user", "content": "Say something."}], 64, "salt", "auto")


@pytest.fixture
async def servers() -> AsyncIterator[list[ModelServer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running_model_server()) for _ in range(2)]


@pytest.fixture
async def opened(servers: list[ModelServer], embedder: Embedder) -> AsyncIterator[tuple[ModelServers, ModelStream]]:
    settings = GenerationSettings(
        base_urls=[server.url for server in servers], model="m", first_token_timeout_s=60, hedge_share=1, poll_s=60
    )
    figures = GenerationFigures()
    models = ModelServers(settings, embedder, figures, secret="a secret")
    yield models, ModelStream("m", models.pool(routes_of(settings)["m"]), settings, figures)
    await models.aclose()


async def read(stream: ModelStream, text: asyncio.Event) -> None:
    async with aclosing(stream.pieces(REQUEST, budget_from_now(stream.settings), Usage(), Tries(0.0))) as pieces:
        async for _ in pieces:
            text.set()


async def until(condition: asyncio.Event | ModelServer, most_s: float = 10) -> None:
    async with asyncio.timeout(most_s):
        if isinstance(condition, asyncio.Event):
            await condition.wait()
        else:
            while not condition.requests:
                await asyncio.sleep(0.01)


def begin_and_go_on(servers: list[ModelServer]) -> None:
    """Have each say something, and then think for an hour."""

    async def goes_on(_: ModelServer) -> AsyncIterator[str]:
        yield chunk("Here it is.")
        await asyncio.sleep(3600)

    for server in servers:
        server.scripts["m"] = goes_on


def nothing_is_held(models: ModelServers) -> bool:
    return all(one.outstanding == 0 and not one._waiting for one in models.replicas)


async def test_before_the_first_token_the_place_is_free_at_once_and_the_model_stops(
    servers: list[ModelServer], opened: tuple[ModelServers, ModelStream]
) -> None:
    models, stream = opened
    for server in servers:
        server.first_token_s = 3600
        server.says("m", "never")
    async with anyio.create_task_group() as group:
        group.start_soon(read, stream, asyncio.Event())
        while not any(server.running for server in servers):
            await asyncio.sleep(0.01)
        group.cancel_scope.cancel()
    assert nothing_is_held(models)
    await until(next(server for server in servers if server.requests).stopped)


async def test_an_answer_that_has_just_begun_is_closed_with_whoever_left(
    servers: list[ModelServer], opened: tuple[ModelServers, ModelStream]
) -> None:
    """The race was won, and nobody has seen it yet."""
    models, stream = opened
    races: list[asyncio.Task[object]] = []
    loop = asyncio.get_running_loop()

    def insist() -> None:
        if not reading.done():
            reading.cancel()
            loop.call_soon(insist)

    begin_and_go_on(servers)
    before = asyncio.all_tasks()
    reading = asyncio.create_task(read(stream, asyncio.Event()))
    while not races:
        await asyncio.sleep(0)
        races = [one for one in asyncio.all_tasks() - before if "_begin" in repr(one.get_coro())]
    races[0].add_done_callback(lambda _: insist())
    await asyncio.wait([reading])
    assert nothing_is_held(models)
    await until(next(server for server in servers if server.requests).stopped)


async def test_in_mid_stream_the_place_is_free_and_the_model_stops(
    servers: list[ModelServer], opened: tuple[ModelServers, ModelStream]
) -> None:
    models, stream = opened
    begin_and_go_on(servers)
    seen = asyncio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(read, stream, seen)
        await until(seen)
        group.cancel_scope.cancel()
    assert nothing_is_held(models)
    await until(next(server for server in servers if server.requests).stopped)


async def test_the_winner_of_two_is_not_lost_while_the_loser_is_stopped(
    servers: list[ModelServer], opened: tuple[ModelServers, ModelStream]
) -> None:
    """The moment between the first token and its reading: both places are given back, both models stop."""
    models, stream = opened

    async def goes_on(server: ModelServer) -> AsyncIterator[str]:
        while all(one.requests == [] for one in servers if one is not server):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1 if server is servers[0] else 3600)
        yield chunk("Here it is.")
        await asyncio.sleep(3600)

    for server in servers:
        server.scripts["m"] = goes_on
    stream.pool.replicas[0]._average_s = stream.pool.replicas[1]._average_s = 0.01  # a second one is asked soon
    async with anyio.create_task_group() as group:
        group.start_soon(read, stream, asyncio.Event())
        for server in servers:
            await until(server)
        while models.replicas[0]._waiting:
            await asyncio.sleep(0)
        group.cancel_scope.cancel()
    assert nothing_is_held(models)
    for server in servers:
        await until(server.stopped)


async def test_what_is_being_closed_is_closed_before_the_connections_are(
    servers: list[ModelServer], opened: tuple[ModelServers, ModelStream]
) -> None:
    models, stream = opened
    for server in servers:
        server.first_token_s = 3600
        server.says("m", "never")
    reading = asyncio.create_task(read(stream, asyncio.Event()))
    while not any(server.running for server in servers):
        await asyncio.sleep(0.01)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert stream.pool.closing
    await models.aclose()
    assert not stream.pool.closing
