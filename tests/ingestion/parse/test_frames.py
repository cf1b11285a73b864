"""Answers of a parser process are checked before they are believed."""

from __future__ import annotations

import asyncio
import json
import struct

import pytest

from ingestion.parse.answers import ParserGone, read_answer
from ingestion.parse.document import Block, LeftOut, ParsedDocument
from ingestion.parse.frames import BrokenFrame, ParserFailed, pack, pack_failure
from tenants.errors import DocumentRejected

_DOCUMENT = ParsedDocument(
    "Títle\n\n渡轮 🧭",
    (Block("heading", 0, 5, 1, 1), Block("paragraph", 7, 11, 0, 2)),
    "Títle",
    2,
    "pdf",
    (LeftOut("page 3", "needs_ocr"),),
)


async def read(data: bytes, max_text_chars: int = 1000) -> ParsedDocument | DocumentRejected:
    stream = asyncio.StreamReader()
    stream.feed_data(data)
    stream.feed_eof()
    return await read_answer(stream, max_text_chars)


def frame(head: object, text: bytes = b"") -> bytes:
    encoded = json.dumps(head).encode()
    return struct.pack(">II", len(encoded), len(text)) + encoded + text


def head_with(**changes: object) -> dict[str, object]:
    return {"title": None, "pages": None, "format": "txt", "blocks": [], "left_out": [], **changes}


async def test_a_document_survives_the_journey():
    assert await read(pack(_DOCUMENT)) == _DOCUMENT


async def test_a_large_document_survives_the_journey():
    text = "渡" * 400_000
    document = ParsedDocument(text, (Block("paragraph", 0, len(text)),), None, None, "txt")
    assert await read(pack(document), max_text_chars=400_000) == document


async def test_a_rejection_survives_the_journey():
    answer = await read(pack(DocumentRejected("No text.", code="document_empty")))
    assert isinstance(answer, DocumentRejected)
    assert (answer.code, answer.detail) == ("document_empty", "No text.")


async def test_last_words_are_an_error():
    with pytest.raises(ParserFailed, match=r"KeyError at docx\.py:7") as caught:
        await read(pack_failure("KeyError", "docx.py:7"))
    assert caught.value.kind == "KeyError"


@pytest.mark.parametrize("data", [b"", b"\0\0\0", pack(_DOCUMENT)[:-1], frame({})[:-1]])
async def test_an_end_in_the_middle_is_noticed(data: bytes):
    with pytest.raises(ParserGone):
        await read(data)


async def test_too_many_blocks_are_a_rejection():
    block = Block("paragraph", 10**8, 10**8)
    answer = await read(pack(ParsedDocument("x", (block,) * 600_000, None, None, "txt")))
    assert isinstance(answer, DocumentRejected)
    assert answer.code == "document_too_long"


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">II", 2**31, 0),
        struct.pack(">II", 0, 4001),
        frame("text"),
        frame([]),
        frame({}),
        frame({"code": "made_up", "detail": ""}),
        frame(head_with(), b"\xff"),
        frame(head_with(title=7)),
        frame(head_with(title="x" * 2000)),
        frame(head_with(pages=-1)),
        frame(head_with(pages="2")),
        frame(head_with(blocks=[[0, 0, 1, 0, None]])),
        frame(head_with(blocks=[[0, 2, 1, 0, None]]), b"text"),
        frame(head_with(blocks=[[9, 0, 1, 0, None]]), b"text"),
        frame(head_with(blocks=[[-1, 0, 1, 0, None]]), b"text"),
        frame(head_with(blocks=[[0, 0, 1, 7, None]]), b"text"),
        frame(head_with(blocks=[[0, 0, True, 0, None]]), b"text"),
        frame(head_with(blocks=[[0, 0, 2, 0, None], [0, 1, 3, 0, None]]), b"text"),
        frame(head_with(blocks=[[0, 0]]), b"text"),
        frame(head_with(blocks=[[0, 0, 1.5, 0, None]]), b"text"),
        b"\0\0\0\x09\0\0\0\0[[[[[[[[[",
    ],
)
async def test_anything_else_is_broken(data: bytes):
    with pytest.raises(BrokenFrame):
        await read(data)
