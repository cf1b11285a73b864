"""Against real replicas of vLLM: streaming, cancelling, the tenants' salts, choosing by its metrics, and a killed one.

The model has random weights, so its words are noise; all else is real. The last test kills a replica.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx
import pytest

from rag.answer.build import build_generator
from rag.answer.cache_salt import cache_salt
from rag.answer.check import check_generation
from rag.answer.completion import ChatRequest, ReplicaFailed, Usage
from rag.answer.figures import GenerationFigures
from rag.answer.generator import Asked, Finished
from rag.answer.model_stream import ModelStream
from rag.answer.openai_chat import budget_from_now
from rag.answer.prompt import Message
from rag.answer.replica import Replica
from rag.answer.replica_watch import server_root
from rag.answer.routed import RoutedGenerator
from rag.answer.routes import routes_of
from rag.answer.server_metrics import ServerLoad, read_load
from rag.answer.servers import ModelServers
from rag.answer.tries import Tries
from rag.settings import GenerationSettings
from shards.embed import Embedder
from tenants.errors import Misconfigured
from tests.rag.answer.conftest import LEAVE, QUESTION, TENANT, TRAVEL, slots_of
from tests.servers import server

LONG = 1900
"""Tokens: seconds of work, and nearly as many as the server writes."""
HELD_S = 1.0
"""A replica that is told to stop has stopped by then."""


def begin(stream: ModelStream, request: ChatRequest, usage: Usage) -> AsyncGenerator[str, None]:
    """Ask for a text by itself, without whoever checks it."""
    return stream.pieces(request, budget_from_now(stream.settings), usage, Tries(asyncio.get_running_loop().time()))


class Vllm:
    """The replicas, each by itself or all of them."""

    def __init__(self, embedder: Embedder) -> None:
        found = server("vllm")
        self.embedder = embedder
        self.urls: list[str] = found["base_urls"]
        self.pids: list[int] = found["pids"]
        self.model: str = found["model"]
        self.adapter: str = found["adapter"]
        self.opened: list[ModelServers] = []

    def settings(self, *urls: str, **values: Any) -> GenerationSettings:
        times = {"first_token_timeout_s": 60, "idle_timeout_s": 60, "hedge_share": 0, "poll_s": 0.2}
        given = {"base_urls": list(urls or self.urls), "model": self.model, **times, **values}
        return GenerationSettings.model_validate(given)

    def stream(self, *urls: str, model: str = "", **values: Any) -> ModelStream:
        settings = self.settings(*urls, adapters=[self.adapter], **values)
        figures = GenerationFigures()
        servers = ModelServers(settings, self.embedder, figures, secret="a secret")
        self.opened.append(servers)
        name = model or self.model
        return ModelStream(name, servers.pool(routes_of(settings)[name]), settings, figures)

    def service(self, settings: GenerationSettings) -> RoutedGenerator:
        return build_generator(settings, self.embedder, secret="a secret", slots=slots_of(settings))

    def request(self, text: str = "Say something.", *, tokens: int = 24, salt: str = "") -> ChatRequest:
        message: Message = {"role": "user", "content": text}
        return ChatRequest(self.model, [message], tokens, salt or secrets.token_hex(8), "required")

    async def say(self, stream: ModelStream, request: ChatRequest) -> tuple[list[str], Usage]:
        usage = Usage()
        async with asyncio.timeout(120):
            async with aclosing(begin(stream, request, usage)) as pieces:
                return [piece async for piece in pieces], usage

    async def load(self, url: str) -> ServerLoad:
        async with httpx.AsyncClient() as client:
            found = read_load((await client.get(f"{server_root(url)}/metrics")).text)
        assert found is not None
        return found

    async def until_running(self, url: str, number: int) -> None:
        async with asyncio.timeout(60):
            while (await self.load(url)).running != number:
                await asyncio.sleep(0.05)


async def drain(pieces: AsyncIterator[str]) -> None:
    async with asyncio.timeout(60):
        async for _ in pieces:
            pass


@pytest.fixture
async def vllm(embedder: Embedder) -> AsyncIterator[Vllm]:
    made = Vllm(embedder)
    yield made
    for servers in made.opened:
        await servers.aclose()


async def test_text_comes_in_pieces_and_its_tokens_are_counted(vllm: Vllm) -> None:
    stream = vllm.stream(max_tokens=24)
    pieces, usage = await vllm.say(stream, vllm.request(tokens=24))
    assert len(pieces) > 5
    assert (usage.finished, usage.cut) == (True, True), "noise does not come to an end by itself"
    assert usage.completion_tokens == 24


async def test_a_stream_that_is_closed_stops_the_model_within_a_second(vllm: Vllm) -> None:
    url = vllm.urls[0]
    await vllm.until_running(url, 0)
    stream = vllm.stream(url)
    streams = [begin(stream, vllm.request(tokens=LONG), Usage()) for _ in range(3)]
    await asyncio.gather(*map(anext, streams))
    await vllm.until_running(url, 3)
    for pieces in streams:
        await pieces.aclose()
    await asyncio.sleep(HELD_S)
    load = await vllm.load(url)
    assert (load.running, load.waiting) == (0, 0)


async def test_one_tenants_prompt_never_warms_anothers(vllm: Vllm) -> None:
    url, prompt = vllm.urls[0], " ".join(secrets.choice(["leave", "day", "portal", "rate"]) for _ in range(500))
    stream = vllm.stream(url)
    acme, birch = (cache_salt("a secret", one.document_id) for one in (LEAVE, TRAVEL))
    hits = []
    for salt in (acme, birch, acme, birch):
        before = await vllm.load(url)
        await vllm.say(stream, vllm.request(prompt, tokens=4, salt=salt))
        after = await vllm.load(url)
        assert after.prefix_queries > before.prefix_queries
        hits.append(after.prefix_hits - before.prefix_hits)
    assert hits[:2] == [0, 0], "the other tenant sent the same prompt just before"
    assert min(hits[2:]) >= 256, "its own prompt is warm"


async def test_an_adapter_is_a_model_of_its_own_on_the_same_server(vllm: Vllm) -> None:
    texts = []
    for name in (vllm.model, vllm.adapter, vllm.model, vllm.adapter):
        request = replace(vllm.request("What is the mileage rate?"), model=name)
        pieces, usage = await vllm.say(vllm.stream(vllm.urls[0], model=name), request)
        assert usage.finished
        texts.append("".join(pieces))
    assert texts[:2] == texts[2:], "the likeliest words are taken"
    assert texts[0] != texts[1]


async def test_requests_go_to_the_replica_whose_metrics_say_that_it_is_idle(vllm: Vllm) -> None:
    busy, idle = vllm.urls[:2]
    others = vllm.stream(busy)  # of another process
    held = [begin(others, vllm.request(tokens=LONG), Usage()) for _ in range(4)]
    await asyncio.gather(*map(anext, held))
    await vllm.until_running(busy, 4)
    stream = vllm.stream()
    servers = vllm.opened[-1]
    await servers.look()
    for _ in range(6):
        chosen = stream.pool.choose()
        assert chosen is not None
        assert chosen.url == idle
    for pieces in held:
        await pieces.aclose()
    await vllm.until_running(busy, 0)
    await servers.look()
    urls = {one.url for _ in range(50) if isinstance(one := stream.pool.choose(), Replica)}
    assert urls == {busy, idle}


async def test_the_service_finds_the_servers_good(vllm: Vllm) -> None:
    await check_generation(vllm.settings(adapters=[vllm.adapter]))
    with pytest.raises(Misconfigured, match=r"has no model 'other'; it has .*--lora-modules"):
        await check_generation(vllm.settings(adapters=["other"]))


async def test_a_replica_killed_in_mid_stream_breaks_one_answer_and_no_further_one(vllm: Vllm) -> None:
    url, pid = vllm.urls[0], vllm.pids[0]
    generator = vllm.service(vllm.settings(max_tokens=24))
    asked = Asked(QUESTION, [LEAVE, TRAVEL], [], {}, await vllm.embedder.embed_query(QUESTION))
    pieces = begin(vllm.stream(url, max_tokens=LONG), vllm.request(tokens=LONG), Usage())
    await anext(pieces)  # and at once, for it writes quickly
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ReplicaFailed):
        await drain(pieces)
    for _ in range(4):
        async with asyncio.timeout(60), aclosing(generator.answer(TENANT, asked)) as events:
            finished = [event async for event in events][-1]
        assert isinstance(finished, Finished)
        # The other replica's noise: it was asked, so no answer is degraded for want of a model.
        assert finished.degraded == ("generation_unsupported",)
        assert "27 days" in finished.answer
    await generator.aclose()
