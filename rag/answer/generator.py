"""The seam between the read line and whatever writes an answer: events out, one protocol in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from rag.passages import Passage
from shards.embed import QueryEmbedding
from tenants.context import TenantContext
from tenants.errors import Unavailable

ABSTENTION = "This is not in your documents."
"""The one sentence with which every answerer says that the passages do not answer."""


class GenerationFailed(Unavailable):
    """The generator gave no answer, or no whole one. It says what it has used all the same, as far as that is known."""

    def __init__(self, detail: str, *, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        super().__init__(detail)
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens


class GenerationUnavailable(GenerationFailed):
    """The generator did not begin to answer: nothing was sent yet, so another can take over."""

    code = "generation_unavailable"
    title = "Generation unavailable"


class GenerationUnsupported(GenerationUnavailable):
    """The model wrote something, and no sentence of it could be checked against the passages. Nothing was sent."""

    code = "generation_unsupported"


class GenerationInterrupted(GenerationFailed):
    """The generator failed after a part of its answer was sent: that part was checked, but it is not the whole."""

    code = "generation_interrupted"
    title = "Generation interrupted"


@dataclass(frozen=True)
class Turn:
    """One earlier message of the conversation, oldest first in a history."""

    role: Literal["user", "assistant"]
    content: str


@dataclass(frozen=True)
class Budget:
    """Until when an answer may begin and end, in seconds of the event loop's clock."""

    begin_by: float
    end_by: float


@dataclass(frozen=True)
class Asked:
    """A question, and what it is to be answered from."""

    question: str
    """The user's last message."""
    passages: Sequence[Passage]
    """Best first; `[n]` in the answer never points outside them."""
    history: Sequence[Turn]
    """Earlier turns, oldest first."""
    idf: Mapping[str, float]
    """Inverse document frequency of the question's words (lower case) in this tenant's index."""
    query: QueryEmbedding
    """The embedded question, as it was searched with."""
    model: str = ""
    """The model that the caller named; empty for the tenant's first."""
    budget: Budget | None = None
    """None for the settings' own times, from now."""


@dataclass(frozen=True)
class Delta:
    """The next piece of the answer's text."""

    text: str


@dataclass(frozen=True)
class Citation:
    """What `[n]` in the answer points at. `quote` is the document's `text[start:end]`, on `page` if known."""

    n: int
    chunk_id: UUID
    document_id: UUID
    title: str
    quote: str
    page: int | None
    start: int
    end: int


@dataclass(frozen=True)
class Finished:
    """The whole answer, last of the events. `answer` is the joined text of the deltas.

    `degraded` names what was missing. The built-in answered because: no model began (`generation`), the tenant's models
    were all writing (`generation_busy`), nothing that the model wrote could be checked (`generation_unsupported`), the
    model broke off, and the built-in completed its answer (`generation_interrupted`). Another model than the one that
    was asked answered: `generation_model`. The tokens are those of all models that were asked, as far as their servers
    said it: of an answer that breaks off most of them do not.
    """

    answer: str
    citations: tuple[Citation, ...]
    abstained: bool
    model: str
    degraded: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int


AnswerEvent = Delta | Citation | Finished


class Generator(Protocol):
    """Writes a cited answer from passages, or says that they do not answer."""

    @property
    def name(self) -> str:
        """What `Finished.model` says: `extractive`, or the model's name."""
        ...

    def answer(self, tenant: TenantContext, asked: Asked) -> AsyncGenerator[AnswerEvent, None]:
        """Yield deltas and citations, then exactly one `Finished`. Closing the iterator stops the work upstream.

        Raises:
            GenerationUnavailable: nothing was yielded yet.
            GenerationInterrupted: something was.

        """
        ...

    async def aclose(self) -> None:
        """Close whatever the generator holds open; the embedder is not its own."""
        ...
