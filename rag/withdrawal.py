"""What was said once and quotes a document: it is shown only while what it quotes is served.

A conversation's answer that cites a document deleted since is withdrawn: neither shown nor told to the generator. One
that cites a version replaced since stays as a record of what was said, and is not told to the generator either. An
answer remembered for an `Idempotency-Key` is replayed only while every passage in it is served.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from rag.models import Message

WITHDRAWN = "This answer quoted a document that has been deleted since."
_CHUNK = re.compile(r'"chunk_id": ?"([0-9a-f-]{36})"')
_SERVED = text(
    "SELECT c.id FROM chunks c JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id"
    " AND d.active_version = c.version AND d.deleted_at IS NULL"
    " WHERE c.tenant_id = :tenant AND c.id = ANY(CAST(:ids AS uuid[]))"
)
_THERE = text(
    "SELECT d.id FROM documents d WHERE d.tenant_id = :tenant AND d.deleted_at IS NULL"
    " AND d.id = ANY(CAST(:ids AS uuid[]))"
)
_REDACT = text(
    "UPDATE messages m SET content = :withdrawn, answer = m.answer || jsonb_build_object('answer',"
    " CAST(:withdrawn AS text), 'citations', CAST('[]' AS jsonb), 'withdrawn', true)"
    " FROM message_citations c WHERE c.tenant_id = :tenant AND c.document_id = :document"
    " AND m.tenant_id = c.tenant_id AND m.id = c.message_id"
)
_FORGET = text("DELETE FROM message_citations WHERE tenant_id = :tenant AND document_id = :document")


@dataclass(frozen=True)
class Standing:
    """Which of the documents and passages that were asked about are served."""

    documents: frozenset[UUID]
    chunks: frozenset[UUID]

    def withdrawn(self, message: Message) -> bool:
        """Say whether a message cites a document that was deleted."""
        gone = any(document not in self.documents for document, _ in _cited(message))
        return gone or bool((message.answer or {}).get("withdrawn"))

    def outdated(self, message: Message) -> bool:
        """Say whether a message cites a passage that is not served any more."""
        return self.withdrawn(message) or any(chunk not in self.chunks for _, chunk in _cited(message))


async def standing(session: AsyncSession, tenant_id: UUID, messages: Sequence[Message]) -> Standing:
    """Look up what messages cite."""
    cited = [pair for message in messages for pair in _cited(message)]
    documents = await _there(session, tenant_id, {document for document, _ in cited})
    return Standing(documents, await served(session, tenant_id, {chunk for _, chunk in cited}))


async def served(session: AsyncSession, tenant_id: UUID, chunk_ids: Iterable[UUID]) -> frozenset[UUID]:
    """Return those of these chunks that a search may show now."""
    wanted = list(chunk_ids)
    if not wanted:
        return frozenset()
    return frozenset(await session.scalars(_SERVED, {"tenant": tenant_id, "ids": wanted}))


async def is_current(session: AsyncSession, tenant_id: UUID, body: str) -> bool:
    """Say whether every passage that an answer's body names is served still."""
    chunks = {UUID(found[1]) for found in _CHUNK.finditer(body)}
    return await served(session, tenant_id, chunks) == chunks


async def redact(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> int:
    """Remove the answers of conversations that cite a document, in the caller's transaction; return how many."""
    values = {"tenant": tenant_id, "document": document_id}
    result = await session.execute(_REDACT, {**values, "withdrawn": WITHDRAWN})
    await session.execute(_FORGET, values)
    return int(getattr(result, "rowcount", 0))


async def _there(session: AsyncSession, tenant_id: UUID, ids: Iterable[UUID]) -> frozenset[UUID]:
    wanted = list(ids)
    if not wanted:
        return frozenset()
    return frozenset(await session.scalars(_THERE, {"tenant": tenant_id, "ids": wanted}))


def _cited(message: Message) -> list[tuple[UUID, UUID]]:
    answer: dict[str, Any] = message.answer or {}
    return [(UUID(one["document_id"]), UUID(one["chunk_id"])) for one in answer.get("citations", ())]
