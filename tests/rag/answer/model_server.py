"""A server that speaks the OpenAI chat protocol and vLLM's metrics, and misbehaves as asked: the model's name is the
script it plays. As a program it is one replica: `python -m tests.rag.answer.model_server --port 8000`."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

Script = Callable[["ModelServer"], AsyncIterator[str | bytes]]
ANSWER = (
    "A full-time employee has 27 days of annual leave [1]. Leave is requested in the staff portal [1]. The mileage rate"
    " for a private car is CHF 0.68 per kilometre [2]."
)


@dataclass
class ModelServer:
    """What was asked of the server, and what it is told to do. `stopped` is set when a client hangs up."""

    url: str
    scripts: dict[str, Script] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    first_token_s: float = 0.0
    """Before the first token, to which each request that runs adds `first_token_per_request_s`."""
    first_token_per_request_s: float = 0.0
    pace_s: float = 0.0
    """Between two pieces of `says`."""
    capacity: int = 256
    """Requests that it computes at once; others wait."""
    status: int = 0
    """Answered instead of an answer, when it is not 0."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with `status`."""
    key: str = ""
    """What it wants to be shown, when it is not empty."""
    strict: str = ""
    """How it refuses fields that it does not know: `openai`, or `detail` as others do; empty if it takes them."""
    error: dict[str, Any] = field(default_factory=dict)
    """What it says with `status`."""
    echoes: bool = False
    """Whether what it says with `status` repeats the request, as FastAPI's refusals do."""
    is_vllm: bool = True
    version: str = "0.32.0"
    health: int = 200
    listing: int = 0
    """Answered instead of the list of models, when it is not 0."""
    endless: dict[str, float] = field(default_factory=dict)
    """Seconds between two pieces of the body of `health` or `metrics`, which then has no end."""
    ports: list[int] = field(default_factory=list)
    """Of the clients, one for each of the requests."""
    lies: dict[str, str] = field(default_factory=dict)
    """Values of metrics that it gives instead of the true ones, by the end of their names."""
    cache: float = 0.0
    running: int = 0
    waiting: int = 0
    _runner: uvicorn.Server | None = None
    _listening: socket.socket | None = None
    _room: asyncio.Condition = field(default_factory=asyncio.Condition)

    def says(self, name: str, *pieces: str, finish: str | None = "stop") -> str:
        """A model that says these pieces and ends; returns its name."""

        async def script(server: ModelServer) -> AsyncIterator[str]:
            for place, piece in enumerate(pieces):
                if place:
                    await asyncio.sleep(server.pace_s)
                yield chunk(piece)
            if finish is not None:
                yield chunk("", finish=finish)
                yield usage(11, 7)
                yield "data: [DONE]\n\n"

        self.scripts[name] = script
        return name

    async def die(self) -> None:
        """Break every connection and listen no more, as when the process is killed."""
        assert self._runner is not None
        assert self._listening is not None
        for server in self._runner.servers:
            server.close()
        self._listening.close()
        for connection in list(self._runner.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        await asyncio.sleep(0)

    @asynccontextmanager
    async def computing(self) -> AsyncIterator[None]:
        """Hold one of the places in which it computes."""
        self.waiting += 1
        try:
            async with self._room:
                await self._room.wait_for(lambda: self.running < self.capacity)
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            async with self._room:
                self._room.notify()

    def metrics(self) -> str:
        """As vLLM prints them."""
        true = {
            "num_requests_running": self.running,
            "num_requests_waiting": self.waiting,
            "kv_cache_usage_perc": self.cache,
            "prefix_cache_queries_total": 0,
            "prefix_cache_hits_total": 0,
        }
        lines = []
        for name, value in {**true, **self.lies}.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP vllm:{name} x", f"# TYPE vllm:{name} {kind}"]
            lines.append(f'vllm:{name}{{engine="0",model_name="m"}} {value}')
        return "\n".join(lines) + "\n"


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


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status, headers=headers)


