"""Answers from a language model behind servers that speak the OpenAI chat protocol (vLLM and others).

The model is trusted with nothing: each sentence it writes is checked against the passages before it leaves
(`citations.py`), and its length is bounded. Which of its servers is asked is decided in `race.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from rag.answer.cache_salt import cache_salt
from rag.answer.citations import Checked, CitationChecker, is_abstention
from rag.answer.completion import ChatRequest, ReplicaFailed, Usage
from rag.answer.generator import (
    ABSTENTION,
    AnswerEvent,
    Asked,
    Budget,
    Citation,
    Delta,
    Finished,
    GenerationInterrupted,
    GenerationUnavailable,
    GenerationUnsupported,
)
from rag.answer.model_stream import ModelStream
from rag.answer.prompt import build_messages
from rag.answer.routes import Route
from rag.answer.stream import Sentence, SentenceStream
from rag.answer.tries import Tries
from rag.settings import GenerationSettings
from shards.embed import Embedder
from tenants.context import TenantContext

logger = logging.getLogger(__name__)


@dataclass
class _Draft:
    """What has been let through so far."""

    text: str = ""
    citations: list[Citation] = field(default_factory=list)
    abstained: bool = False

    def add(self, sentence: Sentence, checked: Checked) -> Delta:
        """Appends a checked sentence; returns what is new."""
        separator = "" if not self.text else "\n" if sentence.opens_line else " "
        self.text += separator + checked.text
        self.citations.extend(checked.citations)
        return Delta(separator + checked.text)


class OpenAIChatGenerator:
    """See `Generator`: one model. Closing an answer's iterator closes the connection, which stops the model."""

    def __init__(self, route: Route, stream: ModelStream, embedder: Embedder, *, secret: str) -> None:
        self.name = route.name
        self._route, self._stream = route, stream
        self._embedder = embedder
        self._secret = secret

    async def answer(self, tenant: TenantContext, asked: Asked) -> AsyncGenerator[AnswerEvent, None]:
        """See `Generator`. Without passages the model is not asked.

        Raises:
            GenerationUnsupported: the model wrote something that no passage supports, and nothing else.
        """
        draft, usage = _Draft(abstained=not asked.passages), Usage()
        tries = Tries(asyncio.get_running_loop().time())
        try:
            async with aclosing(self._events(tenant, asked, draft, usage, tries)) as events:
                async for event in events:
                    if isinstance(event, Delta):
                        self._note_first_token(tries)
                    yield event
        except ReplicaFailed as error:
            logger.warning("generation by %s failed: %s", self.name, error)
            if draft.text:
                raise GenerationInterrupted("The model stopped in the middle of its answer.", **usage.tokens) from error
            raise GenerationUnavailable("The model does not answer.", **usage.tokens) from error
        self._note_first_token(tries)
        if not draft.text and not draft.abstained:
            raise GenerationUnsupported("Nothing that the model wrote is in the passages.", **usage.tokens)
        if not draft.text:
            yield Delta(ABSTENTION)
        yield Finished(
            answer=draft.text or ABSTENTION,
            citations=tuple(draft.citations),
            abstained=not draft.text,
            model=self.name,
            degraded=(),
            **usage.tokens,
        )

    async def aclose(self) -> None:
        """Nothing is held open: the connections are the replicas'."""

    def _note_first_token(self, tries: Tries) -> None:
        """Count it once, and only that of the replica whose text the client gets."""
        if tries.first_token_s is not None:
            self._stream.figures.first_token(self.name, tries.first_token_s)
            tries.first_token_s = None

    async def _events(
        self, tenant: TenantContext, asked: Asked, draft: _Draft, usage: Usage, tries: Tries
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Ask another replica for as long as nothing has left: to the client that is before the first token."""
        clock, budget = asyncio.get_running_loop().time, asked.budget or budget_from_now(self._stream.settings)
        again = bool(asked.passages)
        while again:
            again, spent = False, Usage()
            try:
                async with aclosing(self._written(tenant, asked, budget, draft, spent, tries)) as events:
                    async for event in events:
                        yield event
            except ReplicaFailed as error:
                if draft.text or not error.began or clock() >= budget.begin_by:
                    raise
                logger.warning("generation by %s broke off before its first text: %s", self.name, error)
                again = True
            finally:
                usage.add(spent)

    async def _written(
        self, tenant: TenantContext, asked: Asked, budget: Budget, draft: _Draft, usage: Usage, tries: Tries
    ) -> AsyncGenerator[AnswerEvent, None]:
        checker = CitationChecker(asked.passages, self._embedder)
        request = self._request(tenant, asked, checker)
        async with aclosing(self._sentences(request, budget, usage, tries)) as sentences:
            async for sentence in sentences:
                if not draft.text and is_abstention(sentence.text):
                    draft.abstained = True
                    return
                checked = await checker.check(sentence.text)
                if checked is None:
                    continue
                yield draft.add(sentence, checked)
                for citation in checked.citations:
                    yield citation

    def _request(self, tenant: TenantContext, asked: Asked, checker: CitationChecker) -> ChatRequest:
        return ChatRequest(
            model=self._route.served,
            messages=build_messages(asked.question, checker.evidence, asked.history),
            max_tokens=self._stream.settings.max_tokens,
            salt=cache_salt(self._secret, tenant.tenant_id),
            salt_rule=self._route.salt,
        )

    async def _sentences(
        self, request: ChatRequest, budget: Budget, usage: Usage, tries: Tries
    ) -> AsyncGenerator[Sentence, None]:
        stream = SentenceStream()
        pieces = self._stream.pieces(request, budget, usage, tries)
        async with aclosing(pieces):
            async for piece in pieces:
                for sentence in stream.feed(piece):
                    yield sentence
        # The last sentence of an answer that was cut off at its limit is half a sentence.
        for sentence in () if usage.cut else stream.close():
            yield sentence


def budget_from_now(settings: GenerationSettings) -> Budget:
    """Return until when an answer that is asked for now may begin and end."""
    now = asyncio.get_running_loop().time()
    return Budget(now + settings.first_token_timeout_s, now + settings.total_timeout_s)
