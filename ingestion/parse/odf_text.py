"""The visible words of one OpenDocument paragraph, and which styles hide them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from ingestion.parse.xml_tree import attribute, local

_UNSEEN = frozenset({"annotation", "annotation-end", "tracked-changes", "desc", "title", "event-listeners", "forms"})
_HIDERS = frozenset({"hidden-text", "hidden-paragraph"})
_TINY = re.compile(r"0*(?:\.\d+)?(?:pt|mm|px)|0*1(?:\.0*)?pt")
_WHITE = "#ffffff"
_MAX_BASES = 20
_MAX_REPEATS = 64
_MAX_SPACES = 64


class Styles:
    """What styles hide, and which is the title's."""

    def __init__(self, *roots: Element | None) -> None:
        """Of styles of one name that of the last root counts."""
        self._styles: dict[str, Element] = {}
        for root in roots:
            for element in () if root is None else root.iter():
                if local(element.tag) == "style":
                    self._styles[attribute(element, "name")] = element

    def is_title(self, name: str) -> bool:
        """Whether a paragraph style is that of the document's title."""
        return any(base == "Title" for base, _ in self._bases(name))

    def hides(self, name: str, *, shaded: bool = False) -> bool:
        """Whether text of a style cannot be seen: hidden, 1 pt and less, or white where nothing is `shaded`."""
        colour = background = ""
        for _, element in self._bases(name):
            for properties in element:
                if (
                    attribute(properties, "display") in ("none", "false")
                    or attribute(properties, "visibility") == "hidden"
                ):
                    return True
                if _TINY.fullmatch(attribute(properties, "font-size")):
                    return True
                colour = colour or attribute(properties, "color").lower()
                background = background or attribute(properties, "background-color").lower()
        return colour == _WHITE and not shaded and background in ("", "transparent", _WHITE)

    def _bases(self, name: str) -> Iterator[tuple[str, Element]]:
        for _ in range(_MAX_BASES):
            element = self._styles.get(name)
            if element is None:
                return
            yield name, element
            name = attribute(element, "parent-style-name")


@dataclass
class Words:
    """What a paragraph holds: words, the text of its notes, and text boxes."""

    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    boxes: list[Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The words, lines kept and blanks collapsed."""
        lines = (" ".join(line.split()) for line in "".join(self.parts).split("\n"))
        return "\n".join(line for line in lines if line)


def words_of(element: Element, styles: Styles, *, shaded: bool = False) -> Words:
    """Everything a reader sees in a paragraph or in what holds several."""
    words = Words()
    _gather(element, words, styles, shaded=shaded)
    return words


def _gather(parent: Element, words: Words, styles: Styles, *, shaded: bool) -> None:
    words.parts.append((parent.text or "").replace("\n", " "))
    for element in parent:
        name = local(element.tag)
        if name == "s":
            count = attribute(element, "c")
            words.parts.append(" " * min(int(count) if count.isdecimal() and len(count) < 4 else 1, _MAX_SPACES))
        elif name == "tab":
            words.parts.append(" ")
        elif name == "line-break":
            words.parts.append("\n")
        elif name == "note":
            words.notes.extend(_note(body, styles) for body in children_named(element, "note-body"))
        elif name == "text-box":
            words.boxes.append(element)
        elif name not in _UNSEEN and name not in _HIDERS and not _hidden(element, name, styles, shaded=shaded):
            _gather(element, words, styles, shaded=shaded)
            if name in ("p", "h"):
                words.parts.append("\n")
        words.parts.append((element.tail or "").replace("\n", " "))


def _hidden(element: Element, name: str, styles: Styles, *, shaded: bool) -> bool:
    return name in ("span", "p", "h") and styles.hides(attribute(element, "style-name"), shaded=shaded)


def _note(body: Element, styles: Styles) -> str:
    return " ".join(words_of(body, styles).text.split())


def children_named(parent: Element, name: str) -> list[Element]:
    """The children of a local name."""
    return [element for element in parent if local(element.tag) == name]


def table_rows(table: Element, styles: Styles) -> list[list[str]]:
    """The cells of a table; one merged downwards is repeated in every row, so that a row can be read alone."""
    rows: list[list[str]] = []
    below: dict[int, tuple[int, str]] = {}
    for row in (element for element in table.iter() if local(element.tag) == "table-row"):
        cells: list[str] = []
        for cell in row:
            name = local(cell.tag)
            if name not in ("table-cell", "covered-table-cell"):
                continue
            text = "" if name[0] == "c" else " ".join(_cell_words(cell, styles))
            left, kept = below.pop(len(cells), (0, ""))
            if name[0] == "c" and left:
                text = kept
                below[len(cells)] = (left - 1, kept)
            down = _count(cell, "number-rows-spanned")
            if down > 1:
                below[len(cells)] = (down - 1, text)
            cells.extend([text] * _count(cell, "number-columns-repeated"))
        rows.extend([cells] * (_count(row, "number-rows-repeated") if any(cells) else 1))
    return rows


def _cell_words(cell: Element, styles: Styles) -> Iterator[str]:
    words = words_of(cell, styles, shaded=True)
    yield " ".join(words.text.split())
    yield from words.notes


def _count(element: Element, name: str) -> int:
    text = attribute(element, name)
    return max(1, min(int(text), _MAX_REPEATS)) if text.isdecimal() and len(text) < 9 else 1
