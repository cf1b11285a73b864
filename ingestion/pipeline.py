"""The write line's steps between a claimed batch and its commit: parse, chunk, embed, write, flip.

Nothing here commits. Documents are embedded together, across documents, and become searchable group by group.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs, repository
from ingestion.batch import Batch
from ingestion.chunk import Chunk, chunk_document, embedding_text
from ingestion.editions import served_edition
from ingestion.parse.builder import empty_document
from ingestion.parse.document import LeftOut, noted
from ingestion.parsing import Opened, Overdue, Rejected, parsed
from ingestion.repository import Flip
from ingestion.rows import Passages, rows_of
from ingestion.runtime import Runtime, require_recipe
from ingestion.soundness import unsound
from shards.catalog_postgres import PostgresCatalog
from shards.embed import PassageEmbeddings
from shards.models import DocumentVersion
from shards.neighbours import with_neighbours
from shards.usage import used
from tenants.bulk import insert_all
from tenants.repository import placement_of

T = TypeVar("T")
GROUP_CHUNKS = 192
"""Chunks embedded and committed together: enough to fill the embedder's batches, few enough to overlap with writing."""
_PAUSE_S = 0.15
"""How long a group that is not full waits for the next document."""


@dataclass(frozen=True)
class Chunked:
    """One document of a batch after chunking."""

    job_id: UUID
    version: DocumentVersion
    title: str
    pages: int | None
    chunks: list[Chunk]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class Embedded:
    """A group of parsed documents and the embeddings of all their chunks, in order."""

    documents: list[Chunked]
    embeddings: PassageEmbeddings


async def steps(
    runtime: Runtime, batch: Batch, versions: dict[UUID, DocumentVersion]
) -> AsyncGenerator[Embedded | Rejected | Overdue, None]:
    """Yield what is to be committed, as it comes: groups of embedded documents, rejected ones, overdue ones.

    `versions` by job id. Parsing, embedding and what the caller does with a step go on at the same time: the next
    group is embedded while the caller writes one, and no more than that.
    """
    out: asyncio.Queue[Embedded | Rejected | Overdue | None] = asyncio.Queue(1)
    ready: asyncio.Queue[Opened | None] = asyncio.Queue()

    async def parse() -> None:
        async with aclosing(parsed(runtime, batch, versions)) as found:
            async for one in found:
                await (ready.put(one) if isinstance(one, Opened) else out.put(one))
        await ready.put(None)

    async def embed() -> None:
        embedded = 0
        async for group in _groups(runtime, batch, ready):
            for step in await _embed(runtime, batch, group, done=embedded / len(versions)):
                await out.put(step)
            embedded += len(group)
            batch.advance("embedding", 0.1 + 0.85 * embedded / len(versions))
        await out.put(None)

    working: asyncio.Future[Any] = asyncio.gather(parse(), embed())
    try:
        while (step := await _next(out, working)) is not None:
            yield step
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _next(out: asyncio.Queue[T], working: asyncio.Future[Any]) -> T:
    """Take from a queue what `working` puts there, or raise why it puts nothing any more."""
    getting = asyncio.ensure_future(out.get())
    waited_for: set[asyncio.Future[Any]] = {getting, working}
    await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
    if not getting.done() and out.empty():
        getting.cancel()
        await working
    return await getting


async def _groups(
    runtime: Runtime, batch: Batch, ready: asyncio.Queue[Opened | None]
) -> AsyncGenerator[list[Chunked], None]:
    """Chunk documents as they come, in groups of about `GROUP_CHUNKS` chunks; a longer document goes alone.

    A group that is not full goes when nothing more comes for a moment: what is ready does not wait for the slow.
    """
    group: list[Chunked] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout(_PAUSE_S if group else None):
                one = await ready.get()
        except TimeoutError:
            yield group
            group, size = [], 0
            continue
        if one is None:
            break
        with batch.watch.step("chunk"):
            chunked = await asyncio.to_thread(_chunk, runtime, one)
        if group and size + len(chunked.chunks) > GROUP_CHUNKS:
            yield group
            group, size = [], 0
        group.append(chunked)
        size += len(chunked.chunks)
    if group:
        yield group


