"""What a parser gives: the canonical text of a document and where its blocks lie in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from ingestion.parse.rejections import rejected

BlockKind = Literal["heading", "paragraph", "list", "table", "code"]
BLOCK_KINDS: tuple[BlockKind, ...] = get_args(BlockKind)

MAX_LEFT_OUT = 100
"""Parts left out of a document whose names are kept."""
MAX_ENTRIES = 1000
MAX_EXPANDED = 512 * 1024**2
MAX_RATIO = 100
RATIO_FLOOR = 1_000_000
"""Expanded size up to which the ratio does not matter (as in Apache Tika's SecureContentHandler): tiny files of
boilerplate compress beyond any ratio and harm nobody."""


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
    """1-based; the slide of a presentation; None for formats without pages."""


@dataclass(frozen=True)
class LeftOut:
    """A part of a document that is not in its text: a scanned page, a hidden sheet, an attachment of no known type."""

    part: str
    """What its owner calls it: "page 3", "report.pdf"."""
    code: str
    """Of `rejections.SENTENCES`, or "unsupported_type", "hidden"."""


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
    left_out: tuple[LeftOut, ...] = ()


class Recogniser(Protocol):
    """Reads the words off a picture."""

    max_pages: int
    """Most pages of one document that it is asked for."""

    def close(self) -> None:
        """Give its memory back."""

    def recognise(self, pixels: Any, *, width: int, height: int, stride: int, dpi: int) -> str:
        """The text of a grey picture of one byte a pixel; "" where nothing can be made out with confidence."""


class Expansion:
    """What a file may still expand to, the files in it included. Headers lie, so it is counted while inflating."""

    def __init__(self, size: int) -> None:
        self._bytes = min(MAX_EXPANDED, max(MAX_RATIO * size, RATIO_FLOOR))
        self._entries = MAX_ENTRIES

    def promise(self, size: int) -> None:
        """Check a size that a header gives, without counting it. Raises DocumentRejected(archive_bomb)."""
        if size > self._bytes:
            raise rejected("archive_bomb")

    def inflate(self, size: int) -> None:
        """Count bytes as they come. Raises DocumentRejected(archive_bomb)."""
        self.promise(size)
        self._bytes -= size

    def unpack(self, entries: int) -> None:
        """Count files of archives. Raises DocumentRejected(archive_too_many_entries)."""
        self._entries -= entries
        if self._entries < 0:
            raise rejected("archive_too_many_entries")


@dataclass(frozen=True)
class TextLimits:
    """Bounds that hold while a parser works, and what it may use."""

    max_text_chars: int = 20_000_000
    max_pages: int = 2000
    depth: int = 0
    """How many archives or messages the file lies in."""
    expansion: Expansion | None = None
    """What the outermost file leaves of its own; None for that file itself."""
    ocr: Recogniser | None = None
    ocr_cpu_s: float = math.inf
    """CPU time of the process after which no further page is recognised: what was read by then is kept."""

    def expansion_of(self, size: int) -> Expansion:
        """The account that a file of `size` bytes is charged to."""
        return self.expansion or Expansion(size)


def noted(left_out: Sequence[LeftOut]) -> list[dict[str, str]]:
    """Parts left out, as a job's result shows them."""
    return [{"part": one.part, "code": one.code} for one in left_out]
