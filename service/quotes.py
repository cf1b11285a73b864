"""What is kept of answers that quote documents, over all packages: it goes with the document."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from rag.withdrawal import redact
from tenants.idempotency import withdraw


class StoredQuotes:
    """`ingestion.runtime.Quotes`: answers in conversations, and those remembered for an `Idempotency-Key`."""

    async def remove(self, session: AsyncSession, tenant_id: UUID, document_id: UUID) -> dict[str, int]:
        """See `Quotes.remove`."""
        return {
            "messages": await redact(session, tenant_id, document_id),
            "answers": await withdraw(session, tenant_id, document_id),
        }