def _chunk(runtime: Runtime, one: Opened) -> Chunked:
    version, document = one.version, one.document
    title = version.title if version.title_given else (document.title or version.title)
    chunks = chunk_document(
        document,
        title=title,
        token_spans=runtime.embedder.token_spans,
        max_tokens=runtime.settings.chunk_tokens,
        model_tokens=runtime.embedder.max_tokens,
    )
    return Chunked(one.job_id, version, title, document.pages, chunks, document.left_out)


async def _embed(runtime: Runtime, batch: Batch, group: list[Chunked], *, done: float) -> list[Embedded | Rejected]:
    """Embed the chunks of a group together; return those of its documents that cannot be indexed beside it."""
    rejected = [Rejected(one.job_id, one.version, empty_document()) for one in group if not one.chunks]
    group = [one for one in group if one.chunks]
    texts = [embedding_text(document.title, chunk) for document in group for chunk in document.chunks]
    parts = []
    for start in range(0, len(texts), GROUP_CHUNKS):
        batch.advance("embedding", 0.1 + 0.85 * (done + start / len(texts) * len(group) / len(batch.jobs)))
        with batch.watch.step("embed"):
            parts.append(await runtime.embedder.embed_passages(texts[start : start + GROUP_CHUNKS]))
    if group:
        group, found = _sound(group, _joined(parts), runtime.embedder.dim, rejected)
    return [*rejected, Embedded(group, _in_context(group, found))] if group else [*rejected]


def _in_context(group: list[Chunked], embeddings: PassageEmbeddings) -> PassageEmbeddings:
    ends = np.cumsum([len(document.chunks) for document in group])
    by_document = np.split(embeddings.vectors, ends[:-1])
    leaning = np.concatenate([with_neighbours(vectors) for vectors in by_document])
    return PassageEmbeddings(leaning, embeddings.token_bits)


def _sound(
    group: list[Chunked], embeddings: PassageEmbeddings, dim: int, rejected: list[Rejected]
) -> tuple[list[Chunked], PassageEmbeddings]:
    """Take the documents out whose vectors cannot be indexed; they are added to `rejected`."""
    ends = np.cumsum([len(document.chunks) for document in group])
    kept: list[Chunked] = []
    rows = np.ones(len(embeddings.vectors), dtype=np.bool_)
    for document, end in zip(group, ends, strict=True):
        own = slice(end - len(document.chunks), end)
        error = unsound(embeddings.vectors[own], dim=dim)
        if error is None:
            kept.append(document)
            continue
        rejected.append(Rejected(document.job_id, document.version, error))
        rows[own] = False
    if len(kept) == len(group):
        return group, embeddings
    bits = [bits for bits, wanted in zip(embeddings.token_bits, rows, strict=True) if wanted]
    return kept, PassageEmbeddings(embeddings.vectors[rows], bits)


def _joined(parts: Sequence[PassageEmbeddings]) -> PassageEmbeddings:
    return PassageEmbeddings(
        np.concatenate([part.vectors for part in parts]), [bits for part in parts for bits in part.token_bits]
    )


async def plan_index(session: AsyncSession, runtime: Runtime, tenant_id: UUID) -> None:
    """Plan the tenant's index where it has none yet. The caller commits, and holds the writer lock until it has written
    to it."""
    catalog = PostgresCatalog(session, tenant_id)
    if await catalog.live() is None:
        served = await served_edition(session, tenant_id)
        await runtime.indexes.plan_first(catalog, await placement_of(session, tenant_id), edition=served)


