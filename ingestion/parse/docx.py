"""DOCX: the body in order, headings by style, lists counted, tables as rows, notes beside what they explain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from ingestion.parse.archive import Archive
from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.docx_styles import (
    Style,
    W,
    integer,
    numbering_of,
    outline_level,
    read_numbering,
    read_styles,
    value,
)
from ingestion.parse.docx_text import WRAPPERS, lines_of, paragraphs_in, words_of
from ingestion.parse.office import OLE, core_title, legacy_office, main_part
from ingestion.parse.rejections import damaged, rejected
from ingestion.parse.tables import markdown_table

_MARGINALS = re.compile(r"word/(?:header|footer)\d*\.xml")
_HEADINGS_INSIDE = 3
_MAX_SPAN = 64


def parse_docx(data: bytes, limits: TextLimits) -> ParsedDocument:
    """The body, then (belonging to no section) headers, footers; comments and deletions are left out.

    Hidden text (vanish, white without shading, 1 pt and less) is left out. Foot- and endnotes follow the block
    that refers to them. Raises DocumentRejected, see `Archive`.
    """
    if not data:
        raise empty_document()
    if data.startswith(OLE):
        raise legacy_office(data)
    archive = Archive(data, limits, what="Word document")
    main = archive.xml(main_part(archive, "word/document.xml"))
    body = None if main is None else main.find(W + "body")
    if body is None:
        raise damaged("Word document")
    builder = DocumentBuilder("docx", limits)
    try:
        reader = _Body(builder, archive)
        reader.read(body)
        _add_marginals(reader, archive)
    except RecursionError as error:
        raise rejected("nested_too_deeply") from error
    builder.title = reader.title or (None if reader.has_top_heading else core_title(archive))
    return builder.build()


def _add_marginals(reader: _Body, archive: Archive) -> None:
    """Headers and footers once each, whatever the number of sections; page numbers alone are nothing."""
    texts: dict[str, None] = {}
    for name in sorted(name for name in archive.names if _MARGINALS.fullmatch(name)):
        root = archive.xml(name)
        if root is not None:
            texts.update(dict.fromkeys(reader.plain_paragraphs(root)))
    reader.builder.close_sections()
    for text in texts:
        reader.builder.add("paragraph", text if any(c.isalpha() for c in text) else "")


class _Body:
    """Walks the block level and hands blocks to the builder."""

    def __init__(self, builder: DocumentBuilder, archive: Archive) -> None:
        self.builder = builder
        self.styles = read_styles(archive)
        self.title: str | None = None
        self.has_top_heading = False
        self._numbering = read_numbering(archive)
        self._items: list[str] = []
        self._pending_notes: list[str] = []
        self._notes = {
            (kind, note.get(W + "id", "")): " ".join(self.plain_paragraphs(note))
            for kind in ("footnote", "endnote")
            for note in _children(archive.xml(f"word/{kind}s.xml"), kind)
        }

    def read(self, parent: Element) -> None:
        """Add every block below `parent`."""
        self._walk(parent)
        self._flush()

    def plain_paragraphs(self, parent: Element) -> list[str]:
        """The paragraphs below `parent`, text boxes included, one line each."""
        texts: list[str] = []
        for paragraph in paragraphs_in(parent):
            spans = words_of(paragraph, self.styles, in_table=True)
            texts.append(" ".join(spans.text.split()))
            self._pending_notes.extend(self._notes.pop(note, "") for note in spans.notes)
            for box in spans.boxes:
                texts.extend(self.plain_paragraphs(box))
        return [text for text in texts if text]

    def _walk(self, parent: Element) -> None:
        for element in parent:
            if element.tag == W + "p":
                self._paragraph(element)
            elif element.tag == W + "tbl":
                self._table(element)
            elif element.tag in WRAPPERS:
                self._walk(element)

    def _paragraph(self, element: Element) -> None:
        properties = element.find(W + "pPr")
        style = self.styles.get((value(properties, "pStyle") or "") if properties is not None else "", Style())
        spans = words_of(element, self.styles)
        text = "\n".join(lines_of(spans.text))
        level = outline_level(properties) or style.level
        if style.contents:
            return
        if not text:
            self._flush()
        elif style.title or level:
            self._heading(text, level, title=style.title)
        else:
            self._body_text(text, numbering_of(properties) or style.numbering)
        self._pending_notes.extend(self._notes.pop(note, "") for note in spans.notes)
        if not self._items:
            self._flush()
        for box in spans.boxes:
            self.read(box)

    def _heading(self, text: str, level: int, *, title: bool) -> None:
        self._flush()
        text = " ".join(text.split())
        if title and self.title is None:
            self.title = text
        self.has_top_heading = self.has_top_heading or title or level == 1
        self.builder.add("heading", text, level=1 if title else level)

    def _body_text(self, text: str, numbering: tuple[str, int] | None) -> None:
        mark = self._numbering.mark(*numbering) if numbering is not None else None
        if numbering is not None and mark is not None:
            self._items.append(f"{'  ' * numbering[1]}{mark} {' '.join(text.split())}")
            return
        self._flush()
        self.builder.add("paragraph", text)

    def _flush(self) -> None:
        """The list that has gathered, then the notes that were referred to."""
        items, self._items = self._items, []
        self.builder.add("list", "\n".join(items))
        notes, self._pending_notes = self._pending_notes, []
        for note in notes:
            self.builder.add("paragraph", f"* {note}" if note else "")

    def _table(self, table: Element) -> None:
        self._flush()
        rows = [list(self._cells(row)) for row in _rows(table)]
        grid = [[text for text, _ in row] for row in rows]
        _repeat_merged(rows, grid)
        columns = {i for row in grid for i, text in enumerate(row) if text}
        if len(columns) < 2 or sum(any(row) for row in grid) < 2 or self._holds_headings(table):
            for row in _rows(table):  # it only lays out the page
                for cell in _unwrapped(row, "tc"):
                    self._walk(cell)
                    self._flush()
            return
        self.builder.add("table", markdown_table(grid))
        self._flush()

    def _holds_headings(self, table: Element) -> bool:
        found = 0
        for paragraph in paragraphs_in(table):
            properties = paragraph.find(W + "pPr")
            style = self.styles.get((value(properties, "pStyle") or "") if properties is not None else "")
            found += bool(outline_level(properties) or (style is not None and style.level))
        return found >= _HEADINGS_INSIDE

    def _cells(self, row: Element) -> Iterator[tuple[str, bool]]:
        """(text, continues the cell above) of every grid column of a row."""
        for cell in _unwrapped(row, "tc"):
            properties = cell.find(W + "tcPr")
            merged = None if properties is None else properties.find(W + "vMerge")
            continues = merged is not None and merged.get(W + "val") != "restart"
            yield " ".join(self.plain_paragraphs(cell)), continues
            span = None if properties is None else value(properties, "gridSpan")
            for _ in range(min(integer(span, default=1), _MAX_SPAN) - 1):
                yield "", False


def _rows(table: Element) -> Iterator[Element]:
    for row in _unwrapped(table, "tr"):
        if row.find(f"{W}trPr/{W}del") is None:
            yield row


def _unwrapped(parent: Element, name: str) -> Iterator[Element]:
    """The children of a name, also through content controls."""
    for element in parent:
        if element.tag == W + name:
            yield element
        elif element.tag in WRAPPERS:
            yield from _unwrapped(element, name)


def _repeat_merged(rows: list[list[tuple[str, bool]]], grid: list[list[str]]) -> None:
    """A cell merged downwards is repeated in every row, so that a row can be read alone."""
    for i in range(1, len(rows)):
        for column, (_, continues) in enumerate(rows[i]):
            if continues and column < len(grid[i - 1]):
                grid[i][column] = grid[i - 1][column]


def _children(root: Element | None, name: str) -> list[Element]:
    return [] if root is None else root.findall(W + name)
