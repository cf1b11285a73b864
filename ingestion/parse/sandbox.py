"""Parses documents in processes that are thrown away: hostile content harms neither the service nor another tenant.

See `child.py` for the processes and `confine.py` for what they may not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ingestion.parse.document import ParsedDocument
from ingestion.parse.flow import ParseItem, ParseStream
from ingestion.parse.frames import MAX_DOCUMENTS, BrokenFrame, ParserFailed, ParserGone, read_answer
from ingestion.parse.original import Original
from ingestion.parse.rejections import rejected
from ingestion.settings import IngestSettings
from tenants.errors import DocumentRejected, Unavailable

_LOGGER = logging.getLogger(__name__)
_ROOT = Path(__file__).parents[2]
_COMMAND = ("-m", "ingestion.parse.child")
_START_S = 30.0
_END_S = 5.0
_NURSERY_ATTEMPTS = 3


@dataclass(frozen=True)
class ParseLimits:
    """Bounds of one document; memory is the address space of the process, interpreter included."""

    memory_bytes: int = 1024**3
    cpu_s: int = 60
    wall_s: float = 120.0
    max_text_chars: int = 20_000_000
    max_pages: int = 2000
    ocr: bool = True
    """Whether pictures of text are read where Tesseract is installed."""
    ocr_languages: str = "eng"
    ocr_max_pages: int = 40
    ocr_data: str | None = None

    @classmethod
    def from_settings(cls, settings: IngestSettings) -> Self:
        """The limits an installation has set."""
        return cls(
            memory_bytes=settings.parse_memory_bytes,
            cpu_s=settings.parse_cpu_s,
            wall_s=settings.parse_wall_s,
            max_text_chars=settings.max_text_chars,
            max_pages=settings.max_pages,
            ocr=settings.ocr == "auto",
            ocr_languages=settings.ocr_languages,
            ocr_max_pages=settings.ocr_max_pages,
            ocr_data=settings.ocr_data,
        )

    @property
    def recogniser(self) -> str:
        """What a nursery is told about reading pictures."""
        if not self.ocr:
            return "null"
        return json.dumps({"languages": self.ocr_languages, "max_pages": self.ocr_max_pages, "folder": self.ocr_data})


@dataclass(frozen=True)
class _Death:
    """How a worker ended while it had a document."""

    rejection: DocumentRejected
    again: bool
    """Whether a second try, alone, could end differently."""


class _NurseryGone(Exception):
    """The nursery does not answer; no document is to blame."""


class ParserPool:
    """Owns one nursery process and has it fork a fresh worker for every batch.

    Belongs to one event loop. `parse` may run several times at once.
    """

    def __init__(self, limits: ParseLimits, *, command: Sequence[str] = _COMMAND) -> None:
        self._limits = limits
        self._command = command
        self._nursery: _Nursery | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Warm up, so that the first batch does not wait. Raises Unavailable."""
        await self._warm()

    async def parse(self, items: Sequence[ParseItem]) -> list[ParsedDocument | DocumentRejected]:
        """What became of each item, in order; otherwise as `stream`."""
        found: dict[int, ParsedDocument | DocumentRejected] = {}
        stream = self.stream(items)
        async with contextlib.aclosing(stream.outcomes()) as outcomes:
            async for at, outcome in outcomes:
                assert outcome is not None, "nothing is overdue without a patience"
                found[at] = outcome
        return [found[at] for at in range(len(items))]

    def stream(self, items: Sequence[ParseItem], *, patience_s: float | None = None) -> ParseStream:
        """Return what gives the outcome of each item as soon as it is there.

        The items of one stream must be of one tenant: one worker hands them to processes of their own. One that takes
        longer than `patience_s` is overtaken by those after it, in another worker. A document at which the worker dies
        is tried once more, alone in a fresh one, and then rejected: parser_timeout (wall or CPU), parser_memory or
        document_unreadable. The others go on.
        """
        return ParseStream(items, patience_s, self._parse_one_after_another)

    async def aclose(self) -> None:
        """End the nursery and with it every worker."""
        async with self._starting:
            nursery, self._nursery = self._nursery, None
        if nursery is not None:
            await nursery.aclose()

    async def _warm(self) -> _Nursery:
        async with self._starting:
            if self._nursery is not None and self._nursery.alive:
                return self._nursery
            if self._nursery is not None:
                await self._nursery.aclose()
            self._nursery = await _Nursery.start(self._command, self._limits)
            return self._nursery

    async def _parse_one_after_another(self, stream: ParseStream, first: int) -> None:
        """Parse the items of a stream from `first` on, until the end or until one is overdue and then done."""
        at, suspect = first, -1
        failures = 0
        while at < len(stream.items) and (at == first or not stream.parted_after(at - 1)):
            size = 1 if at == suspect else MAX_DOCUMENTS
            begun = at
            try:
                at, death = await self._serve(stream, at, size)
            except _NurseryGone as error:
                failures += 1
                if failures == _NURSERY_ATTEMPTS:
                    raise Unavailable("The parsers cannot be started.", code="parser_unavailable") from error
                at = max(begun, stream.first_open(begun))
                continue
            if death is None:
                continue
            if death.again and at != suspect:
                suspect = at
                continue
            _LOGGER.warning("document of format %s rejected: %s", stream.items[at].format, death.rejection.code)
            await stream.give(at, death.rejection)
            at += 1

    async def _serve(self, stream: ParseStream, first: int, size: int) -> tuple[int, _Death | None]:
        """Give items to a fresh worker; return the one that comes next, and how the worker died at it if it did."""
        nursery = await self._warm()
        batch = stream.items[first : first + size]
        at = first
        with contextlib.ExitStack() as stack:
            talk, theirs = stack.enter_context(_pair(socket.SOCK_STREAM))
            asked, their_asked = stack.enter_context(_pair(socket.SOCK_SEQPACKET))
            nursery.ask(self._limits, theirs, their_asked)
            theirs.close()
            their_asked.close()
            descriptors = stack.enter_context(_opened([item.content for item in batch]))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died at once: seen below
                socket.send_fds(talk, [json.dumps([item.format for item in batch]).encode()], descriptors)
            reader, writer = await asyncio.open_unix_connection(sock=talk)
            try:
                for at in range(first, first + len(batch)):
                    async with asyncio.timeout(self._limits.wall_s):
                        answer = await stream.patiently(at, read_answer(reader, self._limits.max_text_chars))
                    await stream.give(at, answer)
                    if stream.parted_after(at):
                        break
            except TimeoutError:
                return at, _Death(_too_slow(), again=not stream.parted_after(at))
            except ParserFailed as failure:
                _LOGGER.warning("a parser failed: %s", failure)
                return at, _Death(_too_large() if failure.kind == "MemoryError" else _unreadable(), again=True)
            except BrokenFrame as broken:
                _LOGGER.warning("a parser sent what it may not: %s", broken)
                return at, _Death(_unreadable(), again=True)
            except ParserGone:
                return at, await self._inquest(asked)
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()
        return at + 1, None

    async def _inquest(self, asked: socket.socket) -> _Death:
        """Ask the nursery how a worker ended. Hanging up, which the caller does next, kills it if it still lives."""
        try:
            async with asyncio.timeout(_END_S):
                message = await asyncio.get_running_loop().sock_recv(asked, 4096)
        except (TimeoutError, ConnectionError):
            message = b"{}"  # it closed its socket and lives on
        if not message:
            raise _NurseryGone
        end = json.loads(message)
        code, peak = end.get("exit"), end.get("peak_bytes", 0)
        if code == -signal.SIGXCPU:
            return _Death(_too_slow(), again=False)  # its own CPU time: what came before it does not count
        _LOGGER.warning("a parser process died: exit %s, at most %s bytes", code, peak)
        # Native code that is refused memory aborts or faults: after it has had much it was starved, before that it
        # was asking for what a damaged file told it to. The kernel's OOM killer sends SIGKILL.
        starved = code == -signal.SIGKILL or peak > self._limits.memory_bytes // 2
        return _Death(_too_large() if starved else _unreadable(), again=True)


