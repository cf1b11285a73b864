"""The seam between the read line and whatever writes an answer: events out, one protocol in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from rag.passages import Passage
from shards.embed import QueryEmbedding
from tenants.errors import Unavailable

ABSTENTION = "This is not in your documents."
"""The one sentence with which every answerer says that the passages do not answer."""


class GenerationUnavailable(Unavailable):
    """The generator did not begin to answer: nothing was sent yet, so another can take over."""

    code = "generation_unavailable"
    title = "Generation unavailable"


class GenerationInterrupted(Unavailable):
    """The generator failed after a part of its answer was sent; that part has to be withdrawn."""

    code = "generation_interrupted"
    title = "Generation interrupted"


@dataclass(frozen=True)
class Turn:
    """One earlier message of the conversation, oldest first in a history."""

    role: Literal["user", "assistant"]
    content: str


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

    `degraded` names what was missing (`generation`: the model was away and the built-in answered).
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

    def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        history: Sequence[Turn],
        *,
        idf: Mapping[str, float],
        query: QueryEmbedding,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Yield deltas and citations, then exactly one `Finished`. Closing the iterator stops the work upstream.

        Args:
            question: the user's last message.
            passages: best first; `[n]` in the answer never points outside them.
            history: earlier turns, oldest first.
            idf: inverse document frequency of the question's words (lower case) in this tenant's index.
            query: the embedded question, as it was searched with.

        Raises:
            GenerationUnavailable: nothing was yielded yet.
            GenerationInterrupted: something was.

        """
        ...

    async def aclose(self) -> None:
        """Close whatever the generator holds open; the embedder is not its own."""
        ...
