"""The built-in answerer: quotes the sentences that answer, cites them, and abstains when the evidence is weak.

It needs no model beyond the embedder. What it says is in the documents word for word.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from rag.answer.confidence import confidence, measures
from rag.answer.evidence import Evidence, gather_evidence
from rag.answer.generator import ABSTENTION, AnswerEvent, Citation, Delta, Finished, Turn
from rag.answer.quoting import citation_of, quotes_of, render
from rag.answer.selection import choose, rank_scores
from rag.passages import Passage
from shards.embed import Embedder, QueryEmbedding

EARLIER_QUESTIONS = 2
"""Former questions of the user that a follow-up is understood by."""


class ExtractiveGenerator:
    """See `Generator`. Holds nothing but the embedder."""

    name = "extractive"

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        history: Sequence[Turn],
        *,
        idf: Mapping[str, float],
        query: QueryEmbedding,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """See `Generator`; raises nothing of its own."""
        earlier = [turn.content for turn in history if turn.role == "user"][-EARLIER_QUESTIONS:]
        evidence = await gather_evidence(question, passages, earlier, idf=idf, query=query, embedder=self._embedder)
        chosen = answering_units(question, passages, evidence)
        answer = ""
        citations: list[Citation] = []
        for quote in quotes_of(passages, [evidence.candidates[at] for at in chosen]):
            passage = passages[quote.place]
            text = render(quote, passage, len(citations) + 1)
            if not text:
                continue
            citations.append(citation_of(len(citations) + 1, passage, quote.start, quote.end))
            delta = _separator(answer, block=quote.block) + text
            answer += delta
            yield Delta(delta)
            yield citations[-1]
        if not answer:
            yield Delta(ABSTENTION)
        yield Finished(answer or ABSTENTION, tuple(citations), not answer, self.name, (), 0, 0)

    async def aclose(self) -> None:
        """Nothing is held open."""


def answering_units(question: str, passages: Sequence[Passage], evidence: Evidence) -> list[int]:
    """Positions of the candidates to quote, empty where the evidence is too weak to answer."""
    if not evidence.candidates:
        return []
    scores = rank_scores(evidence)
    found = measures(question, passages, evidence, int(scores.argmax()))
    return choose(evidence, scores) if confidence(found) >= 0 else []


def _separator(answer: str, *, block: bool) -> str:
    """Sentences follow one another on a line; rows, items and code stand on lines of their own."""
    if not answer:
        return ""
    last = answer.rpartition("\n")[2]
    return "\n" if block or last != answer or " | " in last or last.startswith("- ") else " "
