"""Bodies of the read line's requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from rag.answer.generator import Citation
from rag.passages import Passage

_MAX_QUESTION = 8000


def _has_words(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    if "\x00" in text:
        raise ValueError("must not contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a surrogate pair, which is not text") from error
    return text


Question = Annotated[str, Field(min_length=1, max_length=_MAX_QUESTION), AfterValidator(_has_words)]
FilterJson = dict[str, Any]


class SearchIn(BaseModel):
    """A search."""

    model_config = ConfigDict(extra="forbid")

    query: Question
    k: int = Field(default=10, ge=1, le=100)
    filter: FilterJson | None = Field(default=None, examples=[{"department": {"eq": "hr"}}])
    exact: bool = Field(default=False, description="Visit every cell.")
    debug: bool = False


class RanksOut(BaseModel):
    """Place in each stage's list, 1 = best."""

    ann: int | None
    bm25: int | None
    rerank: int | None


class Hit(BaseModel):
    """A passage. `span` is its place in the document's extracted text, in characters."""

    chunk_id: UUID
    document_id: UUID
    external_id: str | None
    title: str
    headings: list[str]
    text: str
    score: float
    ranks: RanksOut
    page: int | None
    span: tuple[int, int]
    metadata: dict[str, Any]
    version: int
    as_of: datetime


class SearchOut(BaseModel):
    """The answer to a search."""

    hits: list[Hit]
    timings_ms: dict[str, float]
    degraded: list[str]
    debug: dict[str, Any] | None = None


class ChatIn(BaseModel):
    """A chat turn."""

    model_config = ConfigDict(extra="forbid")

    message: Question
    conversation_id: UUID | None = None
    filter: FilterJson | None = None
    model: str | None = Field(default=None, min_length=1, max_length=200)
    """One of `GET /v1/models`; the first of them without it."""
    stream: bool = True


class CitationOut(BaseModel):
    """What `[n]` in an answer points at; `quote` stands at `span` of the document's extracted text."""

    n: int
    chunk_id: UUID
    document_id: UUID
    title: str
    quote: str
    page: int | None
    span: tuple[int, int]


class Usage(BaseModel):
    """Tokens of the generator; 0 for the built-in answerer."""

    prompt_tokens: int
    completion_tokens: int


class ChatOut(BaseModel):
    """An answer with its citations. Streamed, this is the data of the event `done`."""

    conversation_id: UUID
    message_id: UUID
    answer: str
    citations: list[CitationOut]
    abstained: bool
    degraded: list[str]
    model: str
    usage: Usage
    timings_ms: dict[str, float]


class ModelOut(BaseModel):
    """A model that chats may name. `default`: it answers when they name none."""

    name: str
    default: bool


class ModelList(BaseModel):
    """The models of a tenant."""

    items: list[ModelOut]
    next: None = None


class MessageOut(BaseModel):
    """A turn of a conversation."""

    id: UUID
    role: Literal["user", "assistant"]
    content: str
    answer: ChatOut | None
    withdrawn: bool = False
    """It cited a document that was deleted since; its text is not shown any more."""
    outdated: bool = False
    """What it cited was deleted or replaced since."""
    created_at: datetime


class ConversationOut(BaseModel):
    """A conversation."""

    id: UUID
    title: str
    created_at: datetime
    updated_at: datetime


class ConversationDetail(ConversationOut):
    """A conversation with its last messages, oldest first."""

    messages: list[MessageOut]


class ConversationList(BaseModel):
    """A page of conversations, newest first."""

    items: list[ConversationOut]
    next: str | None


def hit_of(passage: Passage) -> Hit:
    """Render a passage."""
    return Hit(
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        external_id=passage.external_id,
        title=passage.title,
        headings=list(passage.headings),
        text=passage.text,
        score=round(passage.score, 6),
        ranks=RanksOut(ann=passage.ranks.ann, bm25=passage.ranks.bm25, rerank=passage.ranks.rerank),
        page=passage.page,
        span=(passage.start, passage.end),
        metadata=passage.metadata,
        version=passage.version,
        as_of=passage.as_of,
    )


def citation_of(citation: Citation) -> CitationOut:
    """Render a citation."""
    return CitationOut(
        n=citation.n,
        chunk_id=citation.chunk_id,
        document_id=citation.document_id,
        title=citation.title,
        quote=citation.quote,
        page=citation.page,
        span=(citation.start, citation.end),
    )
