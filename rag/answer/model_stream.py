"""A model's text as it comes, within its time budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from rag.answer.completion import ChatRequest, ReplicaFailed, Usage
from rag.answer.figures import GenerationFigures
from rag.answer.generator import Budget
from rag.answer.race import Begun, Race, note_failure
from rag.answer.replica_pool import ReplicaPool
from rag.answer.tries import Tries
from rag.settings import GenerationSettings

CHARACTERS_PER_TOKEN = 12
"""No model writes longer tokens on average: a server that ignores `max_tokens` is cut off here."""


@dataclass(frozen=True)
class ModelStream:
    """The replicas of one model, asked with the settings' times."""

    name: str
    pool: ReplicaPool
    settings: GenerationSettings
    figures: GenerationFigures

    async def pieces(
        self, request: ChatRequest, budget: Budget, usage: Usage, tries: Tries
    ) -> AsyncGenerator[str, None]:
        """Yield the text; `usage` is complete at the end. Closing the iterator stops the model.

        Args:
            request: what is asked.
            budget: until when the text may begin and end.
            usage: what the server says of it goes here.
            tries: those of the answer so far: no replica among them is asked, and they count.

        Raises:
            ReplicaFailed: no replica began in time, or the one that began (`began`) did not come to an end.
        """
        begin_by, settings = budget.begin_by, self.settings
        race = Race(self.pool, request, tries, deadline=begin_by, settings=settings, figures=self.figures)
        begun = await race.run()
        try:
            tries.first_token_s = asyncio.get_running_loop().time() - tries.asked_at
            begun.completion.count_in(usage)
            async for text in self._rest(begun, usage, budget.end_by):
                yield text
        except ReplicaFailed as error:
            tries.failed(error.kind)
            raise
        finally:
            begun.lease.end()
            self.pool.close(begun.completion.aclose())

    async def _rest(self, begun: Begun, usage: Usage, end_by: float) -> AsyncGenerator[str, None]:
        room = self.settings.max_tokens * CHARACTERS_PER_TOKEN
        text = begun.text
        while text is not None:
            piece, room = text[:room], room - len(text)
            if piece:
                yield piece
            if room <= 0:
                usage.cut = True
                return
            text = await self._next(begun, usage, end_by)

    async def _next(self, begun: Begun, usage: Usage, end_by: float) -> str | None:
        deadline = min(asyncio.get_running_loop().time() + self.settings.idle_timeout_s, end_by)
        try:
            async with asyncio.timeout_at(deadline):
                return await begun.completion.read()
        except TimeoutError as error:
            if deadline == end_by:
                failed = ReplicaFailed("over", "no end in time")
            else:
                failed = ReplicaFailed("error", "no further token in time")
            failed.__cause__ = error
        except ReplicaFailed as error:
            failed = error
        if usage.finished:
            return None  # it had said all, and then lingered or broke off
        note_failure(begun.lease, failed)
        failed.began = True
        raise failed
