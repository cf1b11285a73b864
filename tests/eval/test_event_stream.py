"""Server-sent events, however the network cuts them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from eval.event_stream import EventParser, ServerEvent, parse_events

# U+2028 and U+0085 end a line for `str.splitlines`, not for an event stream.
ANSWER = {"text": "Grüße: 31 days\u2028of leave\u0085 [1]"}
STREAM = (
    b"\xef\xbb\xbf: a comment\n\n"
    b"event: delta\r\ndata: " + json.dumps(ANSWER, ensure_ascii=False).encode() + b"\r\n\r\n"
    b"id: 7\nretry: 10\ndata:first\ndata: second\n\n"
    b"event: nothing\n\n"
    b"event: done\rdata: {}\r\r"
    b"event: cut\ndata: off"
)
EVENTS = [
    ServerEvent("delta", json.dumps(ANSWER, ensure_ascii=False)),
    ServerEvent("message", "first\nsecond"),
    ServerEvent("done", "{}"),
]


def parsed(blocks: list[bytes]) -> list[ServerEvent]:
    parser = EventParser()
    return [event for block in blocks for event in parser.feed(block)]


@pytest.mark.parametrize("cut", range(len(STREAM)))
def test_events_do_not_depend_on_where_the_stream_is_cut(cut: int) -> None:
    assert parsed([STREAM[:cut], STREAM[cut:]]) == EVENTS


def test_events_come_whole_from_single_bytes() -> None:
    assert parsed([bytes([byte]) for byte in STREAM]) == EVENTS


async def test_an_event_cut_off_by_the_end_is_dropped() -> None:
    async def blocks() -> AsyncIterator[bytes]:
        yield b"event: delta\ndata: whole\n\nevent: delta\nda"
        yield b"ta: half\n"

    assert [event async for event in parse_events(blocks())] == [ServerEvent("delta", "whole")]


@pytest.mark.parametrize("value", ["plain", " leading", "a:b", ""])
def test_one_space_after_the_colon_is_not_data(value: str) -> None:
    assert EventParser().feed(f"data: {value}\n\n".encode()) == [ServerEvent("message", value)]
