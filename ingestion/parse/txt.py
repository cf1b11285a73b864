"""Plain text: paragraphs parted by blank lines, and headings where the author drew them plainly."""

from __future__ import annotations

import re

from ingestion.parse.builder import empty_document, too_long
from ingestion.parse.characters import visible
from ingestion.parse.decode import decode_text
from ingestion.parse.document import Block, ParsedDocument, TextLimits

_PARAGRAPH = re.compile(r"[^\s][^\n]*(?:\n[^\S\n]*[^\s][^\n]*)*")
_UNDERLINE = re.compile(r"(={3,}|-{3,}|~{3,})[ \t]*$")
_MAX_HEADING = 80


def parse_txt(data: bytes, limits: TextLimits) -> ParsedDocument:
    """`text` is the decoded file with newlines as `\\n` and invisible characters taken out, so offsets point at
    the very lines of the original.

    A line underlined with `===` or `---`, or alone and in capitals, is a heading (level 1, or 2 for `---`).
    """
    text = visible(decode_text(data))
    if len(text) > limits.max_text_chars:
        raise too_long(limits)
    if not text.strip():
        raise empty_document()
    blocks: list[Block] = []
    shouting = text.upper() == text
    for match in _PARAGRAPH.finditer(text):
        blocks.extend(_blocks_of(text, match.start(), match.end(), shouting=shouting))
    return ParsedDocument(text, tuple(blocks), _title(text, blocks), None, "txt")


def _blocks_of(text: str, start: int, end: int, *, shouting: bool) -> list[Block]:
    """A run of lines without a blank one between them: a paragraph, perhaps under its heading."""
    end = start + len(text[start:end].rstrip())
    first_end = text.find("\n", start, end)
    if first_end < 0:
        if not shouting and _capitals(text[start:end]):
            return [Block("heading", start, end, 1)]
        return [Block("paragraph", start, end)]
    second_end = text.find("\n", first_end + 1, end)
    underline = _UNDERLINE.match(text, first_end + 1, end if second_end < 0 else second_end)
    if underline is None or first_end - start > _MAX_HEADING:
        return [Block("paragraph", start, end)]
    heading_end = start + len(text[start:first_end].rstrip())
    blocks = [Block("heading", start, heading_end, 2 if underline[1][0] == "-" else 1)]
    rest = underline.end() + 1
    while rest < end and text[rest].isspace():
        rest += 1
    if rest < end:
        blocks.append(Block("paragraph", rest, end))
    return blocks


def _capitals(line: str) -> bool:
    letters = [c for c in line if c.isalpha()]
    return len(letters) > 3 and len(line) <= _MAX_HEADING and line.isupper() and line[-1] not in ".,;!?"


def _title(text: str, blocks: list[Block]) -> str | None:
    first = blocks[0]
    return text[first.start : first.end] if first.kind == "heading" and first.level == 1 else None
