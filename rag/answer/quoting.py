"""From chosen units to quotes: a row with its header, an item with the line that introduces it, a list as a whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from rag.answer.candidates import Candidate
from rag.answer.generator import Citation
from rag.answer.output import addresses, harmless
from rag.answer.sentences import Span
from rag.answer.units import Unit, split_units
from rag.passages import Passage

MAX_WITH_LEAD = 500
"""Characters from the lead to the unit up to which both are one quote; further apart they are two."""
MAX_LIST = 800


@dataclass(frozen=True)
class Quote:
    """A span of `passages[place].text`, and the units of it that are shown. `block`: on lines of its own."""

    place: int
    start: int
    end: int
    shown: tuple[Unit, ...]
    block: bool


def quotes_of(passages: Sequence[Passage], chosen: Sequence[Candidate]) -> list[Quote]:
    """The quotes of the chosen candidates, given best first: documents in that order, each in reading order."""
    first: dict[UUID, int] = {}
    for rank, one in enumerate(chosen):
        first.setdefault(passages[one.place].document_id, rank)

    def position(one: Candidate) -> tuple[int, int]:
        passage = passages[one.place]
        return first[passage.document_id], passage.start + one.unit.start

    quotes: list[Quote] = []
    led: set[tuple[int, Span]] = set()
    for one in sorted(chosen, key=position):
        if not any(_holds(quote, one) for quote in quotes):
            quotes.extend(_quotes(one, passages[one.place], led))
    return quotes


def citation_of(n: int, passage: Passage, start: int, end: int) -> Citation:
    """The citation of `passage.text[start:end]`, with offsets into the document."""
    return Citation(
        n=n,
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        title=passage.title,
        quote=passage.text[start:end],
        page=passage.page,
        start=passage.start + start,
        end=passage.start + end,
    )


def render(quote: Quote, passage: Passage, n: int) -> str:
    """The quote's units as they are shown, `[n]` after each; a unit with nothing harmless in it is left out."""
    allowed = addresses(passage.text)
    lines = [_display(unit, harmless(passage.text[unit.start : unit.end], allowed)) for unit in quote.shown]
    marked = [f"{line} [{n}]" for line in lines if any(map(str.isalnum, line))]
    return "\n".join(marked)


def _holds(quote: Quote, one: Candidate) -> bool:
    return quote.place == one.place and one.unit in quote.shown


def _quotes(one: Candidate, passage: Passage, led: set[tuple[int, Span]]) -> list[Quote]:
    unit, lead = one.unit, one.unit.lead
    if lead is None or (one.place, lead) in led:
        members = _introduced(unit, passage)
        shown = (unit, *members)
        block = bool(members) or unit.kind != "sentence"
        if members:
            led.add((one.place, (unit.start, unit.end)))
        return [Quote(one.place, unit.start, shown[-1].end, shown, block)]
    led.add((one.place, lead))
    above = Unit(*lead, "row" if unit.kind == "row" else "sentence")
    if unit.end - lead[0] <= MAX_WITH_LEAD:
        return [Quote(one.place, lead[0], unit.end, (above, unit), True)]
    return [
        Quote(one.place, *lead, (above,), True),
        Quote(one.place, unit.start, unit.end, (unit,), True),
    ]


def _introduced(unit: Unit, passage: Passage) -> list[Unit]:
    """The list or table that the unit announces ("You need:"): as much of it as can be quoted."""
    span = (unit.start, unit.end)
    members = [other for other in split_units(passage.text) if other.lead == span]
    return [other for other in members if other.end - unit.start <= MAX_LIST]


def _display(unit: Unit, text: str) -> str:
    if unit.kind == "code":
        return f"```\n{text}\n```"
    if unit.kind == "row":
        cells = re.split(r"\s*(?<!\\)\|\s*|\t+|\s{3,}", text)
        return " | ".join(" ".join(cell.replace("\\|", "|").split()) for cell in cells)
    line = " ".join(text.split())
    return f"- {line}" if unit.kind == "item" else line
