"""The text of served chunks as the lexical index takes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.editions import live_edition
from ingestion.metadata import LANGUAGE
from shards.lexical import ChunkText
from shards.models import SERVED, Chunk, Document, DocumentVersion

_PAGE = 1000


@dataclass(frozen=True)
class ServedText:
    """A served chunk with the version it belongs to."""

    row: ChunkText
    document_id: UUID
    version: int
    title: str
    headings: tuple[str, ...]


async def texts_after(session: AsyncSession, tenant_id: UUID, last: UUID) -> list[ServedText]:
    """Return a page of served chunks by ascending id, from after one."""
    return await _texts(session, _served(tenant_id).where(Chunk.id > last).order_by(Chunk.id).limit(_PAGE))


async def texts_of(session: AsyncSession, tenant_id: UUID, chunk_ids: Sequence[UUID]) -> list[ServedText]:
    """Return those of these chunks that are served."""
    return await _texts(session, _served(tenant_id).where(Chunk.id.in_(chunk_ids)))


async def texts_of_version(session: AsyncSession, tenant_id: UUID, document_id: UUID, version: int) -> list[ServedText]:
    """Return the chunks of a version in order, none when it is not served."""
    mine = and_(Chunk.document_id == document_id, Chunk.version == version)
    return await _texts(session, _served(tenant_id).where(mine).order_by(Chunk.position))


def _served(tenant_id: UUID) -> Any:
    return (
        select(Chunk, DocumentVersion)
        .join(
            DocumentVersion,
            and_(
                DocumentVersion.tenant_id == Chunk.tenant_id,
                DocumentVersion.document_id == Chunk.document_id,
                DocumentVersion.version == Chunk.version,
            ),
        )
        .join(Document, SERVED)
        .where(Chunk.tenant_id == tenant_id, Chunk.edition == live_edition(tenant_id))
    )


async def _texts(session: AsyncSession, query: Any) -> list[ServedText]:
    return [
        ServedText(
            ChunkText(
                chunk.id,
                version.version_no,
                " > ".join((version.title, *chunk.headings)),
                chunk.text,
                version.doc_metadata.get(LANGUAGE),
            ),
            chunk.document_id,
            chunk.version,
            version.title,
            tuple(chunk.headings),
        )
        for chunk, version in await session.execute(query)
    ]
