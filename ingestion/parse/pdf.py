"""PDF through pdfium: the text layer, page by page, with headings, lists and tables found in its geometry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import ParsedDocument, Recogniser, TextLimits
from ingestion.parse.hyphens import join_hyphenated
from ingestion.parse.pdf_annotations import attachment_names, comments_of
from ingestion.parse.pdf_layout import Entry, Found, layout
from ingestion.parse.pdf_lines import Line, page_lines
from ingestion.parse.pdf_scans import Scan, as_scan, joined_lines, read_scan
from ingestion.parse.rejections import damaged, rejected
from tenants.errors import DocumentRejected

_LOCKED = (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY)
_MAX_OUTLINE = 5000
_PROGRAMS = ("microsoft word", "untitled", "powerpoint presentation", "slide 1")


def parse_pdf(data: bytes, limits: TextLimits) -> ParsedDocument:
    """Every page's text in pdfium's reading order, words broken at line ends joined; then the names of attached files.

    Headings come from the outline, else from type clearly larger or bolder than the body's. Filled form fields and
    comments are read; scripts are not. A page that is a picture of text is recognised where `limits.ocr` is there. A
    page that cannot be read is left out, and said to be, unless all are. Raises DocumentRejected: document_encrypted,
    document_unreadable, document_too_long, needs_ocr or image_too_large (no text on any page).
    """
    if not data:
        raise empty_document()
    document = _open(data)
    try:
        return _parse(document, limits)
    finally:
        document.close()


def _open(data: bytes) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if error.err_code in _LOCKED:
            raise rejected("document_encrypted") from error
        raise damaged("PDF") from error


@dataclass
class _Pages:
    """What the pages give: lines of the text layer, recognised paragraphs and comments by page, and pages left out."""

    lines: list[Line] = field(default_factory=list)
    scanned: dict[int, list[str]] = field(default_factory=dict)
    comments: dict[int, list[str]] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)
    characters: int = 0


def _parse(document: pdfium.PdfDocument, limits: TextLimits) -> ParsedDocument:
    pages = len(document)
    if pages > limits.max_pages:
        raise rejected("document_too_long", f"The PDF has more than {limits.max_pages:,} pages; send it in parts.")
    found = _read_pages(document, limits)
    if not found.lines and not found.scanned:
        raise _nothing_read(found, pages)
    builder = DocumentBuilder("pdf", limits)
    blocks = _in_order(layout(found.lines, list(_outline(document))), found, pages)
    for block, text in zip(blocks, join_hyphenated([block.text for block in blocks]), strict=True):
        builder.add(block.kind, text, level=block.level, page=block.page)
    for number, code in found.left_out.items():
        builder.leave_out(f"page {number}", code)
    names = attachment_names(document)
    if names:
        builder.close_sections()
        builder.add("paragraph", "Attached files: " + ", ".join(names))
    parsed = builder.build(pages=pages)
    return replace(parsed, title=_leading_heading(parsed) or _metadata_title(document))


def _read_pages(document: pdfium.PdfDocument, limits: TextLimits) -> _Pages:
    forms = document.get_formtype() != pdfium_c.FORMTYPE_NONE
    found = _Pages()
    recognised = 0
    for index in range(len(document)):
        number = index + 1
        try:
            lines, scan = _page(document, index, forms=forms, comments=found.comments)
        except pdfium.PdfiumError:
            found.left_out[number] = "document_unreadable"
            continue
        if scan is not None:
            read = ""
            if limits.ocr is not None and not scan.too_large and _may_go_on(recognised, limits.ocr, limits):
                recognised += 1
                read = read_scan(document, index, limits.ocr)
            if read:
                found.scanned[number] = read.split("\n\n")
                lines = []
            else:
                found.left_out[number] = "image_too_large" if scan.too_large else "needs_ocr"
        found.lines.extend(lines)
        found.characters += sum(len(line.text) for line in lines) + sum(map(len, found.scanned.get(number, ())))
        if found.characters > limits.max_text_chars:
            break  # the builder says so
    return found


def _leading_heading(parsed: ParsedDocument) -> str | None:
    """The document's first heading, if it is of the top level and on the first page."""
    for block in parsed.blocks:
        if block.kind == "heading":
            first = block.level == 1 and block.page == 1
            return " ".join(parsed.text[block.start : block.end].split()) if first else None
    return None


def _may_go_on(recognised: int, ocr: Recogniser, limits: TextLimits) -> bool:
    return recognised < ocr.max_pages and time.process_time() < limits.ocr_cpu_s


def _page(
    document: pdfium.PdfDocument, index: int, *, forms: bool, comments: dict[int, list[str]]
) -> tuple[list[Line], Scan | None]:
    """The lines of one page, and what it is as a picture if it needs to be read as one. Raises PdfiumError."""
    page = document[index]
    try:
        lines = page_lines(page, index + 1)
        scan = as_scan(page, lines)
        said = comments_of(page)
        if said:
            comments[index + 1] = said
        if not (forms and lines):
            return lines, scan
        flattened = pdfium_c.FPDFPage_Flatten(page, pdfium_c.FLAT_NORMALDISPLAY)
    finally:
        page.close()
    if flattened != pdfium_c.FLATTEN_SUCCESS:
        return lines, scan
    page = document[index]  # the values of its fields are part of the page only when it is loaded again
    try:
        return page_lines(page, index + 1), scan
    finally:
        page.close()


def _in_order(blocks: Sequence[Found], found: _Pages, pages: int) -> list[Found]:
    """Blocks of the text layer, and after those of a page what was recognised on it and what its comments say."""
    by_page: dict[int, list[Found]] = {}
    for block in blocks:
        by_page.setdefault(block.page, []).append(block)
    ordered: list[Found] = []
    for number in range(1, pages + 1):
        own = by_page.get(number, [])
        ordered += own
        ordered += [Found("paragraph", joined_lines(text), number) for text in found.scanned.get(number, ())]
        shown = "\n".join(block.text for block in own)
        ordered += [
            Found("paragraph", f"Comment: {text}", number)
            for text in found.comments.get(number, ())
            if text not in shown  # a text field on the page may have been flattened into it
        ]
    return ordered


def _nothing_read(found: _Pages, pages: int) -> DocumentRejected:
    codes = set(found.left_out.values())
    if len(found.left_out) == pages and codes == {"document_unreadable"}:
        return damaged("PDF")
    return rejected("image_too_large" if codes == {"image_too_large"} else "needs_ocr")


def _outline(document: pdfium.PdfDocument) -> Iterator[Entry]:
    """The document's own table of contents."""
    for count, bookmark in enumerate(document.get_toc(max_depth=6)):
        destination = bookmark.get_dest()
        index = destination.get_index() if destination is not None else None
        if index is not None and count < _MAX_OUTLINE:
            yield Entry(" ".join(bookmark.get_title().split()), bookmark.level + 1, index + 1)


def _metadata_title(document: pdfium.PdfDocument) -> str | None:
    """The title in the file's properties, unless it is a file or program name."""
    title = " ".join(str(document.get_metadata_value("Title")).split())
    if not title or title.lower().startswith(_PROGRAMS) or " " not in title:
        return None
    return title
