"""The API's process: `python -m service.serve`. Drains on SIGTERM and exits with status 0.

Three steps: `/readyz` says no for `TESSERA_API_DRAIN_DELAY_S` while requests are still taken, so that a balancer sends
none any more; then no connection is taken, and what is under way, streamed answers too, has `TESSERA_API_DRAIN_S` to
end; then the stores are closed.
"""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.app import create_app
from service.drain import Drain
from service.settings import Settings
from service.startup import refuse
from tenants.errors import TesseraError

_KEEP_ALIVE_S = 75
"""Idle connections are kept longer than proxies keep theirs (60 s), or one would send a request into a closing one."""
_UNREAD_S = 60
"""For how long a client may leave unread what was sent to it; then the kernel ends the connection, and with it what the
client holds: an answer's place, its model server, a connection."""
_LAST_S = 0.3
"""How long a request may be on its way on a connection that was taken last; then connections without one are closed."""


class Opening:
    """The application, whose refused start is kept to be told in a sentence; uvicorn would log a trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.refusal: TesseraError | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, but why the start failed."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        failures: list[Message] = []

        async def told(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                failures.append(message)
            else:
                await send(message)

        try:
            await self._app(scope, receive, told)
        except TesseraError as error:
            if not failures:
                raise
            self.refusal = error
            await send({"type": "lifespan.startup.failed", "message": ""})
        except BaseException:
            for failure in failures:
                await send(failure)
            raise


class DrainingServer(uvicorn.Server):
    """uvicorn's server with a delay between the signal and the end of listening."""

    def __init__(self, config: uvicorn.Config, drain: Drain, *, unread_s: float = _UNREAD_S) -> None:
        super().__init__(config)
        self._drain, self._unread_s = drain, unread_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. Connections have the options of the socket that takes them."""
        await super().startup(sockets)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux
            for listening in [one for server in self.servers for one in server.sockets]:
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._unread_s * 1000))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to leave; a second signal ends the delay, a second Ctrl-C everything. Not noted as captured: uvicorn
        would raise it again in the end, and a good end is status 0."""
        if self._drain.leaving:
            self._drain.delay_s = 0.0
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True
        self._drain.begin()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: end when the delay is over."""
        return await super().on_tick(counter) or self._drain.is_over()

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]  # never given
        """Take who has connected already, end streams that would go on, then as uvicorn does."""
        self._drain.closing.set()
        for server in self.servers:
            await self._close(server)
        await asyncio.sleep(_LAST_S)
        await super().shutdown()

    async def _close(self, server: asyncio.Server) -> None:
        """Stop listening. Who connected and was not accepted yet would be reset with the listening socket."""
        loop = asyncio.get_running_loop()
        listening = [one.dup() for one in server.sockets]
        server.close()
        for one in listening:
            with one, suppress(BlockingIOError):
                while True:
                    accepted, _ = one.accept()
                    accepted.setblocking(False)
                    await loop.connect_accepted_socket(self._protocol, accepted)

    def _protocol(self) -> asyncio.Protocol:
        protocol_class: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def main() -> None:
    """Serve until SIGTERM or SIGINT. When it cannot start: one sentence, and the status of `startup.exit_status`."""
    try:
        settings = Settings()
    except TesseraError as error:
        refuse("API", error)
    drain = Drain(settings.api.drain_delay_s)
    app = Opening(create_app(settings, drain))
    config = uvicorn.Config(
        app,
        host=settings.api.host,
        port=settings.api.port,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(settings.api.drain_s),
    )
    try:
        DrainingServer(config, drain).run()
    except SystemExit:
        if app.refusal is not None:
            refuse("API", app.refusal)
        raise


if __name__ == "__main__":
    main()
