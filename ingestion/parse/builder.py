"""Composes the canonical text of formats whose file is not itself text (HTML, PDF, DOCX)."""

from __future__ import annotations

from collections.abc import Sequence

from ingestion.parse.characters import visible
from ingestion.parse.document import Block, BlockKind, ParsedDocument, TextLimits
from tenants.errors import DocumentRejected

SEPARATOR = "\n\n"


class DocumentBuilder:
    """Appends blocks, a blank line between two, and counts their offsets."""

    def __init__(self, format_name: str, limits: TextLimits) -> None:
        self._format = format_name
        self._limits = limits
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0
        self.title: str | None = None

    def add(self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Append a block; blank text is ignored. Raises DocumentRejected(document_too_long)."""
        text = visible(text)
        text = text.strip("\n") if kind == "code" else text.strip()
        if not text.strip():
            return
        if self._parts:
            self._parts.append(SEPARATOR)
            self._length += len(SEPARATOR)
        start, self._length = self._length, self._length + len(text)
        if self._length > self._limits.max_text_chars:
            raise too_long(self._limits)
        self._parts.append(text)
        self._blocks.append(Block(kind, start, self._length, level, page))

    def close_sections(self) -> None:
        """What is added from here on belongs to no section."""
        self._blocks.append(Block("heading", self._length, self._length, 1))

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return not self._parts

    def build(self, *, pages: int | None = None) -> ParsedDocument:
        """The document; its title is the one that was set, else its first heading of the top level."""
        text = "".join(self._parts)
        if not text:
            raise empty_document()
        title = visible(self.title or "").strip() or top_heading(text, self._blocks)
        return ParsedDocument(text, tuple(self._blocks), title, pages, self._format)


def top_heading(text: str, blocks: Sequence[Block]) -> str | None:
    """The words of the first heading of level 1, if there is one."""
    for block in blocks:
        if block.kind == "heading" and block.level == 1 and block.end > block.start:
            return " ".join(text[block.start : block.end].split())
    return None


def too_long(limits: TextLimits) -> DocumentRejected:
    """The error for a text over the limit."""
    return DocumentRejected(
        f"The document holds more than {limits.max_text_chars:,} characters of text.", code="document_too_long"
    )


def empty_document() -> DocumentRejected:
    """The error for a document without a word in it."""
    return DocumentRejected("The document holds no text.", code="document_empty")
