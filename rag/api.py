"""Search, chat and conversations over HTTP: the read line's door."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, nullcontext, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from rag import conversations, withdrawal
from rag.answer.generator import Citation, Delta, Finished, Turn
from rag.chat import HISTORY_MESSAGES, Answerer, ChatTurn, degraded_of, turns_of
from rag.models import Message
from rag.pipeline import Found, Retriever, debug_of
from rag.pipeline import Query as SearchQuery
from rag.schemas import (
    ChatIn,
    ChatOut,
    ConversationDetail,
    ConversationList,
    ConversationOut,
    MessageOut,
    ModelList,
    ModelOut,
    SearchIn,
    SearchOut,
    Usage,
    citation_of,
    hit_of,
)
from shards.filters import parse_filter
from tenants.auth import CurrentTenant
from tenants.context import TenantContext
from tenants.cursor import CursorSigner
from tenants.db import Database
from tenants.errors import Conflict, TesseraError
from tenants.idempotency import IdempotentRoute, quote, streams_ended
from tenants.state import database_of
from tenants.stopwatch import Stopwatch

T = TypeVar("T")
router = APIRouter(prefix="/v1", route_class=IdempotentRoute, lifespan=streams_ended)
Limit = Annotated[int, Query(ge=1, le=100)]
_SHOWN_MESSAGES = 200
_LOOK_EVERY_S = 0.5
"""While an answer is streamed, how often it is looked whether its passages are served still."""
_CLIENT_GONE = 499
"""Nobody reads it; it stands in the log of a proxy."""
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "One JSON, or events when `stream` is true"}
}


@router.post("/search", tags=["search"])
async def search(request: Request, tenant: CurrentTenant, body: SearchIn) -> SearchOut:
    """Search the tenant's documents: vectors and BM25 together, fused and reranked."""
    retriever: Retriever = request.state.retriever
    tree = parse_filter(body.filter) if body.filter is not None else None
    found = await retriever.search(tenant, SearchQuery(body.query, body.k, tree, body.exact))
    quote(request, found.versions())
    return SearchOut(
        hits=[hit_of(passage) for passage in found.passages],
        timings_ms=found.timings_ms,
        degraded=found.degraded,
        debug=debug_of(found) if body.debug else None,
    )


@router.post("/chat", tags=["chat"], response_model=ChatOut, responses=_STREAMED)
async def chat(request: Request, tenant: CurrentTenant, body: ChatIn) -> Response:
    """Ask a question; the answer cites the tenant's documents or says that they do not answer.

    Streamed as server-sent events: `retrieval`, then `delta` and `citation`, then `done` with the whole answer, or
    `error` with a problem document.
    """
    tree = parse_filter(body.filter) if body.filter is not None else None
    answerer: Answerer = request.state.answerer
    answerer.generator.choice.require_allowed(tenant, body.model or "")
    database = database_of(request)
    history: list[Turn] = []
    if body.conversation_id is not None:
        async with database.tenant(tenant.tenant_id) as session:
            await conversations.get(session, tenant.tenant_id, body.conversation_id)
            past = await conversations.messages(session, tenant.tenant_id, body.conversation_id, last=HISTORY_MESSAGES)
            history = turns_of(past, await withdrawal.standing(session, tenant.tenant_id, past))
    begins = body.conversation_id is None
    turn = ChatTurn(body.conversation_id or uuid7(), begins, body.message, tree, history, body.model or "")
    exchange = Exchange(request, tenant, turn)
    if body.stream:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(exchange.events(), media_type="text/event-stream", headers=headers)
    done = await unless_gone(request, exchange.whole())
    if done is None:
        return Response(status_code=_CLIENT_GONE)
    return Response(done.model_dump_json(), media_type="application/json")


@router.get("/models", tags=["chat"])
async def list_models(request: Request, tenant: CurrentTenant) -> ModelList:
    """List the models that the tenant's chats may name."""
    answerer: Answerer = request.state.answerer
    allowed = answerer.generator.choice.allowed(tenant)
    return ModelList(items=[ModelOut(name=name, default=place == 0) for place, name in enumerate(allowed)])


@router.get("/conversations", tags=["chat"])
async def list_conversations(
    request: Request, tenant: CurrentTenant, limit: Limit = 50, cursor: str | None = None
) -> ConversationList:
    """List conversations, newest first."""
    signer: CursorSigner = request.state.cursors
    database = database_of(request)
    scope = f"conversations:{tenant.tenant_id}"
    after = signer.decode(scope, cursor) if cursor else None
    async with database.tenant(tenant.tenant_id) as session:
        found = await conversations.page(session, tenant.tenant_id, after=after, limit=limit)
    items, following = signer.page(scope, found, limit)
    shown = [ConversationOut.model_validate(item, from_attributes=True) for item in items]
    return ConversationList(items=shown, next=following)


@router.get("/conversations/{conversation_id}", tags=["chat"])
async def get_conversation(request: Request, tenant: CurrentTenant, conversation_id: UUID) -> ConversationDetail:
    """Get a conversation with its last messages."""
    database = database_of(request)
    async with database.tenant(tenant.tenant_id) as session:
        conversation = await conversations.get(session, tenant.tenant_id, conversation_id)
        said = await conversations.messages(session, tenant.tenant_id, conversation_id, last=_SHOWN_MESSAGES)
        standing = await withdrawal.standing(session, tenant.tenant_id, said)
    return ConversationDetail(
        id=conversation.id,
        title=conversation.title,
        created_at=conversation.created_at,
        updated_at=conversation.updated_at,
        messages=[_message_out(message, standing) for message in said],
    )


