"""PDF through pdfium: the text layer, page by page, with headings, lists and tables found in its geometry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from ingestion.parse.builder import DocumentBuilder, empty_document
from ingestion.parse.document import ParsedDocument, TextLimits
from ingestion.parse.hyphens import join_hyphenated
from ingestion.parse.pdf_layout import Entry, layout
from ingestion.parse.pdf_lines import Line, page_lines
from tenants.errors import DocumentRejected

_LOCKED = (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY)
_MAX_OUTLINE = 5000
_PROGRAMS = ("microsoft word", "untitled", "powerpoint presentation", "slide 1")


def parse_pdf(data: bytes, limits: TextLimits) -> ParsedDocument:
    """Every page's text in pdfium's reading order, words broken at line ends joined.

    Headings come from the outline, else from type clearly larger or bolder than the body's. Filled form fields
    are read; scripts, attachments and annotations are not. A page that cannot be read is left out unless all
    are. Raises DocumentRejected: document_encrypted, document_unreadable, document_too_long, needs_ocr (no text
    on any page).
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
            raise DocumentRejected("The PDF is encrypted with a password.", code="document_encrypted") from error
        raise DocumentRejected("The file is not a readable PDF.") from error


def _parse(document: pdfium.PdfDocument, limits: TextLimits) -> ParsedDocument:
    pages = len(document)
    if pages > limits.max_pages:
        raise DocumentRejected(f"The PDF has more than {limits.max_pages:,} pages.", code="document_too_long")
    forms = document.get_formtype() != pdfium_c.FORMTYPE_NONE
    lines: list[Line] = []
    readable, characters = 0, 0
    for index in range(pages):
        found = _lines(document, index, forms=forms)
        if found is not None:
            readable += 1
            lines.extend(found)
            characters += sum(len(line.text) for line in found)
        if characters > limits.max_text_chars:
            break  # the builder says so
    if not readable:
        raise DocumentRejected("No page of the PDF can be read.")
    if not lines:
        raise DocumentRejected(
            "The PDF holds pictures of text only; run it through text recognition (OCR) first.", code="needs_ocr"
        )
    builder = DocumentBuilder("pdf", limits)
    blocks = layout(lines, list(_outline(document)))
    for block, text in zip(blocks, join_hyphenated([block.text for block in blocks]), strict=True):
        builder.add(block.kind, text, level=block.level, page=block.page)
    parsed = builder.build(pages=pages)
    return replace(parsed, title=_leading_heading(parsed) or _metadata_title(document))


def _leading_heading(parsed: ParsedDocument) -> str | None:
    """The document's first heading, if it is of the top level and on the first page."""
    for block in parsed.blocks:
        if block.kind == "heading":
            first = block.level == 1 and block.page == 1
            return " ".join(parsed.text[block.start : block.end].split()) if first else None
    return None


def _lines(document: pdfium.PdfDocument, index: int, *, forms: bool) -> list[Line] | None:
    """The lines of one page, None when it cannot be read."""
    try:
        page = document[index]
        try:
            lines = page_lines(page, index + 1)
            if not (forms and lines):
                return lines
            flattened = pdfium_c.FPDFPage_Flatten(page, pdfium_c.FLAT_NORMALDISPLAY)
        finally:
            page.close()
        if flattened != pdfium_c.FLATTEN_SUCCESS:
            return lines
        page = document[index]  # the values of its fields are part of the page only when it is loaded again
        try:
            return page_lines(page, index + 1)
        finally:
            page.close()
    except pdfium.PdfiumError:
        return None


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
