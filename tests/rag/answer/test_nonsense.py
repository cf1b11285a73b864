"""Servers that answer nonsense, or repeat what they were told: the asker gets an answer, and the log no secret."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from rag.answer.build import build_generator
from rag.answer.cache_salt import cache_salt
from rag.answer.completion import ChatRequest, ReplicaFailed, open_completion
from rag.answer.figures import GenerationFigures
from rag.answer.generator import Asked
from rag.answer.routes import routes_of
from rag.answer.servers import ModelServers
from rag.settings import GenerationSettings, SaltRule
from shards.embed import Embedder
from tests.rag.answer.conftest import LEAVE, QUESTION, TENANT, slots_of
from tests.rag.answer.model_server import ModelServer, running_model_server

SALT = cache_salt("a secret", TENANT.tenant_id)


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with running_model_server() as running:
        running.says("m", "well")
        yield running


@pytest.fixture
async def opened(server: ModelServer, embedder: Embedder) -> AsyncIterator[ModelServers]:
    settings = GenerationSettings(base_url=server.url, model="m")
    models = ModelServers(settings, embedder, GenerationFigures(), secret="a secret")
    models.pool(routes_of(settings)["m"])
    yield models
    await models.aclose()


def request(rule: SaltRule = "auto") -> ChatRequest:
    return ChatRequest("m", [{"role": "user", "content": QUESTION}], 64, SALT, rule)


async def read(opened: ModelServers, rule: SaltRule = "auto") -> str:
    completion = await open_completion(opened.replicas[0], request(rule))
    try:
        pieces = []
        while (piece := await completion.read()) is not None:
            pieces.append(piece)
        return "".join(pieces)
    finally:
        await completion.aclose()


def event(**body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def delta(content: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": "stop"}])


NONSENSE = {
    "not UTF-8": b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n',
    "not JSON": b"data: {not json\n\n",
    "deep": b"data: " + b"[" * 200_000 + b"\n\n",
    "a number": b"data: 5\n\n",
    "null": b"data: null\n\n",
    "a list": b"data: [1]\n\n",
    "a text": b'data: "x"\n\n',
    "choices by name": event(choices={"a": 1}),
    "choices of text": event(choices=["text"]),
    "a delta of text": event(choices=[{"delta": "text"}]),
    "no delta": event(choices=[{"index": 0}]),
    "content is a list": delta(["text"]),
    "content is a number": delta(5),
    "counts in words": event(choices=[], usage={"prompt_tokens": "many", "completion_tokens": 1}),
    "endless counts": b'data: {"choices": [], "usage": {"prompt_tokens": 1e999, "completion_tokens": 1}}\n\n',
    "an error": event(error={"message": QUESTION, "code": 5}),
    "an error in words": event(error=QUESTION),
    "an error event": b"event: error\n" + event(error=["x"]),
    "a thread": b"event: thread.run\ndata: {not json\n\n",
    "no events": b"<html>" + b"x" * 1000,
    "nothing": b"",
}


@pytest.mark.parametrize("said", NONSENSE)
async def test_nonsense_is_a_failure_of_the_replica(server: ModelServer, opened: ModelServers, said: str) -> None:
    async def script(_: ModelServer) -> AsyncIterator[bytes]:
        yield NONSENSE[said]

    server.scripts["m"] = script
    with pytest.raises(ReplicaFailed) as failed:
        await read(opened)
    assert failed.value.kind in ("error", "gone")
    assert QUESTION not in str(failed.value)


@pytest.mark.parametrize(("said", "kept"), [("27\ud83d days", "27? days"), ("27\0 days", "27 days")])
async def test_what_no_store_takes_is_left_out(server: ModelServer, opened: ModelServers, said: str, kept: str) -> None:
    async def script(_: ModelServer) -> AsyncIterator[bytes]:
        yield delta(said)

    server.scripts["m"] = script
    assert await read(opened) == kept


async def test_a_replica_that_dies_while_it_says_what_is_wrong_is_gone(
    server: ModelServer, opened: ModelServers
) -> None:
    server.status, server.headers = 500, {"content-length": "100000"}
    with pytest.raises(ReplicaFailed) as failed:
        await read(opened)
    assert failed.value.kind == "gone"


async def test_the_cause_of_a_broken_connection_is_named(server: ModelServer, opened: ModelServers) -> None:
    await server.die()
    with pytest.raises(ReplicaFailed, match=r"^APIConnectionError \(ConnectError\)$"):
        await read(opened)


@pytest.mark.parametrize("status", [400, 422, 429, 500, 404])
async def test_what_a_server_repeats_of_a_request_is_not_told(
    server: ModelServer, opened: ModelServers, status: int
) -> None:
    server.status, server.echoes = status, True
    with pytest.raises(ReplicaFailed, match=rf"^HTTP {status}$") as failed:
        await read(opened)
    assert failed.value.__suppress_context__, "nor is it where the exception is printed"
    assert failed.value.__cause__ is None
    assert QUESTION in str(server.requests)


async def test_an_error_is_named_by_its_code(server: ModelServer, opened: ModelServers) -> None:
    server.key = "sesame"
    with pytest.raises(ReplicaFailed, match=r"^HTTP 401 \(invalid_api_key\)$"):
        await read(opened)
    server.key = ""
    for code, left in (("BadRequest", " (BadRequest)"), (SALT, ""), (QUESTION, ""), (400, ""), ([SALT], "")):
        server.error = {"message": SALT, "type": code}
        server.status = 500
        with pytest.raises(ReplicaFailed) as failed:
            await read(opened)
        assert str(failed.value) == f"HTTP 500{left}"


async def test_a_server_that_repeats_the_prompt_is_not_taken_for_one_that_refuses_the_salt(
    server: ModelServer, opened: ModelServers
) -> None:
    server.status, server.echoes = 422, True
    with pytest.raises(ReplicaFailed):
        await read(opened)
    assert ["cache_salt" in asked for asked in server.requests] == [True, False]
    server.status = 0
    assert await read(opened) == "well"
    assert server.requests[-1]["cache_salt"] == SALT, "it is sent on"


async def test_a_salt_that_is_required_is_always_sent(server: ModelServer, opened: ModelServers) -> None:
    server.strict = "openai"
    assert await read(opened) == "well"
    assert "cache_salt" not in server.requests[-1]
    with pytest.raises(ReplicaFailed, match="required") as failed:
        await read(opened, "required")
    assert failed.value.kind == "refused"
    assert server.requests[-1]["cache_salt"] == SALT


async def test_the_log_has_neither_the_question_nor_the_salt(
    server: ModelServer, embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    settings = GenerationSettings(base_url=server.url, model="m")
    generator = build_generator(settings, embedder, secret="a secret", slots=slots_of(settings))
    asked = Asked(QUESTION, [LEAVE], [], {}, await embedder.embed_query(QUESTION))

    async def says_what_it_was_told(running: ModelServer) -> AsyncIterator[bytes]:
        yield event(error={"message": json.dumps(running.requests[-1])})

    server.scripts["m"] = says_what_it_was_told
    server.echoes = True
    for server.status in (422, 0):
        async with aclosing(generator.answer(TENANT, asked)) as events:
            assert [event async for event in events]
    await generator.aclose()
    assert (QUESTION in str(server.requests), SALT in str(server.requests)) == (True, True)
    assert "HTTP 422" in caplog.text
    assert QUESTION not in caplog.text
    assert SALT not in caplog.text
