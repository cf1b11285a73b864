"""A TCP proxy before a server, in a thread of its own: it passes everything on, or fails in one of several ways."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NoReturn

import grpc

from service.local.ports import LOOPBACK

Mode = Literal["pass", "reset", "silence", "errors"]
"""`reset` hangs up on everyone, `silence` swallows all that is sent, `errors` answers every call with an error."""


class Proxy:
    """Stands before one port. Thread-safe: `fail` and `heal` may be called from anywhere."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.connections = 0
        """How many were made since the start."""
        self.passed = 0
        """Bytes that clients have sent since it was last set to nothing."""
        self._target = target
        self._errors = 0
        self._mode: Mode = "pass"
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def stop(self) -> None:
        """Hang up and end."""
        self.fail("reset")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def fail(self, mode: Mode) -> None:
        """Fail from now on; whoever is connected is hung up on, but for silence."""
        asyncio.run_coroutine_threadsafe(self._turn(mode), self._loop).result()

    def heal(self) -> None:
        """Pass everything on again."""
        self.fail("pass")

    async def _listen(self) -> int:
        server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self._errors = await _error_server()
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _turn(self, mode: Mode) -> None:
        self._mode = mode
        if mode != "silence":
            for writer in list(self._open):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._mode == "reset":
            writer.transport.abort()
            return
        port = self._errors if self._mode == "errors" else self._target
        try:
            upstream, back = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back}
        await asyncio.gather(self._pump(reader, back, counted=True), self._pump(upstream, writer))
        self._open -= {writer, back}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool = False) -> None:
        with suppress(OSError):
            while block := await source.read(1 << 16):
                self.passed += len(block) if counted else 0
                if self._mode != "silence":
                    sink.write(block)
                    await sink.drain()
        sink.transport.abort()


class _Refusal(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    """Answers every method with an error of the server."""

    def service(self, details: Any) -> Any:
        async def refuse(_request: bytes, context: Any) -> NoReturn:
            await context.abort(grpc.StatusCode.INTERNAL, "the coordinator is not there")

        return grpc.unary_unary_rpc_method_handler(refuse)


async def _error_server() -> int:
    server = grpc.aio.server(handlers=(_Refusal(),))
    port: int = server.add_insecure_port(f"{LOOPBACK}:0")
    await server.start()
    _KEPT.append(server)
    return port


_KEPT: list[Any] = []
"""A server that nobody refers to ends."""


@contextmanager
def proxy_before(target: int) -> Iterator[Proxy]:
    """Run a proxy before a port."""
    made = Proxy(target)
    made.start()
    try:
        yield made
    finally:
        made.stop()