async def write_group(session: AsyncSession, runtime: Runtime, batch: Batch, group: Embedded) -> None:
    """Write a group into engines and Postgres and flip its documents, in the caller's transaction and writer lock."""
    tenant_id = batch.tenant_id
    held = await jobs.hold(session, tenant_id, batch.batch_id, [document.job_id for document in group.documents])
    mine = [document.version for document in group.documents if document.job_id in held]
    newest = {version.document_id: version for version in sorted(mine, key=lambda version: version.version)}
    current = await repository.lock_current(session, tenant_id, list(newest.values()))
    passages: list[Passages] = []
    flips: list[Flip] = []
    results: dict[UUID, dict[str, Any]] = {}
    superseded: list[DocumentVersion] = []
    again = {job.id for job in batch.jobs if job.attempts > 1 or job.error is not None or job.payload.get("again")}
    tried = {one.version.version_no for one in group.documents if one.job_id in again}
    offset = 0
    for document in group.documents:
        version = document.version
        first, offset = offset, offset + len(document.chunks)
        if document.job_id not in held:
            continue
        results[document.job_id] = {"version": version.version, "superseded": True}
        if version.version_no not in current:
            superseded.append(version)
            continue
        passages.append(Passages(version, document.title, document.chunks, first))
        flips.append(Flip(version, document.title, document.pages, len(document.chunks)))
        chunks = len(document.chunks)
        results[document.job_id] = {"version": version.version, "chunks": chunks, "pages": document.pages}
        if document.left_out:
            results[document.job_id]["left_out"] = noted(document.left_out)
    if flips:
        catalog = PostgresCatalog(session, tenant_id)
        placement = await placement_of(session, tenant_id)
        generation = await runtime.indexes.open(catalog)
        require_recipe(runtime, generation.header)
        index_rows, chunk_rows = rows_of(passages, group.embeddings, generation.header.edition)
        with batch.watch.step("index"):
            repeated = [flip.version.version_no for flip in flips if flip.version.version_no in tried]
            await runtime.indexes.insert(catalog, generation, index_rows, repeated=repeated)
        with batch.watch.step("store"):
            await repository.store_chunks(session, tenant_id, chunk_rows)
        await used(session, tenant_id)
        replaced = await repository.flip_active(session, flips)
        rows = await repository.count_chunks(session, tenant_id)
        if runtime.indexes.wants_upkeep(generation, rows, placement):
            await jobs.queue_partition(session, tenant_id)
        await _queue_purges(session, tenant_id, replaced)
    await _supersede(session, tenant_id, superseded)
    await jobs.finish(session, tenant_id, results)


async def _supersede(session: AsyncSession, tenant_id: UUID, versions: Sequence[DocumentVersion]) -> None:
    await _queue_purges(session, tenant_id, await repository.drop_superseded(session, versions))


async def _queue_purges(session: AsyncSession, tenant_id: UUID, document_ids: Iterable[UUID]) -> None:
    await insert_all(session, [jobs.new_job(tenant_id, "purge", document_id=one) for one in document_ids])


async def reject(session: AsyncSession, runtime: Runtime, batch: Batch, rejected: Sequence[Rejected]) -> None:
    """End the jobs of documents that cannot be ingested; their originals stay.

    A document that was deleted or replaced meanwhile did not fail: its original may be gone for that very reason.
    """
    held = await jobs.hold(session, batch.tenant_id, batch.batch_id, [item.job_id for item in rejected])
    lost = [item for item in rejected if item.job_id in held]
    current = await repository.lock_current(session, batch.tenant_id, [item.version for item in lost])
    failed = [item for item in lost if item.version.version_no in current]
    superseded = [item for item in lost if item.version.version_no not in current]
    errors = {item.job_id: item.error for item in failed}
    await jobs.fail(session, batch.tenant_id, errors, max_attempts=runtime.settings.max_attempts)
    for item in failed:
        await repository.fail_version(session, item.version)
    await _supersede(session, batch.tenant_id, [item.version for item in superseded])
    results = {item.job_id: {"version": item.version.version, "superseded": True} for item in superseded}
    await jobs.finish(session, batch.tenant_id, results)