def build_app(server: ModelServer) -> FastAPI:
    """The application."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        body = await request.json()
        server.requests.append(body)
        server.ports.append(request.client.port if request.client else 0)
        server.authorizations.append(request.headers.get("authorization"))
        refusal = _refusal(server, request, body)
        if refusal is not None:
            return refusal
        if body["model"] == "silent":
            await _until_hung_up(server, request.is_disconnected)
        return StreamingResponse(_stream(server, body["model"]), media_type="text/event-stream")

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        refusal = _error(server.listing, "not now") if server.listing else _refusal(server, request, {})
        names = [{"id": name, "object": "model"} for name in server.scripts]
        return refusal or JSONResponse({"object": "list", "data": names})

    @app.get("/health")
    async def health() -> Response:
        if "health" in server.endless:
            return StreamingResponse(_drips(server.endless["health"]), server.health)
        return Response(status_code=server.health)

    @app.get("/version")
    async def version() -> Response:
        return JSONResponse({"version": server.version}) if server.is_vllm else _error(404, "no such route")

    @app.get("/metrics")
    async def metrics() -> Response:
        if "metrics" in server.endless:
            return StreamingResponse(_drips(server.endless["metrics"]))
        return PlainTextResponse(server.metrics()) if server.is_vllm else _error(404, "no such route")

    return app


def _refusal(server: ModelServer, request: Request, body: dict[str, Any]) -> Response | None:
    if server.key and request.headers.get("authorization") != f"Bearer {server.key}":
        error = {"message": "Incorrect API key", "code": "invalid_api_key"}
        return JSONResponse({"error": error}, status_code=401)
    if body.get("model") == "refuses":
        return _error(500, "out of memory")
    if body and server.status and server.echoes:
        detail = [{"type": "too_long", "loc": ["body"], "msg": "Too long", "input": body}]
        return JSONResponse({"detail": detail}, status_code=server.status)
    if body and server.status:
        error = server.error or {"message": "not now"}
        return JSONResponse({"error": error}, status_code=server.status, headers=server.headers)
    if body and body["model"] not in server.scripts and body["model"] != "silent":
        return _error(404, f"The model {body['model']} does not exist.")
    if server.strict == "openai" and "cache_salt" in body:
        return _error(400, "Unrecognized request argument supplied: cache_salt")
    if server.strict == "detail" and "cache_salt" in body:
        return JSONResponse({"detail": "Unexpected fields in the request: {'cache_salt'}"}, status_code=422)
    return None


async def _stream(server: ModelServer, model: str) -> AsyncIterator[str | bytes]:
    try:
        async with server.computing():
            await asyncio.sleep(server.first_token_s + server.first_token_per_request_s * server.running)
            async for event in server.scripts[model](server):
                yield event
    except asyncio.CancelledError:
        server.stopped.set()
        raise


async def _drips(pause_s: float) -> AsyncIterator[bytes]:
    while True:
        yield b"#" * 4096
        await asyncio.sleep(pause_s)


async def _until_hung_up(server: ModelServer, is_disconnected: Callable[[], Awaitable[bool]]) -> None:
    while not await is_disconnected():
        await asyncio.sleep(0.02)
    server.stopped.set()


@asynccontextmanager
async def running_model_server(port: int = 0, certified: Path | None = None) -> AsyncIterator[ModelServer]:
    """The server on a port of the loopback, a free one for 0; over TLS where a folder holds what `certify` wrote."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server = ModelServer(f"http{'s' if certified else ''}://127.0.0.1:{listening.getsockname()[1]}/v1")
    config = uvicorn.Config(
        build_app(server),
        log_level="error",
        lifespan="off",
        timeout_graceful_shutdown=1,
        ssl_certfile=certified and certified / "server.pem",
        ssl_keyfile=certified and certified / "server.key",
    )
    runner = uvicorn.Server(config)
    server._runner, server._listening = runner, listening
    serving = asyncio.create_task(runner.serve(sockets=[listening]))
    while not runner.started:
        await asyncio.sleep(0.01)
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


class ThreadedModelServer:
    """A server in a thread of its own, for tests of a whole stack."""

    server: ModelServer

    def __init__(self) -> None:
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def close(self) -> None:
        """Stop it."""
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        async with running_model_server() as self.server:
            self._ready.set()
            await self._closing.wait()


async def replica(port: int, first_token_s: float, per_request_s: float, pace_s: float) -> None:
    """Serve the model `standin` until killed; it says `ANSWER` in pieces of twenty characters."""
    async with running_model_server(port) as server:
        server.first_token_s, server.first_token_per_request_s, server.pace_s = first_token_s, per_request_s, pace_s
        server.says("standin", *(ANSWER[at : at + 20] for at in range(0, len(ANSWER), 20)))
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    for name, default in (("first-token", 0.4), ("per-request", 0.0), ("pace", 0.08)):
        parser.add_argument(f"--{name}", type=float, default=default)
    given = parser.parse_args()
    asyncio.run(replica(given.port, given.first_token, given.per_request, given.pace))
