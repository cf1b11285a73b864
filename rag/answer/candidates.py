"""What of the passages could be quoted: their units with headings and stems, cut to as many as can be embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.answer.terms import Term, coverage, stems
from rag.answer.units import Unit, split_units
from rag.passages import Passage
from shards.embed import Embedder

MAX_CANDIDATES = 32
"""Units that are embedded: what fits in the latency budget on two cores."""
MAX_UNIT_CHARACTERS = 600
CONTEXT_TOKENS = 48
UNIT_TOKENS = 160


@dataclass(frozen=True)
class Candidate:
    """A unit of `passages[place]` that could be quoted.

    `context` is the heading it stands under, with its lead; `own` the stems of the unit, `around` those of the
    title, all headings and the lead.
    """

    place: int
    unit: Unit
    text: str
    context: str
    own: frozenset[str]
    around: frozenset[str]


def list_candidates(terms: Sequence[Term], passages: Sequence[Passage]) -> list[Candidate]:
    """At most `MAX_CANDIDATES`, in reading order by passage: those that share most with the question by words."""
    every = [one for place, passage in enumerate(passages) for one in units_of(place, passage)]
    if len(every) <= MAX_CANDIDATES:
        return every
    promise = [coverage(terms, one.own) + coverage(terms, one.own | one.around) - 0.05 * one.place for one in every]
    best = sorted(range(len(every)), key=lambda at: -promise[at])[:MAX_CANDIDATES]
    return [every[at] for at in sorted(best)]


def passage_stems(passage: Passage) -> frozenset[str]:
    """The stems of a passage with its title and headings."""
    return stems(passage_text(passage))


def passage_text(passage: Passage) -> str:
    """Title, headings and text, a line each."""
    return "\n".join([passage.title, *passage.headings, passage.text])


def embedding_text(embedder: Embedder, one: Candidate) -> str:
    """The unit below its heading or lead, each cut to its share of the model's window."""
    context = _cut(embedder, one.context, CONTEXT_TOKENS)
    unit = _cut(embedder, one.text, UNIT_TOKENS)
    return f"{context}: {unit}" if context else unit


def units_of(place: int, passage: Passage) -> list[Candidate]:
    """Everything in a passage that can be quoted: no headings, nothing of excessive length."""
    above = [passage.title, *passage.headings]
    titles = {_plain(name) for name in above}
    result: list[Candidate] = []
    for unit in split_units(passage.text):
        text = passage.text[unit.start : unit.end]
        if unit.kind == "heading" or len(text) > MAX_UNIT_CHARACTERS or _plain(text) in titles:
            continue
        lead = passage.text[slice(*unit.lead)] if unit.lead else ""
        nearest = (*above, *unit.headings)[-1]
        context = f"{nearest}: {lead}" if lead else nearest
        around = stems("\n".join([*above, *unit.headings, lead]))
        result.append(Candidate(place, unit, text, context, stems(text), around))
    return result


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _cut(embedder: Embedder, text: str, tokens: int) -> str:
    # ASCII has at most one token a character, so a text this short needs no count.
    if len(text) <= tokens and text.isascii():
        return text
    spans = embedder.token_spans(text)
    return text if len(spans) <= tokens else text[: spans[tokens - 1][1]]
