"""The processes that fork parser processes, as the service sees them: one that has every parser, and one for text.

Forking takes the longer the more a process holds, and most documents of a large import are text: see `child.py` for
these processes themselves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ingestion.parse.flow import ParseItem
from ingestion.parse.formats import PLAIN
from ingestion.parse.limits import ParseLimits
from tenants.errors import Unavailable

_LOGGER = logging.getLogger(__name__)
_ROOT = Path(__file__).parents[2]
_ALL_FORMATS = ("-m", "ingestion.parse.all_formats")
_TEXT_FORMATS = ("-m", "ingestion.parse.text_formats")
_START_S = 30.0
_END_S = 5.0


class NurseryGone(Exception):
    """The nursery does not answer; no document is to blame."""


class Nurseries:
    """The nurseries of one pool. Belongs to one event loop."""

    def __init__(self, limits: ParseLimits, command: Sequence[str] | None) -> None:
        self._limits = limits
        self._text, self._all = (command or _TEXT_FORMATS), (command or _ALL_FORMATS)
        self._running: dict[Sequence[str], Nursery] = {}
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start both. Raises Unavailable."""
        for command in (self._text, self._all):
            await self._warm(command)

    async def warm(self, format_name: str) -> Nursery:
        """Return the nursery for a format, started if need be. Raises Unavailable."""
        return await self._warm(self._command(format_name))

    def served_together(self, items: Sequence[ParseItem]) -> Sequence[ParseItem]:
        """Return the first of some items: those that have the nursery of the very first."""
        command = self._command(items[0].format)
        other = (at for at, item in enumerate(items) if self._command(item.format) != command)
        return items[: next(other, len(items))]

    async def aclose(self) -> None:
        """End them and with them every worker."""
        async with self._starting:
            for nursery in self._running.values():
                await nursery.aclose()
            self._running.clear()

    def _command(self, format_name: str) -> Sequence[str]:
        return self._text if format_name in PLAIN else self._all

    async def _warm(self, command: Sequence[str]) -> Nursery:
        async with self._starting:
            nursery = self._running.get(command)
            if nursery is not None and nursery.alive:
                return nursery
            if nursery is not None:
                await nursery.aclose()
            recogniser = self._limits.recogniser if command == self._all else "null"
            self._running[command] = await Nursery.start(command, recogniser)
            return self._running[command]


class Nursery:
    """The process that forks workers, and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def start(cls, command: Sequence[str], recogniser: str) -> Nursery:
        """Start one that reads pictures with a recogniser. Raises Unavailable."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with theirs:
            nursery = cls(await asyncio.to_thread(_spawn, command, theirs, recogniser), control)
        try:
            async with asyncio.timeout(_START_S):
                ready = await asyncio.get_running_loop().sock_recv(control, 4096)
        except (TimeoutError, ConnectionError):
            ready = b""
        if not ready:
            await nursery.aclose()
            raise Unavailable("The parsers cannot be started.", code="parser_unavailable")
        told = json.loads(ready)
        if told["no_ocr"]:
            _LOGGER.info("scanned pages are not read: %s", told["no_ocr"])
        for layer in told["missing"]:
            _LOGGER.warning("parsers run without a %s: this system does not allow it", layer)
        return nursery

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ask(self, limits: ParseLimits, talk: socket.socket, asked: socket.socket) -> None:
        """Have a worker forked that serves `talk`. Raises NurseryGone."""
        message = json.dumps(
            {
                "memory_bytes": limits.memory_bytes,
                "cpu_s": limits.cpu_s,
                "max_text_chars": limits.max_text_chars,
                "max_pages": limits.max_pages,
            }
        ).encode()
        try:
            socket.send_fds(self._control, [message], [talk.fileno(), asked.fileno()])
        except (BrokenPipeError, ConnectionResetError) as error:
            raise NurseryGone from error

    async def aclose(self) -> None:
        """Hang up, which ends it, and wait."""
        self._control.close()
        try:
            await asyncio.to_thread(self._process.wait, _END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)


def _spawn(command: Sequence[str], control: socket.socket, recogniser: str) -> subprocess.Popen[bytes]:
    """Start the nursery in a session of its own, with nothing of our environment in its."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-s", "-P", *command, str(control.fileno()), recogniser],
        pass_fds=(control.fileno(),),
        env={
            "PYTHONPATH": str(_ROOT),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "MALLOC_ARENA_MAX": "1",
            "OMP_THREAD_LIMIT": "1",  # what is confined can start no thread
        },
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
