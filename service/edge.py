"""What wraps every request before routing: its id, the limit on its body while it streams in, its answer in pieces as
the client reads them, and that work which it gave is begun. Of a process that leaves, that its clients go elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils.compat import uuid7

from service.drain import Drain
from service.problems import problem
from tenants.errors import TooLarge

_UPLOADS = ("/v1/documents", "/v1/documents/bulk")
_JSON_LIMIT = 1024 * 1024
_FORM_OVERHEAD = 1024 * 1024
_DRAIN_BYTES = 16 * 1024 * 1024
_DRAIN_S = 3.0
_PIECE_BYTES = 64 * 1024
"""What is handed to the connection at once: it waits for its client between two, and holds no more than one or two."""
_ACCEPTED = 202
"""Answered to what made a job."""


class RequestEdge:
    """ASGI middleware: gives each request an id and cuts a body that is over its limit, whatever its headers say."""

    def __init__(self, app: ASGIApp, *, upload_limit: int, drain: Drain) -> None:
        self._app = app
        self._upload_limit = upload_limit
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid7())
        scope.setdefault("state", {})["request_id"] = request_id
        exchange = _Exchange(receive, send, request_id, self._limit(scope), self._drain)
        if exchange.declared_too_large(scope):
            await exchange.refuse()
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except TooLarge:
            await exchange.refuse()
        if exchange.status == _ACCEPTED:
            scope["state"]["waker"].wake()

    def _limit(self, scope: Scope) -> int:
        if scope["path"] in _UPLOADS:
            return self._upload_limit + _FORM_OVERHEAD
        return _JSON_LIMIT


def _pieces(message: Message) -> Iterator[Message]:
    body = message.get("body", b"")
    if len(body) <= _PIECE_BYTES:
        yield message
        return
    for start in range(0, len(body), _PIECE_BYTES):
        more = start + _PIECE_BYTES < len(body) or message.get("more_body", False)
        yield {**message, "body": body[start : start + _PIECE_BYTES], "more_body": more}


class _Exchange:
    def __init__(self, receive: Receive, send: Send, request_id: str, limit: int, leaving: Drain) -> None:
        self._receive, self._send = receive, send
        self._request_id = request_id.encode()
        self._limit = limit
        self._leaving = leaving
        self._received = 0
        self._exceeded = False
        self._answered = False
        self.status = 0

    def declared_too_large(self, scope: Scope) -> bool:
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        return declared.isdigit() and int(declared) > self._limit

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._limit:
                self._exceeded = True
                raise TooLarge(self._detail())
        return message

    async def send(self, message: Message) -> None:
        if self._exceeded:
            # A framework between us and the route may have turned the refusal into something vaguer.
            await self.refuse()
            return
        if message["type"] == "http.response.start":
            self._answered, self.status = True, message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self._request_id)]
            if self._leaving.leaving:
                message["headers"].append((b"connection", b"close"))
        for piece in _pieces(message):
            await self._send(piece)

    async def refuse(self) -> None:
        if self._answered:
            return
        self._answered = True
        await self._drain()
        body = json.dumps(problem(TooLarge(self._detail()), self._request_id.decode())).encode()
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", self._request_id),
        ]
        await self._send({"type": "http.response.start", "status": 413, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Read on for a little: a client that is still sending when the connection closes never sees the answer."""
        drained = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                while drained < _DRAIN_BYTES:
                    message = await self._receive()
                    drained += len(message.get("body", b""))
                    if message["type"] != "http.request" or not message.get("more_body", False):
                        return

    def _detail(self) -> str:
        return f"The request body is larger than {self._limit} bytes."
