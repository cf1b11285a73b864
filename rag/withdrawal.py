"""What was said once and quotes a document: it is shown only while what it quotes is served.

A conversation's answer that cites a document deleted since is withdrawn: neither shown nor told to the generator. One
that cites a version replaced since stays as a record of what was said, and is not told to the generator either. An
answer remembered for an `Idempotency-Key` is replayed only while every version that it quotes is served. Versions are
what counts and not chunks: a document that is embedded anew says what it said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from rag.models import Message

WITHDRAWN = "This answer quoted a document that has been deleted since."
_SERVED = text(
    "SELECT count(*) FROM unnest(CAST(:documents AS uuid[]), CAST(:versions AS int[])) q (document, version)"
    " JOIN documents d ON d.tenant_id = :tenant AND d.id = q.document AND d.active_version = q.version"
    " AND d.deleted_at IS NULL"
)
_CHANGED = text(
    "SELECT c.message_id, bool_or(d.id IS NULL) AS gone FROM message_citations c LEFT JOIN documents d"
    " ON d.tenant_id = c.tenant_id AND d.id = c.document_id AND d.deleted_at IS NULL WHERE c.tenant_id = :tenant"
    " AND c.message_id = ANY(CAST(:ids AS uuid[])) AND d.active_version IS DISTINCT FROM c.version"
    " GROUP BY c.message_id"
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
    """Which of the messages that were asked about cite what is not served any more."""

    gone: frozenset[UUID]
    """Those that cite a document that was deleted."""
    changed: frozenset[UUID]
    """These, and those that cite a version that was replaced."""

    def withdrawn(self, message: Message) -> bool:
        """Say whether a message cites a document that was deleted."""
        return message.id in self.gone or bool((message.answer or {}).get("withdrawn"))

    def outdated(self, message: Message) -> bool:
        """Say whether a message cites what is not served any more."""
        return self.withdrawn(message) or message.id in self.changed


async def standing(session: AsyncSession, tenant_id: UUID, messages: Sequence[Message]) -> Standing:
    """Look up what messages cite."""
    values = {"tenant": tenant_id, "ids": [message.id for message in messages]}
    rows = (await session.execute(_CHANGED, values)).all()
    return Standing(frozenset(row.message_id for row in rows if row.gone), frozenset(row.message_id for row in rows))


async def is_current(session: AsyncSession, tenant_id: UUID, quoted: Mapping[UUID, int]) -> bool:
    """Say whether these versions of documents are served still."""
    values = {"tenant": tenant_id, "documents": list(quoted), "versions": list(quoted.values())}
    return not quoted or await session.scalar(_SERVED, values) == len(quoted)


async def redact(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> int:
    """Remove the answers of conversations that cite a document, in the caller's transaction; return how many."""
    values = {"tenant": tenant_id, "document": document_id}
    result = await session.execute(_REDACT, {**values, "withdrawn": WITHDRAWN})
    await session.execute(_FORGET, values)
    return int(getattr(result, "rowcount", 0))