async def parse_documents(items: Sequence[ParseItem], limits: ParseLimits) -> list[ParsedDocument | DocumentRejected]:
    """`ParserPool.parse` with a pool for this call alone."""
    pool = ParserPool(limits)
    try:
        return await pool.parse(items)
    finally:
        await pool.aclose()


class _Nursery:
    """The process that forks workers, and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def start(cls, command: Sequence[str], limits: ParseLimits) -> _Nursery:
        """Raises Unavailable."""
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control.setblocking(False)
        with theirs:
            nursery = cls(await asyncio.to_thread(_spawn, command, theirs, limits.recogniser), control)
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
        """Have a worker forked that serves `talk`. Raises _NurseryGone."""
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
            raise _NurseryGone from error

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


@contextlib.contextmanager
def _pair(kind: socket.SocketKind) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end, which does not block, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@contextlib.contextmanager
def _opened(contents: Sequence[Path | Original]) -> Iterator[list[int]]:
    """Descriptors of regular files: the workers can open nothing themselves."""
    with contextlib.ExitStack() as stack:
        descriptors: list[int] = []
        for content in contents:
            if isinstance(content, Original):
                descriptors.append(content.open())
            else:
                descriptors.append(os.open(content, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
            stack.callback(os.close, descriptors[-1])
        yield descriptors


def _unreadable() -> DocumentRejected:
    return rejected("document_unreadable")


def _too_large() -> DocumentRejected:
    return rejected("parser_memory")


def _too_slow() -> DocumentRejected:
    return rejected("parser_timeout")
