"""Documents whose original is gone, or cannot be parsed any more: their passages as they are, cut smaller where the
next model or chunking asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from sqlalchemy import Integer, any_, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from ingestion.chunk import Chunk, chunk_document
from ingestion.editions import live_edition
from ingestion.parse.document import Block, ParsedDocument
from ingestion.runtime import Runtime
from shards.models import Chunk as StoredChunk
from shards.models import DocumentVersion


async def kept_passages(
    runtime: Runtime, tenant_id: UUID, versions: Sequence[DocumentVersion]
) -> dict[int, list[Chunk]]:
    """Return the chunks of versions from the edition that is read, by version number."""
    numbers = {(version.document_id, version.version): version for version in versions}
    query = (
        select(StoredChunk)
        .where(
            StoredChunk.tenant_id == tenant_id,
            StoredChunk.document_id.in_([version.document_id for version in versions]),
            StoredChunk.version == any_(literal([version.version for version in versions], ARRAY(Integer))),
            StoredChunk.edition == live_edition(tenant_id),
        )
        .order_by(StoredChunk.document_id, StoredChunk.position)
    )
    async with runtime.database.tenant(tenant_id) as session:
        stored = list(await session.scalars(query))
    found: dict[int, list[Chunk]] = {}
    for one in stored:
        version = numbers.get((one.document_id, one.version))
        if version is not None:
            before = found.setdefault(version.version_no, [])
            before += await asyncio.to_thread(_cut, runtime, version.title, one, len(before))
    return found


def _cut(runtime: Runtime, title: str, stored: StoredChunk, first: int) -> list[Chunk]:
    block = Block("paragraph", 0, len(stored.text), page=stored.page)
    pieces = chunk_document(
        ParsedDocument(stored.text, (block,), None, None, "text"),
        title=" > ".join((title, *stored.headings)),
        token_spans=runtime.embedder.token_spans,
        max_tokens=runtime.settings.chunk_tokens,
        model_tokens=runtime.embedder.max_tokens,
    )
    return [
        replace(
            piece,
            position=first + at,
            headings=tuple(stored.headings),
            start=stored.span_start + piece.start,
            end=stored.span_start + piece.end,
        )
        for at, piece in enumerate(pieces)
    ]
