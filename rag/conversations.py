"""Conversations and their messages. Every function takes an open session; none commits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from rag.models import Conversation, Message, MessageCitation
from tenants.cursor import Position
from tenants.errors import NotFound
from tenants.repository import newest_first

_TITLE_CHARS = 80


async def get(session: AsyncSession, tenant_id: UUID, conversation_id: UUID) -> Conversation:
    """Return a conversation; raise `NotFound` for an unknown id."""
    conversation = await session.get(Conversation, (tenant_id, conversation_id))
    if conversation is None:
        raise NotFound("There is no conversation with this id.")
    return conversation


async def page(session: AsyncSession, tenant_id: UUID, *, after: Position | None, limit: int) -> list[Conversation]:
    """Return up to `limit` + 1 conversations, newest first."""
    query = select(Conversation).where(Conversation.tenant_id == tenant_id)
    return await newest_first(session, query, Conversation, after=after, limit=limit)


async def messages(session: AsyncSession, tenant_id: UUID, conversation_id: UUID, *, last: int) -> list[Message]:
    """Return the last messages of a conversation, oldest first."""
    query = (
        select(Message)
        .where(Message.tenant_id == tenant_id, Message.conversation_id == conversation_id)
        .order_by(Message.id.desc())
        .limit(last)
    )
    return list(await session.scalars(query))[::-1]


async def add_exchange(
    session: AsyncSession,
    tenant_id: UUID,
    conversation_id: UUID,
    *,
    begins: bool,
    question: str,
    question_id: UUID,
    message_id: UUID,
    answer: dict[str, Any],
    cited: Mapping[UUID, int],
) -> None:
    """Add the user's turn and the answer to it, in that order of their time-ordered ids.

    `cited` says which version of which documents the answer cites.

    The conversation begins with its first exchange and is titled by it, so a question that failed leaves nothing.
    """
    if begins:
        session.add(Conversation(tenant_id=tenant_id, id=conversation_id, title=_title(question)))
        await session.flush()
    else:
        await get(session, tenant_id, conversation_id)
    whose = {"tenant_id": tenant_id, "conversation_id": conversation_id}
    session.add(Message(**whose, id=question_id, role="user", content=question))
    session.add(Message(**whose, id=message_id, role="assistant", content=answer["answer"], answer=answer))
    await session.flush()
    session.add_all(
        MessageCitation(tenant_id=tenant_id, document_id=document_id, message_id=message_id, version=version)
        for document_id, version in cited.items()
    )
    await session.execute(
        update(Conversation)
        .where(Conversation.tenant_id == tenant_id, Conversation.id == conversation_id)
        .values(updated_at=func.now())
    )


async def remove(session: AsyncSession, tenant_id: UUID, conversation_id: UUID) -> None:
    """Delete a conversation with its messages; raise `NotFound` for an unknown id."""
    await get(session, tenant_id, conversation_id)
    await session.execute(
        delete(Message).where(Message.tenant_id == tenant_id, Message.conversation_id == conversation_id)
    )
    await session.execute(
        delete(Conversation).where(Conversation.tenant_id == tenant_id, Conversation.id == conversation_id)
    )


def _title(message: str) -> str:
    title = " ".join(message.split())
    return title if len(title) <= _TITLE_CHARS else title[: _TITLE_CHARS - 1] + "…"
