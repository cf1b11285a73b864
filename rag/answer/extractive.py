"""The built-in answerer: quotes the sentences that answer, cites them, and abstains when the evidence is weak.

It needs no model beyond the embedder. What it says is in the documents word for word.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from rag.answer.confidence import confidence, measures
from rag.answer.evidence import Evidence, gather_evidence
from rag.answer.generator import ABSTENTION, AnswerEvent, Asked, Citation, Delta, Finished
from rag.answer.quoting import citation_of, quotes_of, render
from rag.answer.selection import choose, rank_scores
from rag.passages import Passage
from shards.embed import Embedder
from tenants.context import TenantContext

EARLIER_QUESTIONS = 2
"""Former questions of the user that a follow-up is understood by."""


class ExtractiveGenerator:
    """See `Generator`. Holds nothing but the embedder."""

    name = "extractive"

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def answer(self, tenant: TenantContext, asked: Asked) -> AsyncGenerator[AnswerEvent, None]:
        """See `Generator`; raises nothing of its own, and is the same for every tenant."""
        async with aclosing(self.go_on(tenant, asked, "", ())) as events:
            async for event in events:
                yield event

    async def go_on(
        self, _tenant: TenantContext, asked: Asked, said: str, cited: Sequence[Citation]
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Complete an answer whose writer broke off after `said`, which cites `cited`; the whole is in `Finished`.

        What is quoted already is not quoted again.
        """
        passages = asked.passages
        earlier = [turn.content for turn in asked.history if turn.role == "user"][-EARLIER_QUESTIONS:]
        evidence = await gather_evidence(
            asked.question, passages, earlier, idf=asked.idf, query=asked.query, embedder=self._embedder
        )
        chosen = answering_units(asked.question, passages, evidence)
        answer, citations = said, list(cited)
        for quote in quotes_of(passages, [evidence.candidates[at] for at in chosen]):
            citation = citation_of(len(citations) + 1, passages[quote.place], quote.start, quote.end)
            text = render(quote, passages[quote.place], citation.n)
            if not text or any(_overlap(citation, other) for other in cited):
                continue
            citations.append(citation)
            delta = _separator(answer, block=quote.block) + text
            answer += delta
            yield Delta(delta)
            yield citation
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


def _overlap(one: Citation, other: Citation) -> bool:
    return one.document_id == other.document_id and one.start < other.end and other.start < one.end


def _separator(answer: str, *, block: bool) -> str:
    """Sentences follow one another on a line; rows, items and code stand on lines of their own."""
    if not answer:
        return ""
    last = answer.rpartition("\n")[2]
    return "\n" if block or last != answer or " | " in last or last.startswith("- ") else " "
