"""A server that speaks the OpenAI chat protocol and misbehaves as asked: the model's name is the script it plays."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

Script = Callable[["ModelServer"], AsyncIterator[str]]


@dataclass
class ModelServer:
    """What was asked of the server, and what it is told to say. `stopped` is set when a client hangs up."""

    url: str
    scripts: dict[str, Script] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def says(self, name: str, *pieces: str, finish: str | None = "stop") -> str:
        """A model that says these pieces and ends; returns its name."""

        async def script(_: ModelServer) -> AsyncIterator[str]:
            for piece in pieces:
                yield chunk(piece)
            if finish is not None:
                yield chunk("", finish=finish)
                yield usage(11, 7)
                yield "data: [DONE]\n\n"

        self.scripts[name] = script
        return name


def chunk(text: str, finish: str | None = None) -> str:
    """One event of the stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return _event({"choices": [choice]})


def usage(prompt: int, completion: int) -> str:
    """The last event, with the counts."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return _event({"choices": [], "usage": counts})


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', 'created': 1, 'model': 'm', **body})}\n\n"


def build_app(server: ModelServer) -> FastAPI:
    """The application: one route."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        body = await request.json()
        server.requests.append(body)
        server.authorizations.append(request.headers.get("authorization"))
        if body["model"] == "refuses":
            return JSONResponse({"error": {"message": "out of memory"}}, status_code=500)
        if body["model"] == "silent":
            await _until_hung_up(server, request.is_disconnected)

        async def stream() -> AsyncIterator[str]:
            try:
                async for event in server.scripts[body["model"]](server):
                    yield event
            except asyncio.CancelledError:
                server.stopped.set()
                raise

        return StreamingResponse(stream(), media_type="text/event-stream")

    return app


async def _until_hung_up(server: ModelServer, is_disconnected: Callable[[], Awaitable[bool]]) -> None:
    while not await is_disconnected():
        await asyncio.sleep(0.02)
    server.stopped.set()


@asynccontextmanager
async def running_model_server() -> AsyncIterator[ModelServer]:
    """The server on a free port of the loopback."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = ModelServer(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
    config = uvicorn.Config(build_app(server), log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    runner = uvicorn.Server(config)
    serving = asyncio.create_task(runner.serve(sockets=[listening]))
    try:
        yield server
    finally:
        runner.should_exit = True
        await serving
        # Past its graceful time uvicorn leaves connections open, and the sockets would be found by some later test.
        for connection in list(runner.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)
