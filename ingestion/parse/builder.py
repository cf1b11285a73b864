"""Composes the canonical text of formats whose file is not itself text (HTML, PDF, DOCX and the like)."""

from __future__ import annotations

from collections.abc import Sequence

from ingestion.parse.characters import visible
from ingestion.parse.document import MAX_LEFT_OUT, Block, BlockKind, LeftOut, ParsedDocument, TextLimits
from ingestion.parse.rejections import rejected
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
        """None: the first heading of the top level; "": no title at all."""
        self._left_out: list[LeftOut] = []

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

    def include(self, parsed: ParsedDocument, *, level: int) -> None:
        """Append the blocks of another document, its headings below `level`. Their pages stay those of its own."""
        for block in parsed.blocks:
            if block.kind == "heading" and block.start == block.end:
                continue
            below = min(block.level + level, 6) if block.kind == "heading" else 0
            self.add(block.kind, parsed.text[block.start : block.end], level=below, page=block.page)

    def leave_out(self, part: str, code: str) -> None:
        """Note a part that is not in the text; the first `MAX_LEFT_OUT` are kept."""
        if len(self._left_out) < MAX_LEFT_OUT:
            self._left_out.append(LeftOut(" ".join(visible(part).split())[:200], code))

    def close_sections(self) -> None:
        """What is added from here on belongs to no section."""
        self._blocks.append(Block("heading", self._length, self._length, 1))

    @property
    def empty(self) -> bool:
        """Whether nothing was added."""
        return not self._parts

    def build(self, *, pages: int | None = None) -> ParsedDocument:
        """The document; its title as `title` says."""
        text = "".join(self._parts)
        if not text:
            raise empty_document()
        title = visible(self.title or "").strip() or (top_heading(text, self._blocks) if self.title is None else None)
        return ParsedDocument(text, tuple(self._blocks), title, pages, self._format, tuple(self._left_out))


def top_heading(text: str, blocks: Sequence[Block]) -> str | None:
    """The words of the first heading of level 1, if there is one."""
    for block in blocks:
        if block.kind == "heading" and block.level == 1 and block.end > block.start:
            return " ".join(text[block.start : block.end].split())
    return None


def too_long(limits: TextLimits) -> DocumentRejected:
    """The error for a text over the limit."""
    return rejected(
        "document_too_long",
        f"The document holds more than {limits.max_text_chars:,} characters of text; send it in parts.",
    )


def empty_document() -> DocumentRejected:
    """The error for a document without a word in it."""
    return rejected("document_empty")
