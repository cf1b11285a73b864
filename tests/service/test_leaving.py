"""An API process that leaves answers everyone who has connected to it."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from starlette.types import Receive, Scope, Send

from service.drain import Drain
from service.serve import DrainingServer


async def answer(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def answered(client: socket.socket) -> str:
    client.settimeout(10)
    try:
        return client.recv(15).decode()
    except OSError as error:
        return str(error)


async def test_who_has_connected_is_answered_and_nobody_else_is_taken() -> None:
    config = uvicorn.Config(answer, host="127.0.0.1", port=0, lifespan="off", log_level="error")
    server = DrainingServer(config, Drain(0))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    place = server.servers[0].sockets[0].getsockname()
    # The event loop gets no turn in between: the kernel takes the connections, and nobody accepts them.
    clients = [socket.create_connection(place) for _ in range(50)]
    for client in clients[:25]:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    leaving = asyncio.create_task(server.shutdown())
    await asyncio.sleep(0.05)
    for client in clients[25:]:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    found = await asyncio.gather(*(asyncio.to_thread(answered, client) for client in clients))
    assert set(found) == {"HTTP/1.1 200 OK"}
    for client in clients:
        client.close()
    await leaving
    server.should_exit = True
    await serving
    with socket.socket() as late:
        assert late.connect_ex(place) != 0
