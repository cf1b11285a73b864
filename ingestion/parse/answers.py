"""Reading the answers of parser processes, as they were packed by `frames.py`."""

from __future__ import annotations

import asyncio

from ingestion.parse.document import ParsedDocument
from ingestion.parse.frames import HEADER, MAX_HEAD, BrokenFrame, unpack
from tenants.errors import DocumentRejected

_MAX_BYTES_A_CHARACTER = 4
_LARGE = 512 * 1024
"""Answers longer than this are unpacked in a thread, so as not to hold up the event loop."""


class ParserGone(Exception):
    """The other side went away in the middle of an answer, or before it."""


async def read_answer(stream: asyncio.StreamReader, max_text_chars: int) -> ParsedDocument | DocumentRejected:
    """The next answer on a stream. Raises ParserFailed, ParserGone, BrokenFrame."""
    try:
        head_bytes, body_bytes = HEADER.unpack(await stream.readexactly(HEADER.size))
        if head_bytes > MAX_HEAD or body_bytes > max_text_chars * _MAX_BYTES_A_CHARACTER:
            raise BrokenFrame("an answer is too long")
        head = await stream.readexactly(head_bytes)
        body = await stream.readexactly(body_bytes)
        if head_bytes + body_bytes > _LARGE:
            return await asyncio.to_thread(unpack, head, body)
        return unpack(head, body)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise ParserGone from error
