"""What goes over the sockets between the service and its parser processes: framed JSON, and text as UTF-8.

The answering side may have been taken over by the document it parses, so every number is checked and every
length bounded before it is believed. Nothing is unpickled. Parser processes have this in memory, so it needs little.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

from ingestion.parse.document import BLOCK_KINDS, MAX_LEFT_OUT, Block, LeftOut, ParsedDocument
from ingestion.parse.rejections import SENTENCES, rejected
from tenants.errors import DocumentRejected

HEADER = struct.Struct(">II")
"""Lengths of the head and of the text behind it."""
MAX_HEAD = 16 * 1024**2
_MAX_TITLE = 1000
_MAX_CODE = 40

MAX_DOCUMENTS = 64
"""Documents of one request: as many descriptors go over a socket at once."""


class BrokenFrame(Exception):
    """The other side sent what it may not."""


class ParserFailed(Exception):
    """A parser met an error that has no name among ours: `kind` is the class of it, `place` a file and line."""

    def __init__(self, kind: str, place: str) -> None:
        super().__init__(f"{kind} at {place}")
        self.kind = kind


def pack(answer: ParsedDocument | DocumentRejected) -> bytes:
    """One answer of a parser."""
    if isinstance(answer, DocumentRejected):
        return _framed({"code": answer.code, "detail": answer.detail}, "")
    blocks = [[BLOCK_KINDS.index(b.kind), b.start, b.end, b.level, b.page] for b in answer.blocks]
    title = answer.title[:_MAX_TITLE] if answer.title else None
    left_out = [[one.part, one.code] for one in answer.left_out]
    head = {
        "title": title,
        "pages": answer.pages,
        "format": answer.format,
        "blocks": blocks,
        "left_out": left_out,
    }
    framed = _framed(head, answer.text)
    if HEADER.unpack_from(framed)[0] > MAX_HEAD:
        return pack(rejected("document_too_long"))
    return framed


def pack_failure(kind: str, place: str) -> bytes:
    """The last words of a worker."""
    return _framed({"failed": kind, "place": place}, "")


def _framed(head: dict[str, Any], text: str) -> bytes:
    encoded, body = json.dumps(head).encode(), text.encode()
    return HEADER.pack(len(encoded), len(body)) + encoded + body


def unpack(head: bytes, body: bytes) -> ParsedDocument | DocumentRejected:
    """What an answer says, head and text as its header parts them. Raises ParserFailed, BrokenFrame."""
    try:
        return _believed(json.loads(head), body.decode())
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise BrokenFrame("an answer is malformed") from error


def _believed(head: dict[str, Any], text: str) -> ParsedDocument | DocumentRejected:
    if "failed" in head:
        raise ParserFailed(str(head["failed"])[:100], str(head["place"])[:200])
    if "code" in head:
        if head["code"] not in SENTENCES:
            raise ValueError("an unknown code")
        return DocumentRejected(str(head["detail"])[:_MAX_TITLE], code=head["code"])
    pages = _natural(head["pages"]) if head["pages"] is not None else None
    title = head["title"]
    if title is not None and (not isinstance(title, str) or len(title) > _MAX_TITLE):
        raise ValueError("a title is too long")
    blocks = _blocks(head["blocks"], len(text))
    return ParsedDocument(text, blocks, title, pages, str(head["format"]), _left_out(head["left_out"]))


def _blocks(rows: Sequence[Sequence[Any]], length: int) -> tuple[Block, ...]:
    blocks: list[Block] = []
    last = 0
    for kind, start, end, level, page in rows:
        if not last <= _natural(start) <= _natural(end) <= length or not 0 <= _natural(level) <= 6:
            raise ValueError("a block is out of place")
        last = end
        blocks.append(Block(BLOCK_KINDS[_natural(kind)], start, end, level, None if page is None else _natural(page)))
    return tuple(blocks)


def _left_out(rows: Sequence[Sequence[Any]]) -> tuple[LeftOut, ...]:
    return tuple(LeftOut(str(part)[:_MAX_TITLE], str(code)[:_MAX_CODE]) for part, code in rows[:MAX_LEFT_OUT])


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a natural number")
    return value
