"""Answers from a language model behind any server that speaks the OpenAI chat protocol (vLLM and others).

The model is trusted with nothing: each sentence it writes is checked against the passages before it leaves
(`citations.py`), its length is bounded, and it gets no retries that were not asked for.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar, cast

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from rag.answer.citations import Checked, CitationChecker, is_abstention
from rag.answer.generator import (
    ABSTENTION,
    AnswerEvent,
    Citation,
    Delta,
    Finished,
    GenerationInterrupted,
    GenerationUnavailable,
    Turn,
)
from rag.answer.prompt import Message, build_messages
from rag.answer.stream import Sentence, SentenceStream
from rag.passages import Passage
from rag.settings import GenerationSettings
from shards.embed import Embedder, QueryEmbedding

logger = logging.getLogger(__name__)

CHARACTERS_PER_TOKEN = 12
"""No model writes longer tokens on average: a server that ignores `max_tokens` is cut off here."""


class _UpstreamError(Exception):
    """The server failed; the message is for the log."""


@dataclass
class _Usage:
    """What the server said of its stream."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = False
    cut: bool = False


@dataclass
class _Draft:
    """What has been let through so far."""

    text: str = ""
    citations: list[Citation] = field(default_factory=list)

    def add(self, sentence: Sentence, checked: Checked) -> Delta:
        """Appends a checked sentence; returns what is new."""
        separator = "" if not self.text else "\n" if sentence.opens_line else " "
        self.text += separator + checked.text
        self.citations.extend(checked.citations)
        return Delta(separator + checked.text)


class OpenAIChatGenerator:
    """See `Generator`. Closing an answer's iterator closes the connection, which stops the model."""

    def __init__(self, settings: GenerationSettings, embedder: Embedder) -> None:
        self.name = settings.model
        self._settings = settings
        self._embedder = embedder
        self._client = openai.AsyncOpenAI(
            base_url=settings.base_url,
            # The client insists on a key; servers without authentication ignore it.
            api_key=settings.api_key.get_secret_value() or "none",
            timeout=openai.Timeout(None, connect=settings.connect_timeout_s),
            max_retries=0,
        )

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        history: Sequence[Turn],
        *,
        idf: Mapping[str, float],
        query: QueryEmbedding,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """See `Generator`. Without passages the model is not asked."""
        draft, usage = _Draft(), _Usage()
        if passages:
            checker = CitationChecker(passages, self._embedder)
            sentences = self._sentences(build_messages(question, checker.evidence, history), usage)
            try:
                async with aclosing(sentences):
                    async for sentence in sentences:
                        if not draft.text and is_abstention(sentence.text):
                            break
                        checked = await checker.check(sentence.text)
                        if checked is None:
                            continue
                        yield draft.add(sentence, checked)
                        for citation in checked.citations:
                            yield citation
            except _UpstreamError as error:
                logger.warning("generation failed: %s", error)
                if draft.text:
                    raise GenerationInterrupted("The model stopped in the middle of its answer.") from error
                raise GenerationUnavailable("The model does not answer.") from error
        if not draft.text:
            yield Delta(ABSTENTION)
        yield Finished(
            answer=draft.text or ABSTENTION,
            citations=tuple(draft.citations),
            abstained=not draft.text,
            model=self.name,
            degraded=(),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._client.close()

    async def _sentences(self, messages: Sequence[Message], usage: _Usage) -> AsyncGenerator[Sentence, None]:
        stream = SentenceStream()
        async with aclosing(self._pieces(messages, usage)) as pieces:
            async for piece in pieces:
                for sentence in stream.feed(piece):
                    yield sentence
        # The last sentence of an answer that was cut off at its limit is half a sentence.
        for sentence in () if usage.cut else stream.close():
            yield sentence

    async def _pieces(self, messages: Sequence[Message], usage: _Usage) -> AsyncGenerator[str, None]:
        """The text of the stream as it comes. Raises `_UpstreamError`, also when the stream ends without an end."""
        settings, clock = self._settings, asyncio.get_running_loop().time
        started = clock()
        room = settings.max_tokens * CHARACTERS_PER_TOKEN
        deadline = started + settings.first_token_timeout_s
        async with await _timed(self._open(messages), deadline) as stream:
            while room > 0 and not usage.cut:
                try:
                    chunk = await _timed(anext(stream, None), deadline)
                except _UpstreamError:
                    if usage.finished:
                        return
                    raise
                if chunk is None:
                    break
                deadline = min(clock() + settings.idle_timeout_s, started + settings.total_timeout_s)
                text = _read(chunk, usage)[:room]
                room -= len(text)
                if text:
                    yield text
        usage.cut = usage.cut or room <= 0
        if not usage.finished and not usage.cut:
            raise _UpstreamError("the stream broke off")

    async def _open(self, messages: Sequence[Message]) -> openai.AsyncStream[ChatCompletionChunk]:
        return await self._client.chat.completions.create(
            model=self._settings.model,
            messages=cast(list[ChatCompletionMessageParam], list(messages)),
            max_tokens=self._settings.max_tokens,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},
        )


T = TypeVar("T")


async def _timed(work: Awaitable[T], deadline: float) -> T:
    try:
        async with asyncio.timeout_at(deadline):
            return await work
    except TimeoutError as error:
        raise _UpstreamError("no answer in time") from error
    except (openai.OpenAIError, json.JSONDecodeError) as error:
        raise _UpstreamError(f"{type(error).__name__}: {error}") from error


def _read(chunk: ChatCompletionChunk, usage: _Usage) -> str:
    """The text of a chunk; what else it says goes into `usage`."""
    try:
        if chunk.usage is not None:
            usage.prompt_tokens = int(chunk.usage.prompt_tokens)
            usage.completion_tokens = int(chunk.usage.completion_tokens)
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        if choice.finish_reason is not None:
            usage.finished = True
            usage.cut = choice.finish_reason == "length"
        return choice.delta.content or ""
    except (AttributeError, TypeError, IndexError) as error:
        # The client builds its models without validation: what it hands over need not have their shape.
        raise _UpstreamError(f"not a chat completion chunk: {error}") from error
