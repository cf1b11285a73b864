"""Markdown (CommonMark with tables): the blocks of the very file, found by line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ingestion.parse.builder import empty_document, too_long, top_heading
from ingestion.parse.characters import visible
from ingestion.parse.decode import decode_text
from ingestion.parse.document import Block, BlockKind, ParsedDocument, TextLimits
from ingestion.parse.inline import plain_words

_FRONT_MATTER = re.compile(r"---[ \t]*\n(\w[\w -]*:.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|$)", re.S)
_FRONT_TITLE = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.M)
_HIDDEN_HTML = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style|template)\b.*?(?:</\1\s*>|\Z)", re.S | re.I)
_TAG = re.compile(r"<[^>]*>")
_KINDS: dict[str, BlockKind] = {
    "heading_open": "heading",
    "paragraph_open": "paragraph",
    "blockquote_open": "paragraph",
    "html_block": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "table_open": "table",
    "fence": "code",
    "code_block": "code",
}


def _block_parser() -> MarkdownIt:
    """Blocks only: what stands inside a paragraph does not matter here and costs most of the time."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    return parser


_PARSER = _block_parser()


def parse_markdown(data: bytes, limits: TextLimits) -> ParsedDocument:
    """`text` is the decoded file with newlines as `\\n` and invisible characters taken out, so offsets point at
    the very lines of the original.

    Comments, rules and link definitions are in no block. The title is that of the front matter, else the
    first heading of level 1.
    """
    text = visible(decode_text(data))
    if len(text) > limits.max_text_chars:
        raise too_long(limits)
    front = _FRONT_MATTER.match(text)
    body = front.end() if front else 0
    blocks = [Block("code", front.start(1), front.end(1))] if front and front[1].strip() else []
    blocks.extend(_blocks(text, body))
    if not blocks:
        raise empty_document()
    named = _FRONT_TITLE.search(front[1]) if front else None
    heading = named[2] if named else top_heading(text, blocks)
    return ParsedDocument(text, tuple(blocks), plain_words(heading) if heading else None, None, "markdown")


def _blocks(text: str, body: int) -> Iterator[Block]:
    starts = _line_starts(text, body)
    tokens = _PARSER.parse(text[body:])
    for i, token in enumerate(tokens):
        kind = _KINDS.get(token.type)
        if kind is None or token.level or token.map is None:
            continue
        start, end = _trimmed(text, starts[token.map[0]], starts[token.map[1]], code=kind == "code")
        if token.type == "html_block" and not _shows_words(text[start:end]):
            continue
        if kind == "heading":
            start, end = _heading_words(text, start, end, tokens[i + 1])
        if end > start or kind == "heading":
            yield Block(kind, start, end, int(token.tag[1]) if kind == "heading" else 0)


def _line_starts(text: str, body: int) -> list[int]:
    """Where each line begins, and where the last one ends."""
    starts = [body]
    while (newline := text.find("\n", starts[-1])) >= 0:
        starts.append(newline + 1)
    return [*starts, len(text)]


def _trimmed(text: str, start: int, end: int, *, code: bool) -> tuple[int, int]:
    """Without the blank lines around; code keeps the indent of its first line."""
    part = text[start:end]
    end = start + len(part.rstrip())
    lead = part[: len(part) - len(part.lstrip())]
    return start + (lead.rfind("\n") + 1 if code else min(len(lead), end - start)), max(start, end)


def _heading_words(text: str, start: int, end: int, inline: Token) -> tuple[int, int]:
    """The words of a heading, without `##` before and after them or the line under them."""
    words = inline.content.strip()
    found = text.find(words, start, end) if words else -1
    if found >= 0:
        return found, found + len(words)
    lines = text[start:end].rstrip("=- \t\n")
    return start, start + len(lines) if words else start


def _shows_words(html: str) -> bool:
    return bool(_TAG.sub("", _HIDDEN_HTML.sub("", html)).strip())
