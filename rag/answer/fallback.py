"""A model with the built-in answerer behind it: when the model does not begin, the built-in answers, and says so."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from rag.answer.generator import AnswerEvent, Finished, GenerationUnavailable, Generator, Turn
from rag.passages import Passage
from shards.embed import QueryEmbedding

DEGRADED = "generation"


class FallbackGenerator:
    """See `Generator`. A failure after the first event is not covered: `GenerationInterrupted` passes through."""

    def __init__(self, primary: Generator, builtin: Generator) -> None:
        self.name = primary.name
        self._primary = primary
        self._builtin = builtin

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        history: Sequence[Turn],
        *,
        idf: Mapping[str, float],
        query: QueryEmbedding,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """See `Generator`; `Finished.degraded` has "generation" when the built-in answered."""
        try:
            async with aclosing(self._primary.answer(question, passages, history, idf=idf, query=query)) as events:
                async for event in events:
                    yield event
            return
        except GenerationUnavailable:
            pass
        async with aclosing(self._builtin.answer(question, passages, history, idf=idf, query=query)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    event = replace(event, degraded=(*event.degraded, DEGRADED))
                yield event

    async def aclose(self) -> None:
        """Closes both."""
        await self._primary.aclose()
        await self._builtin.aclose()
