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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingestion.parse.answers import ParserGone, read_answer
from ingestion.parse.document import ParsedDocument
from ingestion.parse.flow import ParseItem, ParseStream
from ingestion.parse.frames import MAX_DOCUMENTS, BrokenFrame, ParserFailed
from ingestion.parse.limits import ParseLimits
from ingestion.parse.nurseries import Nurseries, NurseryGone
from ingestion.parse.original import Original
from ingestion.parse.rejections import rejected
from tenants.errors import DocumentRejected, Unavailable

_LOGGER = logging.getLogger(__name__)
_END_S = 5.0
_NURSERY_ATTEMPTS = 3


@dataclass(frozen=True)
class _Death:
    """How a worker ended while it had a document."""

    rejection: DocumentRejected
    again: bool
    """Whether a second try, alone, could end differently."""


class ParserPool:
    """Has nurseries fork a fresh worker for every batch; `command` starts another nursery than the usual ones.

    Belongs to one event loop. `parse` may run several times at once.
    """

    def __init__(self, limits: ParseLimits, *, command: Sequence[str] | None = None) -> None:
        self._limits = limits
        self._nurseries = Nurseries(limits, command)

    async def start(self) -> None:
        """Warm up, so that the first batch does not wait. Raises Unavailable."""
        await self._nurseries.start()

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
        """End the nurseries and with them every worker."""
        await self._nurseries.aclose()

    async def _parse_one_after_another(self, stream: ParseStream, first: int) -> None:
        """Parse the items of a stream from `first` on, until the end or until one is overdue and then done."""
        at, suspect = first, -1
        failures = 0
        while at < len(stream.items) and (at == first or not stream.parted_after(at - 1)):
            size = 1 if at == suspect else MAX_DOCUMENTS
            begun = at
            try:
                at, death = await self._serve(stream, at, size)
            except NurseryGone as error:
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
        batch = self._nurseries.served_together(stream.items[first : first + size])
        nursery = await self._nurseries.warm(batch[0].format)
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
            raise NurseryGone
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
