"""Lines of a PDF page with their place, size and weight, and the cells that wide gaps part them into."""

from __future__ import annotations

import ctypes
import math
import re
from dataclasses import dataclass, replace
from itertools import pairwise

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

_GAP_SIZES = 1.3
"""A blank wider than this many type sizes parts two cells; justified text stays under 0.7."""
_BOLD = 600
_BOLD_NAMES = (b"Bold", b"bold", b"Black", b"Heavy")
_NAME_BYTES = 200
_LINE = re.compile(r"[^\r\n]+")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class Cell:
    """A part of a line. Positions in points, from the left edge of the page."""

    left: float
    right: float
    text: str


@dataclass(frozen=True)
class Line:
    """One line as pdfium reads it; `top` and `bottom` in points from the lower edge of the upright page."""

    text: str
    left: float
    right: float
    top: float
    bottom: float
    size: float
    """Height of the type, in points."""
    bold: bool
    page: int
    cells: tuple[Cell, ...]


class _Glyphs:
    """Boxes and weights of the characters of one page, turned upright."""

    def __init__(self, page: pdfium.PdfPage, textpage: pdfium.PdfTextPage) -> None:
        self._textpage = textpage
        self._rotation = page.get_rotation()
        self._size = page.get_size()
        self._rect = pdfium_c.FS_RECTF()
        self._ref = ctypes.byref(self._rect)
        self._name = ctypes.create_string_buffer(_NAME_BYTES)
        self._flags_ref = ctypes.byref(ctypes.c_int())
        self._matrix = pdfium_c.FS_MATRIX()
        self._matrix_ref = ctypes.byref(self._matrix)

    def box(self, index: int) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of a character."""
        rect = self._rect
        if not pdfium_c.FPDFText_GetLooseCharBox(self._textpage, index, self._ref):
            return 0.0, 0.0, 0.0, 0.0
        width, height = self._size
        if self._rotation == 90:
            return rect.bottom, height - rect.right, rect.top, height - rect.left
        if self._rotation == 180:
            return width - rect.right, height - rect.top, width - rect.left, height - rect.bottom
        if self._rotation == 270:
            return width - rect.top, rect.left, width - rect.bottom, rect.right
        return rect.left, rect.bottom, rect.right, rect.top

    def size(self, index: int) -> float:
        """Height of the type in points: the font's size times the scale of its matrix."""
        size = float(pdfium_c.FPDFText_GetFontSize(self._textpage, index))
        if pdfium_c.FPDFText_GetMatrix(self._textpage, index, self._matrix_ref):
            size *= math.hypot(self._matrix.c, self._matrix.d)
        return max(size, 0.1)

    def bold(self, index: int) -> bool:
        """Whether the character's font is bold, by its weight or its name."""
        if pdfium_c.FPDFText_GetFontWeight(self._textpage, index) >= _BOLD:
            return True
        length = pdfium_c.FPDFText_GetFontInfo(self._textpage, index, self._name, _NAME_BYTES, self._flags_ref)
        return any(mark in self._name.value for mark in _BOLD_NAMES) if 0 < length <= _NAME_BYTES else False


def page_lines(page: pdfium.PdfPage, number: int) -> list[Line]:
    """The lines of a page in reading order, blank ones left out. Raises PdfiumError."""
    textpage = page.get_textpage()
    try:
        text = _characters(textpage)
        glyphs = _Glyphs(page, textpage)
        lines = [_line(text, match.start(), match.end(), glyphs, number) for match in _LINE.finditer(text)]
        return [_paired(line) for line in lines if line is not None]
    finally:
        textpage.close()


def _characters(textpage: pdfium.PdfTextPage) -> str:
    """One code unit a character, so that positions are pdfium's own indices."""
    count = textpage.count_chars()
    if count <= 0:
        return ""
    buffer = (ctypes.c_ushort * (count + 1))()
    written = pdfium_c.FPDFText_GetText(textpage, 0, count, buffer) - 1
    if written == count:
        return "".join(map(chr, buffer[:count]))
    codes = (pdfium_c.FPDFText_GetUnicode(textpage, i) for i in range(count))
    return "".join(chr(code) if 0 < code < 0x110000 else " " for code in codes)


def _paired(line: Line) -> Line:
    """Surrogate pairs made characters; a half alone is nothing."""
    if line.text.isascii():
        return line
    return replace(
        line, text=_joined(line.text), cells=tuple(replace(cell, text=_joined(cell.text)) for cell in line.cells)
    )


def _joined(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def _line(text: str, start: int, end: int, glyphs: _Glyphs, number: int) -> Line | None:
    words = [(match.start(), match.end()) for match in _WORD.finditer(text, start, end)]
    if not words:
        return None
    first, last = glyphs.box(words[0][0]), glyphs.box(words[-1][1] - 1)
    size = glyphs.size(words[0][0])
    cells: list[Cell] = []
    begun, left, right = words[0][0], first[0], first[2]
    for (_, before), (after, _) in pairwise(words):
        right, next_left = glyphs.box(before - 1)[2], glyphs.box(after)[0]
        if next_left - right > _GAP_SIZES * size:
            cells.append(Cell(left, right, text[begun:before]))
            begun, left = after, next_left
    cells.append(Cell(left, max(last[2], left), text[begun : words[-1][1]]))
    return Line(
        text=text[words[0][0] : words[-1][1]],
        left=first[0],
        right=last[2],
        top=first[3],
        bottom=last[1],
        size=size,
        bold=glyphs.bold(words[0][0]) and glyphs.bold(words[-1][1] - 1),
        page=number,
        cells=tuple(cells),
    )
