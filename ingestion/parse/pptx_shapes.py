"""The shapes of a slide in reading order, and the visible words of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from ingestion.parse.document import BlockKind
from ingestion.parse.xml_tree import local

A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_LEAVES = frozenset({"sp", "graphicFrame", "pic", "cxnSp"})
_SMALLEST_HUNDREDTHS = 100
_SAME_ROW_EMU = 180_000
"""Shapes whose upper edges differ by less than half a centimetre are read from left to right."""


@dataclass(frozen=True)
class Shape:
    """A shape that is to be seen; `placeholder` is its role ("title", "body", "sldNum", ...), "" for none."""

    element: Element
    placeholder: str
    left: int
    top: int


def shapes_of(tree: Element, extent: tuple[int, int]) -> Iterator[Shape]:
    """The shapes below `tree`, groups dissolved, from top to bottom; those beside a slide of `extent` are left out."""
    shapes = list(_shapes(tree, None))
    width, height = extent
    seen = [s for s in shapes if not (width and height) or (s.left <= width and s.top <= height)]
    yield from sorted(seen, key=lambda shape: (shape.top // _SAME_ROW_EMU, shape.left))


def _shapes(tree: Element, group: tuple[int, int] | None) -> Iterator[Shape]:
    for element in tree:
        name = local(element.tag)
        if element.tag == _MC + "AlternateContent":
            yield from _shapes(element[0], group) if len(element) else ()
        elif name == "grpSp" and not _is_hidden(element):
            yield from _shapes(element, group or _offset(element))
        elif name in _LEAVES and not _is_hidden(element):
            placeholder = element.find(f"*/{P}nvPr/{P}ph")
            role = "" if placeholder is None else placeholder.get("type", "body")
            left, top = group or _offset(element) or (0, 0)
            yield Shape(element, role, left, top)


def _offset(element: Element) -> tuple[int, int] | None:
    for path in (f"{P}spPr/{A}xfrm/{A}off", f"{P}grpSpPr/{A}xfrm/{A}off", f"{P}xfrm/{A}off"):
        offset = element.find(path)
        if offset is not None:
            return _emu(offset.get("x")), _emu(offset.get("y"))
    return None


def _emu(text: str | None) -> int:
    digits = (text or "").removeprefix("-")
    return int(text or "0") if digits.isdecimal() and len(digits) < 12 else 0


def _is_hidden(element: Element) -> bool:
    properties = element.find(f"*/{P}cNvPr")
    return properties is not None and properties.get("hidden") in ("1", "true")


def paragraph_lines(element: Element) -> list[tuple[int, str]]:
    """(indent level, words) of every paragraph below that has any; level -1 for one without a bullet of its own."""
    lines: list[tuple[int, str]] = []
    for paragraph in element.iter(A + "p"):
        text = " ".join("".join(_words(paragraph)).split())
        if text:
            lines.append((_level(paragraph), text))
    return lines


def _level(paragraph: Element) -> int:
    properties = paragraph.find(A + "pPr")
    if properties is None:
        return -1
    level = properties.get("lvl", "")
    marked = properties.find(A + "buChar") is not None or properties.find(A + "buAutoNum") is not None
    return int(level) if level.isdecimal() and len(level) == 1 else (0 if marked else -1)


def _words(paragraph: Element) -> Iterator[str]:
    for run in paragraph:
        if run.tag in (A + "r", A + "fld"):
            properties = run.find(A + "rPr")
            size = "" if properties is None else properties.get("sz", "")
            if not (size.isdecimal() and int(size[:9]) <= _SMALLEST_HUNDREDTHS):
                yield run.findtext(A + "t") or ""
        elif run.tag == A + "br":
            yield " "
        elif local(run.tag) in ("m", "oMath", "oMathPara"):
            yield from (t.text or "" for t in run.iter() if local(t.tag) == "t")


def list_or_paragraph(lines: Sequence[tuple[int, str]]) -> tuple[BlockKind, str]:
    """A block of the lines of one shape: a list when one of several is indented or has a bullet."""
    if len(lines) > 1 and any(level >= 0 for level, _ in lines):
        return "list", "\n".join(f"{'  ' * max(level, 0)}- {text}" for level, text in lines)
    return "paragraph", "\n".join(text for _, text in lines)


def table_rows(table: Element) -> list[list[str]]:
    """The cells of a table; one merged downwards is repeated in every row, so that a row can be read alone."""
    rows: list[list[str]] = []
    for row in table.iterfind(A + "tr"):
        cells: list[str] = []
        for cell in row.iterfind(A + "tc"):
            text = " ".join(text for _, text in paragraph_lines(cell))
            if cell.get("vMerge") in ("1", "true") and rows and len(cells) < len(rows[-1]):
                text = rows[-1][len(cells)]
            cells.append(text)
        rows.append(cells)
    return rows
