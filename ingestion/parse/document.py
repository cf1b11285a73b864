"""What a parser gives: the canonical text of a document and where its blocks lie in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

BlockKind = Literal["heading", "paragraph", "list", "table", "code"]
BLOCK_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)


@dataclass(frozen=True)
class Block:
    """One block of a document.

    `start` and `end` are character offsets into `ParsedDocument.text`. A heading's span is its words alone
    (without `##` or an underline). An empty heading (`start == end`) says nothing but closes the sections
    of its level and below: what follows belongs to none of them.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    """1..6 for a heading, else 0."""
    page: int | None = None
    """1-based; None for formats without pages."""


@dataclass(frozen=True)
class ParsedDocument:
    """The canonical text and its blocks, in order and without overlap.

    What no block covers is not content: blank space, the marks of a heading, rules, hidden comments.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str | None
    pages: int | None
    format: str


@dataclass(frozen=True)
class TextLimits:
    """Bounds that hold while a parser works."""

    max_text_chars: int = 20_000_000
    max_pages: int = 2000
