"""One chat turn: search in the light of the conversation, answer, and the events in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from rag.answer.generator import AnswerEvent, Asked, Finished, Turn
from rag.answer.routed import RoutedGenerator
from rag.models import Message
from rag.pipeline import Found, Query, Retriever
from rag.withdrawal import Standing
from shards.filters import Filter
from tenants.context import TenantContext

HISTORY_MESSAGES = 12
_OUTDATED = "(The documents that this answer rested on have changed.)"


@dataclass(frozen=True)
class ChatTurn:
    """What is asked in which conversation."""

    conversation_id: UUID
    begins: bool
    """Whether this is the first turn."""
    message: str
    filter: Filter | None
    history: Sequence[Turn]
    model: str = ""
    """The model that the caller named; empty for the tenant's first."""


@dataclass(frozen=True)
class Answerer:
    """A retriever and a generator."""

    retriever: Retriever
    generator: RoutedGenerator
    passages: int

    async def retrieve(self, tenant: TenantContext, turn: ChatTurn) -> Found:
        """Search for the passages that the answer may use."""
        earlier = [past.content for past in turn.history if past.role == "user"]
        query = Query(turn.message, k=self.passages, filter=turn.filter, earlier=earlier)
        return await self.retriever.search(tenant, query)

    async def answer(self, tenant: TenantContext, turn: ChatTurn, found: Found) -> AsyncGenerator[AnswerEvent, None]:
        """Yield the events of the answer; the last is `Finished`."""
        asked = Asked(turn.message, found.passages, turn.history, found.idf, found.query, turn.model)
        async with aclosing(self.generator.answer(tenant, asked)) as events:
            async for event in events:
                yield event


def turns_of(messages: Sequence[Message], standing: Standing) -> list[Turn]:
    """Return stored messages as the turns of a history, without what rests on passages that are not served any more."""
    turns = []
    for message in messages:
        content = _OUTDATED if standing.outdated(message) else message.content
        turns.append(Turn("user" if message.role == "user" else "assistant", content))
    return turns


def degraded_of(found: Found, finished: Finished) -> list[str]:
    """Return everything that was missing on the way to an answer."""
    return [*found.degraded, *(name for name in finished.degraded if name not in found.degraded)]
