"""What the edges of a PDF's pages repeat: titles and page numbers, which no reader takes for text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ingestion.parse.pdf_lines import Line

_LEAST_PAGES = 3
_DIGITS = re.compile(r"\d+")
_MAX_DIGITS = 6
Place = tuple[str, int, int]
"""A line with its numbers as `#`, one of these numbers, and how far it is from the number of the page."""


def without_running_titles(lines: Sequence[Line]) -> list[Line]:
    """First and last lines that most pages repeat, word by word but for the page's number, are kept once.

    Lines that differ in any other number say different things, and stay.
    """
    edges = _edges(lines)
    pages = len({lines[i].page for i in edges})
    if pages < _LEAST_PAGES:
        return list(lines)
    often = max(_LEAST_PAGES, pages // 2)
    numbered = Counter(place for i in edges for _, place in _places(lines[i]))
    running = {place for place, count in numbered.items() if count >= often}
    said = {i: _without_page_number(lines[i], running) for i in edges}
    counts = Counter(said.values())
    dropped: set[int] = set()
    kept: set[str] = set()
    for i, text in said.items():
        if counts[text] >= often and (text in kept or text.strip() == "#"):
            dropped.add(i)
        kept.add(text)
    return [line for i, line in enumerate(lines) if i not in dropped]


def _edges(lines: Sequence[Line]) -> list[int]:
    """Where the first and the last line of each page are, in order."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for i, line in enumerate(lines):
        first.setdefault(line.page, i)
        last[line.page] = i
    return sorted({*first.values(), *last.values()})


def _places(line: Line) -> Iterator[tuple[re.Match[str], Place]]:
    """The numbers of a line that may be its page's.

    Among words only one that is not beyond the page: `Invoice 1007` to `Invoice 1009` on pages 1 to 3 are no page
    numbers. One that stands by itself may be, since an article begins anywhere in its journal.
    """
    alone = {cell.text.strip() for cell in line.cells}
    masked = _DIGITS.sub("#", line.text)
    for nth, number in enumerate(_DIGITS.finditer(line.text)):
        if len(number[0]) > _MAX_DIGITS:
            continue
        offset = int(number[0]) - line.page
        if offset <= 0 or number[0] in alone:
            yield number, (masked, nth, offset)


def _without_page_number(line: Line, running: set[Place]) -> str:
    text, end = "", 0
    for number, place in _places(line):
        if place in running:
            text += line.text[end : number.start()] + "#"
            end = number.end()
    return text + line.text[end:]
