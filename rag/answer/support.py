"""Whether a passage says what a sentence says: its numbers, its words, its meaning.

Entailment proper needs a model of its own. This is the part of it that can be had from the embedder, and it is strict
where it costs little: a number that is not in the passage is not supported by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rag.answer.candidates import Candidate, embedding_text, passage_stems, passage_text, units_of
from rag.answer.instructions import without_instructions
from rag.answer.names import code_forms, codes, is_stated
from rag.answer.terms import coverage, question_terms
from rag.answer.units import Unit
from rag.passages import Passage
from shards.embed import Embedder

WEIGHTS = {"words": 3.3, "unit_words": 3.6, "cosine": 5.9, "always": -7.1}
"""Logistic regression on sentences of people's answers (MTRAG): with the passages they were written from, and with
passages of other conversations of the same domain; figures in docs/decisions/0006-answering-and-abstaining.md."""
SENTENCE_TOKENS = 200


@dataclass(frozen=True)
class Support:
    """The span of `passages[place].text` that supports a sentence best; `strength` in log-odds, above 0."""

    place: int
    start: int
    end: int
    strength: float


class SupportFinder:
    """Looks for support in the passages of one request, and keeps what it embedded of them.

    `passages` are those that were given, with blanks for what in them speaks to a model.
    """

    def __init__(self, passages: Sequence[Passage], embedder: Embedder) -> None:
        self.passages = [without_instructions(passage) for passage in passages]
        self._embedder = embedder
        self._units: dict[int, tuple[list[Candidate], NDArray[np.float32]]] = {}

    async def find(self, sentence: str, place: int) -> Support | None:
        """The support that `passages[place]` gives to `sentence`, `None` if it gives none."""
        measured = await self.measure(sentence, place)
        if measured is None:
            return None
        unit, found = measured
        strength = sum(weight * found.get(name, 1.0) for name, weight in WEIGHTS.items())
        return Support(place, unit.start, unit.end, strength) if strength > 0 else None

    async def measure(self, sentence: str, place: int) -> tuple[Unit, dict[str, float]] | None:
        """The unit of a passage nearest to `sentence`, and what speaks for it; `None` if a number is missing.

        words: share of the sentence's content words in the passage; unit_words: in the unit with what stands above
        it; cosine: of sentence and unit.
        """
        passage = self.passages[place]
        forms = code_forms(passage_text(passage))
        if any(not is_stated(code, forms) for code in codes(sentence)):
            return None
        units, vectors = await self._embedded(place)
        if not units:
            return None
        terms = question_terms(sentence, {})
        spans = self._embedder.token_spans(sentence)
        short = sentence if len(spans) <= SENTENCE_TOKENS else sentence[: spans[SENTENCE_TOKENS - 1][1]]
        cosines = vectors @ (await self._embedder.embed_passages([short])).vectors[0]
        shares = np.array([coverage(terms, one.own | one.around) for one in units])
        best = int(np.argmax(cosines + shares))
        return units[best].unit, {
            "words": coverage(terms, passage_stems(passage)),
            "unit_words": float(shares[best]),
            "cosine": float(cosines[best]),
        }

    async def _embedded(self, place: int) -> tuple[list[Candidate], NDArray[np.float32]]:
        if place not in self._units:
            units = units_of(place, self.passages[place])
            texts = [embedding_text(self._embedder, one) for one in units]
            self._units[place] = units, (await self._embedder.embed_passages(texts)).vectors
        return self._units[place]
