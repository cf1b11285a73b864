"""What WordprocessingML keeps apart from the text: heading levels by style, and how lists count."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from ingestion.parse.archive import Archive

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_HEADING_NAME = re.compile(r"heading ([1-9])$", re.I)
_MAX_BASES = 20


@dataclass(frozen=True)
class Style:
    """A paragraph or character style, its inheritance resolved."""

    level: int = 0
    title: bool = False
    contents: bool = False
    """A line of the table of contents."""
    vanish: bool = False
    numbering: tuple[str, int] | None = None


@dataclass
class Numbering:
    """Counters of the document's lists. `formats` gives the number format of (list id, indent level)."""

    formats: dict[tuple[str, int], str] = field(default_factory=dict)
    _counts: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))

    def mark(self, list_id: str, level: int) -> str | None:
        """The next item's mark, `-` or `3.`; None for a list that has no marks."""
        kind = self.formats.get((list_id, level), "bullet")
        if list_id == "0" or kind == "none":
            return None
        for key in [key for key in self._counts if key[0] == list_id and key[1] > level]:
            del self._counts[key]  # a deeper list starts again below the next item
        if kind == "bullet":
            return "-"
        self._counts[list_id, level] += 1
        return f"{self._counts[list_id, level]}."


def read_styles(archive: Archive) -> dict[str, Style]:
    """Styles by id."""
    root = archive.xml("word/styles.xml")
    if root is None:
        return {}
    elements = {e.get(W + "styleId", ""): e for e in root.iterfind(W + "style")}
    return {style_id: _resolved(style_id, elements) for style_id in elements}


def _resolved(style_id: str, elements: dict[str, Element]) -> Style:
    level, title, contents, vanish, numbering = 0, False, False, False, None
    current: str | None = style_id
    for _ in range(_MAX_BASES):
        element = elements.get(current or "")
        if element is None:
            break
        name = value(element, "name") or ""
        heading = _HEADING_NAME.match(name)
        title = title or (name.lower() == "title" and not level)
        contents = contents or name.lower().startswith("toc ")
        level = level or (min(int(heading[1]), 6) if heading else outline_level(element.find(W + "pPr")))
        vanish = vanish or is_on(element.find(f"{W}rPr/{W}vanish"))
        numbering = numbering or numbering_of(element.find(W + "pPr"))
        current = value(element, "basedOn")
    return Style(level, title, contents, vanish, numbering)


def read_numbering(archive: Archive) -> Numbering:
    """The formats of the document's lists."""
    root = archive.xml("word/numbering.xml")
    if root is None:
        return Numbering()
    abstract: dict[str, dict[int, str]] = {}
    for element in root.iterfind(W + "abstractNum"):
        levels = {integer(e.get(W + "ilvl")): value(e, "numFmt") or "decimal" for e in element.iterfind(W + "lvl")}
        abstract[element.get(W + "abstractNumId", "")] = levels
    formats: dict[tuple[str, int], str] = {}
    for element in root.iterfind(W + "num"):
        levels = abstract.get(value(element, "abstractNumId") or "", {})
        for level, kind in levels.items():
            formats[element.get(W + "numId", ""), level] = kind
    return Numbering(formats)


def numbering_of(properties: Element | None) -> tuple[str, int] | None:
    """(list id, indent level) of paragraph properties."""
    element = None if properties is None else properties.find(W + "numPr")
    if element is None or value(element, "numId") is None:
        return None
    return value(element, "numId") or "0", integer(value(element, "ilvl"))


def outline_level(properties: Element | None) -> int:
    """Heading level 1..6 of paragraph properties, 0 for body text."""
    outline = integer(None if properties is None else value(properties, "outlineLvl"), default=9)
    return min(outline + 1, 6) if outline < 9 else 0


def value(element: Element, name: str) -> str | None:
    """`w:val` of the child `w:name`."""
    child = element.find(W + name)
    return None if child is None else child.get(W + "val")


def is_on(element: Element | None) -> bool:
    """Whether a toggle property is set."""
    return element is not None and element.get(W + "val", "true").lower() not in ("0", "false", "off", "none")


def integer(text: str | None, default: int = 0) -> int:
    """A number of the file, `default` where it is none."""
    return int(text) if text is not None and text.isdecimal() and len(text) < 6 else default
