"""Server-sent events, read as the WHATWG HTML standard (section 9.2.6) describes them."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True)
class ServerEvent:
    """One event; `data` lines are joined by newlines."""

    name: str
    data: str


class EventParser:
    """Turns blocks of bytes, cut anywhere, into events.

    Lines end at CR, LF or CRLF and nowhere else: an answer may hold U+2028 or U+0085, at which `str.splitlines` (and
    so most line iterators) would break it.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._name = ""
        self._data: list[str] = []

    def feed(self, block: bytes) -> list[ServerEvent]:
        """Return the events that this block completes."""
        whole = self._rest + block
        # A CR at the end may be the first half of a CRLF: it waits for the next block.
        held = b"\r" if whole.endswith(b"\r") else b""
        lines = whole.removesuffix(held).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        found = (self._line(line.decode(errors="replace")) for line in lines)
        return [event for event in found if event is not None]

    def _line(self, line: str) -> ServerEvent | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix("\ufeff")
        if not line:
            event = ServerEvent(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data = "", []
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        return None


async def parse_events(blocks: AsyncIterable[bytes]) -> AsyncIterator[ServerEvent]:
    """Yield the events of a response's body; an event cut off by its end is dropped."""
    parser = EventParser()
    async for block in blocks:
        for event in parser.feed(block):
            yield event
