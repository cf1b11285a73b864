"""What people have added to a PDF: comments on its pages, and files attached to it."""

from __future__ import annotations

import ctypes

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

_COMMENTS = frozenset(
    {
        pdfium_c.FPDF_ANNOT_TEXT,
        pdfium_c.FPDF_ANNOT_FREETEXT,
        pdfium_c.FPDF_ANNOT_HIGHLIGHT,
        pdfium_c.FPDF_ANNOT_UNDERLINE,
        pdfium_c.FPDF_ANNOT_SQUIGGLY,
        pdfium_c.FPDF_ANNOT_STRIKEOUT,
        pdfium_c.FPDF_ANNOT_STAMP,
        pdfium_c.FPDF_ANNOT_CARET,
        pdfium_c.FPDF_ANNOT_SQUARE,
        pdfium_c.FPDF_ANNOT_CIRCLE,
        pdfium_c.FPDF_ANNOT_LINE,
        pdfium_c.FPDF_ANNOT_INK,
    }
)
_UNSEEN_FLAGS = pdfium_c.FPDF_ANNOT_FLAG_HIDDEN | pdfium_c.FPDF_ANNOT_FLAG_NOVIEW
_MAX_COMMENTS = 1000
_MAX_BYTES = 200_000
_MAX_ATTACHMENTS = 100


def comments_of(page: pdfium.PdfPage) -> list[str]:
    """The texts of a page's comments, one line each; hidden ones are left out."""
    texts: list[str] = []
    for index in range(min(pdfium_c.FPDFPage_GetAnnotCount(page), _MAX_COMMENTS)):
        annotation = pdfium_c.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        try:
            seen = not pdfium_c.FPDFAnnot_GetFlags(annotation) & _UNSEEN_FLAGS
            if seen and pdfium_c.FPDFAnnot_GetSubtype(annotation) in _COMMENTS:
                texts.append(" ".join(_string(annotation, b"Contents").split()))
        finally:
            pdfium_c.FPDFPage_CloseAnnot(annotation)
    return [text for text in dict.fromkeys(texts) if text]


def _string(annotation: object, key: bytes) -> str:
    size = pdfium_c.FPDFAnnot_GetStringValue(annotation, key, None, 0)
    if not 2 < size <= _MAX_BYTES:
        return ""
    buffer = ctypes.create_string_buffer(size)
    pdfium_c.FPDFAnnot_GetStringValue(annotation, key, ctypes.cast(buffer, ctypes.POINTER(pdfium_c.FPDF_WCHAR)), size)
    return buffer.raw.decode("utf-16-le", "ignore").rstrip("\0")


def attachment_names(document: pdfium.PdfDocument) -> list[str]:
    """The names of the files in the file; their content is not looked at."""
    names: list[str] = []
    for index in range(min(document.count_attachments(), _MAX_ATTACHMENTS)):
        try:
            names.append(" ".join(document.get_attachment(index).get_name().split()))
        except pdfium.PdfiumError:
            continue
    return [name for name in names if name]