@router.delete("/conversations/{conversation_id}", status_code=204, tags=["chat"])
async def delete_conversation(request: Request, tenant: CurrentTenant, conversation_id: UUID) -> None:
    """Delete a conversation with its messages."""
    database = database_of(request)
    async with database.tenant(tenant.tenant_id) as session:
        await conversations.remove(session, tenant.tenant_id, conversation_id)
        await session.commit()


@dataclass
class Exchange:
    """One question and its answer, in one piece or streamed."""

    request: Request
    tenant: TenantContext
    turn: ChatTurn

    def __post_init__(self) -> None:
        self.answerer: Answerer = self.request.state.answerer
        self._watch = Stopwatch()
        self._question_id = uuid7()
        self._message_id = uuid7()

    async def retrieve(self) -> Found:
        """Search for the passages."""
        with self._watch.step("retrieval"):
            return await self.answerer.retrieve(self.tenant, self.turn)

    async def whole(self) -> ChatOut:
        """Answer in one piece; once more when a document was deleted or replaced meanwhile."""
        for again in (True, True, False):
            found = await self.retrieve()
            async with aclosing(self.answerer.answer(self.tenant, self.turn, found)) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        with suppress(_OutOfDate) if again else nullcontext():
                            return await self.finish(found, event)
        raise TesseraError("The answerer ended without an answer.")

    async def events(self) -> AsyncIterator[str]:
        """Yield the server-sent events of the answer; it ends when a passage is not served any more."""
        try:
            found = await self.retrieve()
            quote(self.request, found.versions())
            hits = [hit_of(passage).model_dump(mode="json") for passage in found.passages]
            yield _event(
                "retrieval",
                {"conversation_id": str(self.turn.conversation_id), "hits": hits, "timings_ms": found.timings_ms},
            )
            async with aclosing(self._told(found)) as events:
                async for event in events:
                    yield event
        except TesseraError as error:
            # The response has begun, so the one handler cannot render this; it gives the body all the same.
            yield _event("error", self.request.state.problem(error, self.request.state.request_id))

    async def _told(self, found: Found) -> AsyncGenerator[str, None]:
        looked = time.monotonic()
        async with aclosing(self.answerer.answer(self.tenant, self.turn, found)) as events:
            async for event in events:
                if time.monotonic() - looked > _LOOK_EVERY_S:
                    async with self._database.tenant(self.tenant.tenant_id) as session:
                        await self._require_served(session, found)
                    looked = time.monotonic()
                if isinstance(event, Delta):
                    yield _event("delta", {"text": event.text})
                elif isinstance(event, Citation):
                    yield _event("citation", citation_of(event))
                else:
                    yield _event("done", await self.finish(found, event))

    async def finish(self, found: Found, finished: Finished) -> ChatOut:
        """Keep the exchange, then return what the client is told: an answer that was shown is in the conversation."""
        spent = {**found.timings_ms, **self._watch.total()}
        spent["generate"] = round(spent["total"] - spent["retrieval"], 3)
        done = ChatOut(
            conversation_id=self.turn.conversation_id,
            message_id=self._message_id,
            answer=finished.answer,
            citations=[citation_of(citation) for citation in finished.citations],
            abstained=finished.abstained,
            degraded=degraded_of(found, finished),
            model=finished.model,
            usage=Usage(prompt_tokens=finished.prompt_tokens, completion_tokens=finished.completion_tokens),
            timings_ms=spent,
        )
        versions = found.versions()
        cited = {citation.document_id: versions[citation.document_id] for citation in finished.citations}
        async with self._database.tenant(self.tenant.tenant_id) as session:
            await self._require_served(session, found)
            await conversations.add_exchange(
                session,
                self.tenant.tenant_id,
                self.turn.conversation_id,
                begins=self.turn.begins,
                question=self.turn.message,
                question_id=self._question_id,
                message_id=self._message_id,
                answer=done.model_dump(mode="json"),
                cited=cited,
            )
            await session.commit()
        quote(self.request, cited)
        return done

    @property
    def _database(self) -> Database:
        database: Database = self.request.state.database
        return database

    async def _require_served(self, session: AsyncSession, found: Found) -> None:
        """Raise `_OutOfDate` when a document that the answer may rest on is not served any more as it was found."""
        if not await withdrawal.is_current(session, self.tenant.tenant_id, found.versions()):
            raise _OutOfDate("A document was deleted or replaced while this answer was made; ask again.")


class _OutOfDate(Conflict):
    code = "answer_withdrawn"
    retryable = True


async def unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """Return what `work` gives; stop it and return None when the client leaves, unless it may come back for the answer
    with its `Idempotency-Key`."""
    task = asyncio.ensure_future(work)
    if "idempotency-key" in request.headers:
        return await task
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _message_out(message: Message, standing: withdrawal.Standing) -> MessageOut:
    role: Literal["user", "assistant"] = "user" if message.role == "user" else "assistant"
    answer = ChatOut.model_validate(message.answer) if message.answer is not None else None
    content, withdrawn = message.content, standing.withdrawn(message)
    if withdrawn and answer is not None:
        content = withdrawal.WITHDRAWN
        answer = answer.model_copy(update={"answer": content, "citations": []})
    return MessageOut(
        id=message.id,
        role=role,
        content=content,
        answer=answer,
        withdrawn=withdrawn,
        outdated=standing.outdated(message),
        created_at=message.created_at,
    )


def _event(name: str, data: BaseModel | dict[str, Any]) -> str:
    body = data.model_dump_json() if isinstance(data, BaseModel) else json.dumps(data)
    return f"event: {name}\ndata: {body}\n\n"
