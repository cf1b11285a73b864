"""Pages of a PDF that are pictures of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from ingestion.parse.document import Recogniser
from ingestion.parse.hyphens import BREAK
from ingestion.parse.pdf_lines import Line

_FEW_CHARACTERS = 60
"""A picture of a whole page may bear a stamp or a page number as text."""
_WHOLE_PAGE = 0.5
_MAX_IMAGE_PIXELS = 50_000_000
_MAX_RENDERED_PIXELS = 20_000_000
_DPI = 300
_MAX_OBJECTS = 2000


@dataclass(frozen=True)
class Scan:
    """A page that needs to be read as a picture."""

    too_large: bool
    """A picture on it has more pixels than are decoded."""


def as_scan(page: pdfium.PdfPage, lines: Sequence[Line]) -> Scan | None:
    """What a page is as a picture; None when its text layer says enough or it has no picture. Raises PdfiumError."""
    if sum(len(line.text) for line in lines) >= _FEW_CHARACTERS:
        return None
    width, height = page.get_size()
    area, largest = 0.0, 0
    for count, image in enumerate(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=4)):
        if count >= _MAX_OBJECTS:
            break
        left, bottom, right, top = image.get_bounds()
        area += max(0.0, min(right, width) - max(left, 0.0)) * max(0.0, min(top, height) - max(bottom, 0.0))
        pixels_wide, pixels_high = image.get_px_size()
        largest = max(largest, pixels_wide * pixels_high)
    if not area or (lines and area < _WHOLE_PAGE * width * height):
        return None
    return Scan(too_large=largest > _MAX_IMAGE_PIXELS)


def read_scan(document: pdfium.PdfDocument, index: int, ocr: Recogniser) -> str:
    """The text recognised on a page, a blank line between paragraphs; "" when it could not be made out."""
    page = document[index]
    try:
        width, height = page.get_size()
        dpi = min(_DPI, int(72 * math.sqrt(_MAX_RENDERED_PIXELS / max(width * height, 1.0))))
        bitmap = page.render(scale=max(dpi, 1) / 72, grayscale=True)
        try:
            return ocr.recognise(
                bitmap.buffer, width=bitmap.width, height=bitmap.height, stride=bitmap.stride, dpi=max(dpi, 1)
            )
        finally:
            bitmap.close()
    except pdfium.PdfiumError:
        return ""
    finally:
        page.close()


def joined_lines(paragraph: str) -> str:
    """One line of a paragraph's lines, with marks where a word may be broken."""
    lines = [" ".join(line.split()) for line in paragraph.split("\n")]
    text = ""
    for line in filter(None, lines):
        if text.endswith("-") and line[0].islower():
            text = text[:-1] + BREAK + line
        else:
            text = f"{text} {line}" if text else line
    return text
