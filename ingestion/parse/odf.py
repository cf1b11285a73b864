"""ODT, ODP and ODS: headings by outline level, lists, tables as rows, notes beside what they explain."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from ingestion.parse.archive import Archive
from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import BlockKind, ParsedDocument, TextLimits
from ingestion.parse.odf_package import odf_archive
from ingestion.parse.odf_text import Styles, Words, children_named, table_rows, words_of
from ingestion.parse.office import OLE, legacy_office
from ingestion.parse.rejections import damaged, rejected
from ingestion.parse.sheet_rows import add_sheet
from ingestion.parse.tables import markdown_table
from ingestion.parse.xml_tree import attribute, local

_WHAT = "OpenDocument file"
_HOLDING = (
    "text section table-of-content index-body frame text-box custom-shape rect g page numbered-paragraph "
    "illustration-index user-index alphabetical-index soft-page-break object"
)
_HOLDERS = frozenset(_HOLDING.split())
_SKIPPED = frozenset({"table-of-content", "illustration-index", "alphabetical-index"})
_LISTS = frozenset({"list", "ordered-list", "unordered-list"})
_MAX_DEPTH = 12


def parse_odt(data: bytes, limits: TextLimits) -> ParsedDocument:
    """The body in order, then (belonging to no section) headers and footers.

    Deletions, comments, tables of contents and hidden text are left out. Raises DocumentRejected, see `Archive`.
    """
    file = _opened(data, limits, "odt")
    builder = file.builder
    reader = _Body(builder, file.styles)
    try:
        reader.read(file.body)
        builder.close_sections()
        for text in _marginals(file):
            builder.add("paragraph", text)
    except RecursionError as error:
        raise rejected("nested_too_deeply") from error
    builder.title = reader.title or _meta_title(file.archive)
    return builder.build()


def parse_odp(data: bytes, limits: TextLimits) -> ParsedDocument:
    """A section a slide, with the speaker's notes; hidden slides are left out and said to be so."""
    file = _opened(data, limits, "odp")
    builder = file.builder
    reader = _Body(builder, file.styles)
    pages = children_named(file.body, "page")
    if len(pages) > limits.max_pages:
        raise rejected("document_too_long", f"There are more than {limits.max_pages:,} slides; send them in parts.")
    try:
        for number, page in enumerate(pages, start=1):
            if reader.styles.hides(attribute(page, "style-name")):
                builder.leave_out(f"slide {number}", "hidden")
            else:
                reader.slide(page, number)
    except RecursionError as error:
        raise rejected("nested_too_deeply") from error
    builder.title = reader.title or _meta_title(file.archive) or ""
    return builder.build(pages=len(pages))


def parse_ods(data: bytes, limits: TextLimits) -> ParsedDocument:
    """A section a sheet, its cells as they are shown; hidden sheets are left out and said to be so."""
    file = _opened(data, limits, "ods")
    builder = file.builder
    for table in children_named(file.body, "table"):
        name = attribute(table, "name")
        if file.styles.hides(attribute(table, "style-name")):
            builder.leave_out(f"sheet {name}", "hidden")
        else:
            add_sheet(builder, name, table_rows(table, file.styles), limits)
    builder.title = _meta_title(file.archive) or ""
    return builder.build()


@dataclass(frozen=True)
class _File:
    """A file whose large parts were read, once: each is counted against what it may expand to."""

    builder: DocumentBuilder
    archive: Archive
    body: Element
    styles: Styles
    style_sheet: Element | None


def _opened(data: bytes, limits: TextLimits, format_name: str) -> _File:
    if not data:
        raise empty_document()
    if data.startswith(OLE):
        raise legacy_office(data)
    archive = odf_archive(data, limits, what=_WHAT)
    root = archive.xml("content.xml")
    bodies = [] if root is None else children_named(root, "body")
    if not bodies or not len(bodies[0]):
        raise damaged(_WHAT)
    style_sheet = archive.xml("styles.xml")
    return _File(DocumentBuilder(format_name, limits), archive, bodies[0][0], Styles(style_sheet, root), style_sheet)


def _meta_title(archive: Archive) -> str | None:
    root = archive.xml("meta.xml")
    titles = [] if root is None else [e for e in root.iter() if local(e.tag) == "title"]
    return (titles[0].text or "").strip() or None if titles else None


