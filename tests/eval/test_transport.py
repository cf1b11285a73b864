"""What the client makes of servers that refuse, break off, or are something else; over real connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from eval.client import ApiProblem, TesseraClient, Unreachable
from tenants.errors import InvalidRequest, Unauthenticated

PROBLEM = {
    "type": "urn:tessera:problem:invalid_filter",
    "title": "Invalid filter",
    "status": 422,
    "detail": "The filter is not valid.",
    "code": "invalid_filter",
    "request_id": "r-1",
    "errors": [{"pointer": "filter.a", "detail": "is odd"}],
}


def answer(status: str, body: str, kind: str = "application/json", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body.encode())}", *headers]
    return ("\r\n".join([*head, "Connection: close", "", ""]) + body).encode()


def streamed(*events: tuple[str, object]) -> bytes:
    blocks = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{blocks}".encode()


@asynccontextmanager
async def served(reply: bytes) -> AsyncIterator[TesseraClient]:
    """A client of a server that gives this reply to whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, TesseraClient(f"http://127.0.0.1:{port}/", "tsr_live_x") as client:
        yield client


async def refusal(reply: bytes, call: Callable[[TesseraClient], Awaitable[object]]) -> ApiProblem:
    async with served(reply) as client:
        with pytest.raises(ApiProblem) as caught:
            await call(client)
    return caught.value


async def test_a_problem_document_is_raised_whole() -> None:
    reply = answer("422 Unprocessable", json.dumps(PROBLEM), "application/problem+json")
    problem = await refusal(reply, lambda client: client.search("x"))
    assert (problem.code, problem.status, problem.request_id, problem.retryable) == (
        "invalid_filter",
        422,
        "r-1",
        False,
    )
    assert [(error.pointer, error.detail) for error in problem.errors] == [("filter.a", "is odd")]
    assert str(problem) == "The filter is not valid. (invalid_filter, request r-1)"


@pytest.mark.parametrize(("body", "kind"), [("<h1>Bad gateway</h1>", "text/html"), ("[1]", "application/json")])
async def test_a_refusal_without_a_problem_document_has_the_status_as_its_code(body: str, kind: str) -> None:
    problem = await refusal(answer("502 Bad Gateway", body, kind, "X-Request-Id: r-2"), lambda client: client.job("1"))
    assert (problem.code, problem.retryable, problem.request_id) == ("http_502", True, "r-2")


async def test_a_redirect_is_a_refusal() -> None:
    reply = answer("307 Temporary Redirect", "", "text/plain", "Location: http://127.0.0.1:1/")
    assert (await refusal(reply, lambda client: client.job(""))).code == "http_307"


async def test_something_else_than_tessera_is_told_apart() -> None:
    async with served(answer("200 OK", "<html>Welcome</html>", "text/html")) as client:
        with pytest.raises(Unreachable, match="not Tessera"):
            await client.document("1")


async def test_nothing_at_the_address() -> None:
    async with served(b"") as client:
        url = client.url
    async with TesseraClient(url, "tsr_live_x") as client:
        with pytest.raises(Unreachable) as caught:
            await client.document("1")
    assert caught.value.code == "server_unreachable"
    assert url in caught.value.detail


async def test_silence_is_a_timeout() -> None:
    async def hold(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()
        await writer.wait_closed()
        ended.set()

    released, ended = asyncio.Event(), asyncio.Event()
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, TesseraClient(url, "tsr_live_x", timeout_s=0.05) as client:
        with pytest.raises(Unreachable) as caught:
            await client.document("1")
        released.set()
        await ended.wait()
    assert caught.value.code == "server_timeout"


async def test_a_chat_yields_its_events_up_to_done() -> None:
    events = [("retrieval", {"hits": []}), ("delta", {"text": "31"}), ("done", {"answer": "31"}), ("delta", {})]
    async with served(streamed(*events)) as client:
        assert [event async for event in client.chat("How many?")] == events[:3]


async def test_an_error_event_is_raised() -> None:
    async with served(streamed(("delta", {"text": "31"}), ("error", PROBLEM))) as client:
        with pytest.raises(ApiProblem, match="r-1"):
            [event async for event in client.chat("How many?")]


async def test_a_stream_without_done_has_broken_off() -> None:
    async with served(streamed(("delta", {"text": "31"}))) as client:
        with pytest.raises(ApiProblem) as caught:
            [event async for event in client.chat("How many?")]
    assert caught.value.code == "answer_broken_off"


@pytest.mark.parametrize("url", ["", "localhost:8321", "ftp://host", "http://", "http://[::1", "/v1"])
def test_what_is_not_an_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidRequest, match="not an address"):
        TesseraClient(url, "tsr_live_x")


@pytest.mark.parametrize("key", ["", " ", "tsr live", "tsr_live_ü", "tsr\nlive"])
def test_what_cannot_be_a_key_is_refused_at_once(key: str) -> None:
    with pytest.raises(Unauthenticated):
        TesseraClient("http://127.0.0.1:1", key)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ("attachment; filename=\"gr__e.md\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.md", "größe.md"),
        ('attachment; filename="plain.md"', "plain.md"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ("attachment; filename*=UTF-8''..%2F..%2Fetc%5Cpasswd", "passwd"),
        ('attachment; filename=".."', "the-id"),
        ("", "the-id"),
    ],
)
async def test_the_name_of_a_download_is_a_name_and_never_a_path(disposition: str, name: str) -> None:
    reply = answer("200 OK", "content", "application/octet-stream", f"Content-Disposition: {disposition}")
    async with served(reply) as client, client.download("the-id") as original:
        assert original.filename == name
        assert [block async for block in original.blocks] == [b"content"]
