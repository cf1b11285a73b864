"""A client that asks for much and reads none of it holds little, and not for long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from service.drain import Drain
from service.edge import RequestEdge
from service.serve import DrainingServer

MOST_BYTES = 256 * 1024
"""What waits in the process for a client that reads nothing."""
BLOCK = bytes(8 * 1024 * 1024)


class Endless:
    """Answers with blocks until its client is gone."""

    def __init__(self) -> None:
        self.sent = 0
        self.gone = asyncio.Event()

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.ensure_future(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
            self.sent += len(BLOCK)
            await asyncio.sleep(0)
        assert leaving.result()["type"] == "http.disconnect"
        self.gone.set()


@pytest.fixture
async def served() -> AsyncIterator[tuple[Endless, DrainingServer, int]]:
    app, drain = Endless(), Drain(0)
    edge = RequestEdge(app, upload_limit=1, drain=drain)
    config = uvicorn.Config(edge, host="127.0.0.1", port=0, lifespan="off", log_level="error")
    server = DrainingServer(config, drain, unread_s=1)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield app, server, server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def test_who_reads_nothing_holds_little_and_is_left(served: tuple[Endless, DrainingServer, int]) -> None:
    app, server, port = served
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while not server.server_state.connections:
            await asyncio.sleep(0.01)
        [connection] = server.server_state.connections
        await asyncio.sleep(0.5)
        assert connection.transport is not None
        assert connection.transport.get_write_buffer_size() < MOST_BYTES
        assert app.sent == 0, "the first block is not handed on yet"
        async with asyncio.timeout(60):
            await app.gone.wait()


async def test_pieces_are_the_whole() -> None:
    passed: list[Message] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a" * 200_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"b" * 70_000})

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        passed.append(message)

    scope = {"type": "http", "path": "/", "headers": []}
    await RequestEdge(app, upload_limit=1, drain=Drain(0))(scope, receive, send)
    assert b"".join(one["body"] for one in passed[1:]) == b"a" * 200_000 + b"b" * 70_000
    assert [one.get("more_body", False) for one in passed[1:]] == [True] * (len(passed) - 2) + [False]