def _marginals(file: _File) -> list[str]:
    """Headers and footers once each."""
    root = file.style_sheet
    texts: dict[str, None] = {}
    for element in () if root is None else root.iter():
        if local(element.tag) in ("header", "footer") and attribute(element, "display") != "false":
            for paragraph in element.iter():
                if local(paragraph.tag) in ("p", "h"):
                    texts[words_of(paragraph, file.styles).text] = None
    return [text for text in texts if any(c.isalpha() for c in text)]


class _Body:
    """Walks the block level and hands blocks to the builder."""

    def __init__(self, builder: DocumentBuilder, styles: Styles) -> None:
        self.styles = styles
        self.title: str | None = None
        self._builder = builder
        self._page: int | None = None

    def slide(self, page: Element, number: int) -> None:
        """Add a slide under its title."""
        self._page = number
        titles = [frame for frame in page if attribute(frame, "class") == "title"]
        title = " ".join(self._all_words(frame) for frame in titles)
        if self._all_words(page):
            self._builder.add("heading", " ".join(title.split()) or f"Slide {number}", level=1, page=number)
            self.title = self.title or (title if number == 1 else None)
        for frame in page:
            if local(frame.tag) == "notes":
                text = self._all_words(frame)
                self._builder.add("paragraph", f"Notes: {text}" if text else "", page=number)
            elif frame not in titles:
                self._block(frame)

    def _all_words(self, frame: Element) -> str:
        return "\n".join(words_of(p, self.styles).text for p in frame.iter() if local(p.tag) == "p").strip()

    def read(self, parent: Element) -> None:
        """Add every block below `parent`."""
        for element in parent:
            self._block(element)

    def _block(self, element: Element) -> None:
        name = local(element.tag)
        if name in ("p", "h"):
            self._paragraph(element, name)
        elif name in _LISTS:
            lines: list[str] = []
            self._list(element, lines, 0)
            self._add("list", "\n".join(lines))
        elif name == "table":
            self._table(element)
        elif name in _HOLDERS and name not in _SKIPPED and attribute(element, "display") not in ("none", "false"):
            self.read(element)

    def _add(self, kind: BlockKind, text: str, level: int = 0) -> None:
        self._builder.add(kind, text, level=level, page=self._page)

    def _paragraph(self, element: Element, name: str) -> None:
        style = attribute(element, "style-name")
        if self.styles.hides(style):
            return
        words = words_of(element, self.styles)
        level = attribute(element, "outline-level")
        if name == "h" and self._page is None:
            self._add("heading", words.text, min(int(level) if level.isdecimal() and len(level) < 3 else 1, 6) or 1)
        elif self.styles.is_title(style) and self.title is None and words.text:
            self.title = words.text
            self._add("heading", words.text, 1)
        else:
            self._add("paragraph", words.text)
        self._after(words)

    def _after(self, words: Words) -> None:
        for note in words.notes:
            self._add("paragraph", f"* {note}" if note else "")
        for box in words.boxes:
            self.read(box)

    def _list(self, element: Element, lines: list[str], depth: int) -> None:
        """A line an item, nested lists indented; a heading in a list is numbered, not listed."""
        for item in element:
            for child in item if local(item.tag) in ("list-item", "list-header") else ():
                name = local(child.tag)
                if name in _LISTS:
                    self._list(child, lines, min(depth + 1, _MAX_DEPTH))
                elif name == "h":
                    self._add("list", "\n".join(lines))
                    lines.clear()
                    self._paragraph(child, name)
                elif name == "p" and not self.styles.hides(attribute(child, "style-name")):
                    words = words_of(child, self.styles)
                    lines.extend([f"{'  ' * depth}- {words.text}"] if words.text else [])
                    lines.extend(f"{'  ' * depth}  * {note}" for note in words.notes)

    def _table(self, table: Element) -> None:
        rows = table_rows(table, self.styles)
        columns = {i for row in rows for i, cell in enumerate(row) if cell}
        if len(columns) > 1 and sum(any(row) for row in rows) > 1:
            self._add("table", markdown_table(rows))
            return
        for cell in table.iter():  # it only lays out the page
            if local(cell.tag) == "table-cell":
                self.read(cell)
