"""The steps that fill a tenant's next edition: which documents lack in it, their chunks made anew, and the switch.

Documents are cut and embedded as if they were uploaded now, from their originals. One whose original is gone, or cannot
be parsed any more, keeps the passages it has, embedded anew. Nothing here commits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Uuid, any_, exists, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs, reembed_jobs, repository
from ingestion.chunk import Chunk, chunk_document, embedding_text
from ingestion.kept_passages import kept_passages
from ingestion.parse.document import ParsedDocument
from ingestion.parse.flow import ParseItem
from ingestion.parse.original import Original
from ingestion.rows import Passages, rows_of
from ingestion.runtime import Runtime
from ingestion.soundness import unsound
from shards import editions
from shards.catalog import Header
from shards.catalog_postgres import PostgresCatalog
from shards.embed import PassageEmbeddings
from shards.index_models import ChunkCell
from shards.models import Document, DocumentVersion
from shards.neighbours import with_neighbours
from tenants.errors import DocumentRejected, NotFound

_DOCUMENTS, _CHUNKS = 32, 128
"""What is embedded and committed together, at most; a longer document goes alone."""
_RECOUNT = text(
    "UPDATE document_versions v SET chunk_count = c.chunks FROM (SELECT document_id, version, count(*) AS chunks"
    " FROM chunks WHERE tenant_id = :tenant AND edition = :edition GROUP BY document_id, version) c"
    " WHERE v.tenant_id = :tenant AND v.document_id = c.document_id AND v.version = c.version AND v.state = 'active'"
    " AND v.chunk_count IS DISTINCT FROM c.chunks"
)
_EMBEDDED_AT_ONCE = 32
_REST = 1.0
"""Time to rest after embedding, in multiples of what it took: uploads and questions need the same processors."""


@dataclass(frozen=True)
class Remade:
    """Documents of the next edition before they are written; `failed` are those that kept their passages, and why."""

    passages: list[Passages]
    embeddings: PassageEmbeddings
    failed: dict[UUID, str] = field(default_factory=dict)


async def lacking(
    session: AsyncSession, tenant_id: UUID, generation: int, *, after: int = 0, without: Sequence[int] = ()
) -> tuple[list[DocumentVersion], bool]:
    """Return the active versions that a generation does not hold, in the order of their numbers from `after` on, as
    many as go together, and whether these are all. `without` are versions that have no passage."""
    version = DocumentVersion
    held = exists().where(
        ChunkCell.tenant_id == tenant_id,
        ChunkCell.generation == generation,
        ChunkCell.version_no == Document.active_version_no,
    )
    query = (
        select(version)
        .join(Document, (Document.tenant_id == version.tenant_id) & (Document.id == version.document_id))
        .where(
            Document.tenant_id == tenant_id,
            Document.active_version_no > after,
            Document.deleted_at.is_(None),
            version.version_no == Document.active_version_no,
            version.tenant_id == tenant_id,
            ~held,
            version.version_no.not_in(without),
        )
        .order_by(Document.active_version_no)
        .limit(_DOCUMENTS + 1)
    )
    found = list(await session.scalars(query))
    sizes = np.cumsum([one.chunk_count or 1 for one in found])
    count = min(_DOCUMENTS, max(1, int(np.searchsorted(sizes, _CHUNKS, side="right"))))
    return found[:count], len(found) <= count


async def remade(
    runtime: Runtime, tenant_id: UUID, versions: Sequence[DocumentVersion], *, calmly: bool = True
) -> Remade:
    """Cut and embed versions by the runtime's recipe, calmly with rests in between.

    Raises:
        DocumentRejected: the model gives vectors that cannot be indexed (`embedding_invalid`).
        Unavailable: the model, the object store or the parsers are away.
    """
    documents, failed = await _parsed(runtime, versions)
    chunked = await asyncio.to_thread(_chunked, runtime, versions, documents)
    for version, chunks in zip(versions, chunked, strict=True):
        if not chunks:
            failed.setdefault(version.document_id, "document_empty")
    again = [version for version, chunks in zip(versions, chunked, strict=True) if not chunks]
    kept = await kept_passages(runtime, tenant_id, again) if again else {}
    passages, first = [], 0
    for version, chunks in zip(versions, chunked, strict=True):
        found = chunks or kept.get(version.version_no, [])
        passages.append(Passages(version, version.title, found, first))
        first += len(found)
    return Remade(passages, await _embedded(runtime, passages, _REST if calmly else 0.0), failed)


async def _parsed(
    runtime: Runtime, versions: Sequence[DocumentVersion]
) -> tuple[dict[int, ParsedDocument], dict[UUID, str]]:
    failed: dict[UUID, str] = {}
    items: list[tuple[DocumentVersion, ParseItem]] = []
    with ExitStack() as stack:
        for version in versions:
            try:
                content = await runtime.objects.get(version.object_key)
            except NotFound as error:
                failed[version.document_id] = error.code
                continue
            original = stack.enter_context(await asyncio.to_thread(Original, content))
            items.append((version, ParseItem(original, version.format, version.filename)))
        results = await runtime.parsers.parse([item for _, item in items]) if items else []
    documents: dict[int, ParsedDocument] = {}
    for (version, _), result in zip(items, results, strict=True):
        if isinstance(result, DocumentRejected):
            failed[version.document_id] = result.code
        else:
            documents[version.version_no] = result
    return documents, failed


def _chunked(
    runtime: Runtime, versions: Sequence[DocumentVersion], documents: dict[int, ParsedDocument]
) -> list[list[Chunk]]:
    return [
        chunk_document(
            documents[version.version_no],
            title=version.title,
            token_spans=runtime.embedder.token_spans,
            max_tokens=runtime.settings.chunk_tokens,
            model_tokens=runtime.embedder.max_tokens,
        )
        if version.version_no in documents
        else []
        for version in versions
    ]


async def _embedded(runtime: Runtime, passages: Sequence[Passages], rest: float) -> PassageEmbeddings:
    texts = [embedding_text(one.title, chunk) for one in passages for chunk in one.chunks]
    parts: list[PassageEmbeddings] = []
    for start in range(0, len(texts), _EMBEDDED_AT_ONCE):
        began = time.monotonic()
        parts.append(await runtime.embedder.embed_passages(texts[start : start + _EMBEDDED_AT_ONCE]))
        await asyncio.sleep(rest * (time.monotonic() - began))
    vectors: list[NDArray[np.float32]] = [np.empty((0, runtime.embedder.dim), dtype=np.float32)]
    whole = np.concatenate([part.vectors for part in parts]) if parts else vectors[0]
    for one in passages:
        own = whole[one.first : one.first + len(one.chunks)]
        refused = unsound(own, dim=runtime.embedder.dim) if len(own) else None
        if refused is not None:
            raise DocumentRejected(f"Document {one.version.document_id}: {refused.detail}", code=refused.code)
        vectors.append(with_neighbours(own))
    return PassageEmbeddings(np.concatenate(vectors), [bits for part in parts for bits in part.token_bits])


async def write(session: AsyncSession, runtime: Runtime, header: Header, made: Remade) -> list[Passages]:
    """Write documents into the next edition, in the caller's transaction and writer lock; return those that still are
    what they were. What was replaced or deleted meanwhile is left out: its purge may be over."""
    tenant_id = header.space.tenant_id
    mine = [one.version.document_id for one in made.passages]
    query = select(Document.active_version_no).where(
        Document.tenant_id == tenant_id, Document.id == any_(literal(mine, ARRAY(Uuid))), Document.deleted_at.is_(None)
    )
    active = set(await session.scalars(query))
    found = [one for one in made.passages if one.version.version_no in active]
    passages = [one for one in found if one.chunks]
    if not passages:
        return found
    index_rows, chunk_rows = rows_of(passages, made.embeddings, header.edition)
    catalog = PostgresCatalog(session, tenant_id)
    generation = await runtime.indexes.current(catalog, header)
    numbers = [one.version.version_no for one in passages]
    if await runtime.indexes.insert(catalog, generation, index_rows, repeated=numbers):
        jobs.queue_drop(session, tenant_id)
    await repository.store_chunks(session, tenant_id, chunk_rows)
    return found


async def give_up(session: AsyncSession, tenant_id: UUID) -> None:
    """Retire a next edition that no job fills any more, and have it dropped."""
    catalog = PostgresCatalog(session, tenant_id)
    if await catalog.generations("embedding") and not await reembed_jobs.under_way(session, tenant_id):
        await catalog.retire("embedding")
        jobs.queue_drop(session, tenant_id)


async def switch(session: AsyncSession, runtime: Runtime, header: Header, *, cells: int | None) -> dict[str, Any]:
    """Make the next edition the one that is read, in the caller's transaction, writer lock and rebuild lock; its upkeep
    divides it into cells where that pays."""
    tenant_id = header.space.tenant_id
    catalog = PostgresCatalog(session, tenant_id)
    await editions.adopt(catalog, runtime.indexes.vectors, header.number)
    await session.execute(_RECOUNT, {"tenant": tenant_id, "edition": header.edition})
    await jobs.queue_partition(session, tenant_id, {"cells": cells} if cells else {})
    jobs.queue_drop(session, tenant_id)
    return {
        "generation": header.number,
        "edition": header.edition,
        "embedding_model": header.recipe.model,
        "chunk_tokens": header.recipe.chunk_tokens,
    }
