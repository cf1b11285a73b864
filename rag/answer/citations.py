"""Checks what a model wrote, sentence by sentence, before any of it leaves.

A sentence is let through when a passage supports it: one that it cites, or, when those do not, another one, whose
number it then gets. A sentence that nothing supports is dropped, so every sentence of an answer carries a citation that
was checked. Numbers are given anew, one for each quoted span, in the order of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag.answer.generator import ABSTENTION, Citation
from rag.answer.output import addresses, harmless
from rag.answer.quoting import citation_of
from rag.answer.support import Support, SupportFinder
from rag.passages import Passage
from shards.embed import Embedder

MARKER = re.compile(r"\s*[\[【]\s*(?:passages?\s*)?\d+(?:\s*[,;]\s*\d+)*\s*[\]】]", re.IGNORECASE)
_LIST_MARK = re.compile(r"\s*(?:[-*+•]|\d{1,2}[.)])\s+")
_HEADING_MARK = re.compile(r"\s*#{1,6}\s+")


@dataclass(frozen=True)
class Checked:
    """A sentence that may be shown, with its markers, and the citations that appear in it for the first time."""

    text: str
    citations: tuple[Citation, ...]


class CitationChecker:
    """Checks the sentences of one answer against its passages."""

    def __init__(self, passages: Sequence[Passage], embedder: Embedder) -> None:
        self._passages = passages
        self._finder = SupportFinder(passages, embedder)
        self._numbers: dict[tuple[int, int, int], int] = {}

    @property
    def evidence(self) -> Sequence[Passage]:
        """The passages as they may support a sentence: blank where they speak to a model."""
        return self._finder.passages

    async def check(self, sentence: str) -> Checked | None:
        """What may be shown of `sentence`, markers included; `None` if no passage supports it."""
        cited = [n - 1 for n in _cited_numbers(sentence) if 1 <= n <= len(self._passages)]
        bare = MARKER.sub("", sentence)
        mark = _LIST_MARK.match(bare)
        prefix = "- " if mark else ""
        claim = _HEADING_MARK.sub("", bare[mark.end() :] if mark else bare).strip()
        supports = [found for place in dict.fromkeys(cited) if (found := await self._finder.find(claim, place))]
        if not supports:
            supports = await self._elsewhere(claim, cited)
        allowed = frozenset().union(*(addresses(self.evidence[one.place].text) for one in supports))
        shown = " ".join(harmless(claim, allowed).split())
        if not supports or not any(map(str.isalnum, shown)):
            return None
        return self._marked(prefix + shown, supports)

    async def _elsewhere(self, claim: str, tried: Sequence[int]) -> list[Support]:
        """The strongest support among the passages that the sentence does not cite."""
        others = [place for place in range(len(self._passages)) if place not in tried]
        found = [support for place in others if (support := await self._finder.find(claim, place))]
        return [max(found, key=lambda support: support.strength)] if found else []

    def _marked(self, shown: str, supports: Sequence[Support]) -> Checked:
        numbers: list[int] = []
        new: list[Citation] = []
        for one in supports:
            span = (one.place, one.start, one.end)
            if span not in self._numbers:
                self._numbers[span] = len(self._numbers) + 1
                new.append(citation_of(self._numbers[span], self._passages[one.place], one.start, one.end))
            numbers.append(self._numbers[span])
        return Checked(f"{shown} {''.join(f'[{n}]' for n in sorted(set(numbers)))}", tuple(new))


def is_abstention(sentence: str) -> bool:
    """Whether the model said that the passages do not answer."""
    bare = MARKER.sub("", sentence)
    return re.sub(r"\W+", " ", bare).strip().lower() == re.sub(r"\W+", " ", ABSTENTION).strip().lower()


def _cited_numbers(sentence: str) -> list[int]:
    return [int(number) for marker in MARKER.findall(sentence) for number in re.findall(r"\d{1,4}", marker)]
