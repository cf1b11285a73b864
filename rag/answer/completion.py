"""One completion by one replica, over the chat protocol of OpenAI: its text as it comes, its failures by kind."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from rag.answer.prompt import Message
from rag.answer.replica import Replica
from rag.settings import SaltRule
from shards.model_server import asked_pause_s

logger = logging.getLogger(__name__)

FailureKind = Literal["gone", "error", "busy", "refused", "rejected", "over"]
"""`gone`: not reached, or the connection broke; `error`: it failed; `busy`: it has too many requests already;
`refused`: it does not take this request, another one may; `rejected`: none would; `over`: the answer's time was, which
says nothing of the replica."""
_BROKEN = (openai.APIConnectionError, httpx2.HTTPError, OSError)
"""`httpx2` is what the client speaks HTTP with; what breaks while it reads the body of an error comes as it is."""
_NONSENSE = (openai.OpenAIError, ValueError, RecursionError)
_NAME = re.compile(r"[A-Za-z_]{1,40}")
_BUSY_S, _LONGEST_BUSY_S = 1.0, 10.0


class ReplicaFailed(Exception):
    """A replica failed; the message is for the log. `began`: after its first token."""

    def __init__(self, kind: FailureKind, detail: str, *, busy_s: float = 0.0, began: bool = False) -> None:
        super().__init__(detail)
        self.kind = kind
        self.busy_s = busy_s
        self.began = began


@dataclass(frozen=True)
class ChatRequest:
    """What a model is asked."""

    model: str
    """By the name that the server knows."""
    messages: Sequence[Message]
    max_tokens: int
    salt: str
    salt_rule: SaltRule


@dataclass
class Usage:
    """What the server said of its stream. `cut`: the answer ended at its greatest length."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: bool = False
    cut: bool = False

    @property
    def tokens(self) -> dict[str, int]:
        """The counts by their names."""
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}

    def add(self, other: Usage) -> None:
        """Add the tokens of another try."""
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens


class Completion:
    """The stream of one answer."""

    def __init__(self, stream: openai.AsyncStream[ChatCompletionChunk]) -> None:
        self._stream = stream
        self.usage = Usage()

    def count_in(self, usage: Usage) -> None:
        """Keep the counts in the caller's from now on."""
        first, self.usage = self.usage, usage
        usage.prompt_tokens, usage.completion_tokens = first.prompt_tokens, first.completion_tokens
        usage.finished, usage.cut = first.finished, first.cut

    async def read(self) -> str | None:
        """Return the next text, None at the end; raise `ReplicaFailed`, also when the stream ends without an end."""
        while True:
            try:
                chunk = await anext(self._stream, None)
            except _BROKEN as error:
                raise ReplicaFailed("gone", _named(error)) from error
            except _NONSENSE as error:
                raise ReplicaFailed("error", _named(error)) from error
            if chunk is None:
                if not self.usage.finished:
                    raise ReplicaFailed("gone", "the stream broke off")
                return None
            text = _read(chunk, self.usage)
            if text:
                return text

    async def aclose(self) -> None:
        """Close the connection, which stops the model."""
        await self._stream.close()


async def open_completion(replica: Replica, request: ChatRequest) -> Completion:
    """Ask a replica; raise `ReplicaFailed`."""
    required = request.salt_rule == "required"
    salted = bool(request.salt) and (required or (request.salt_rule == "auto" and replica.takes_salt))
    try:
        return await _opened(replica, request, salted=salted)
    except openai.APIStatusError as error:
        # A server that takes no field it does not know says which one.
        if not (salted and error.status_code in (400, 422) and "cache_salt" in error.response.text):
            raise _failure(error) from None
        if required:
            raise ReplicaFailed("refused", "it takes no cache_salt, which is required of it") from None
    try:
        completion = await _opened(replica, request, salted=False)
    except openai.APIStatusError as error:
        # It was something else: one that repeats the prompt names whatever a tenant writes.
        raise _failure(error) from None
    logger.warning("%s takes no cache_salt: it is left out from now on", replica.url)
    replica.takes_salt = False
    return completion


async def _opened(replica: Replica, request: ChatRequest, *, salted: bool) -> Completion:
    """Ask a replica; raise `openai.APIStatusError` for what it answers, and `ReplicaFailed` when it does not."""
    try:
        return Completion(await _create(replica, request, {"cache_salt": request.salt} if salted else None))
    except openai.APIStatusError:
        raise
    except openai.APITimeoutError as error:
        # Its host may be gone, and so may the time of this process: one alone proves nothing.
        raise ReplicaFailed("error", "no connection in time") from error
    except _BROKEN as error:
        raise ReplicaFailed("gone", _named(error)) from error
    except _NONSENSE as error:
        raise ReplicaFailed("error", _named(error)) from error


async def _create(
    replica: Replica, request: ChatRequest, extra: Mapping[str, Any] | None
) -> openai.AsyncStream[ChatCompletionChunk]:
    return await replica.client.chat.completions.create(
        model=request.model,
        messages=cast(list[ChatCompletionMessageParam], list(request.messages)),
        max_tokens=request.max_tokens,
        temperature=0.0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=extra,
    )


def _failure(error: openai.APIStatusError) -> ReplicaFailed:
    detail = _named(error)
    if error.status_code in (429, 503):
        return ReplicaFailed("busy", detail, busy_s=_pause(error.response.headers))
    if error.status_code >= 500:
        return ReplicaFailed("error", detail)
    # Too long, or not understood: the same anywhere. A key or a model that is unknown here may be known elsewhere.
    return ReplicaFailed("rejected" if error.status_code in (400, 413, 422) else "refused", detail)


def _named(error: Exception) -> str:
    """What went wrong, by its names. A server's words are left out: they may repeat the prompt and the salt."""
    named = f"HTTP {error.status_code}" if isinstance(error, openai.APIStatusError) else type(error).__name__
    if isinstance(error, openai.APIError):
        said = next((one for one in (error.code, error.type) if isinstance(one, str) and _NAME.fullmatch(one)), None)
        cause = type(error.__cause__).__name__ if isinstance(error, openai.APIConnectionError) else said
        return f"{named} ({cause})" if cause else named
    return named


def _pause(headers: Mapping[str, str]) -> float:
    asked = asked_pause_s(headers)
    return _BUSY_S if asked is None else min(_LONGEST_BUSY_S, asked)


def _read(chunk: ChatCompletionChunk, usage: Usage) -> str:
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
        # Half a pair of surrogates cannot be sent on, and no store takes a NUL.
        return (choice.delta.content or "").encode(errors="replace").decode().replace("\0", "")
    except (AttributeError, TypeError, LookupError, ValueError, OverflowError) as error:
        # The client builds its models without validation: what it hands over need not have their shape.
        raise ReplicaFailed("error", f"not a chat completion chunk ({type(error).__name__})") from error
