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
from ingestion.chunk import embedding_text
from ingestion.chunking import Chunked, chunk, chunked
from ingestion.editions import served_edition
from ingestion.parse.buffer import Buffer
from ingestion.parse.builder import empty_document
from ingestion.parse.document import noted
from ingestion.parsing import GivenBack, Opened, Overdue, Rejected
from ingestion.repository import Flip
from ingestion.rows import Passages, rows_of
from ingestion.runtime import Kept, Runtime, require_recipe
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
class Embedded:
    """A group of parsed documents and the embeddings of all their chunks, in order."""

    documents: list[Chunked]
    embeddings: PassageEmbeddings


Step = Embedded | Rejected | Overdue | GivenBack
"""What is to be committed next."""


@dataclass
class _Progress:
    """How many of the documents of a batch are embedded."""

    batch: Batch
    documents: int
    embedded: int = 0

    def show(self, more: float = 0.0) -> None:
        """Say so; `more` documents' worth is done of those in hand."""
        progress = 0.1 + 0.85 * (self.embedded + more) / self.documents
        self.batch.advance("embedding", max(self.batch.progress, progress))  # long ones and groups speak in turns


class _Line:
    """What the tasks of one batch hand on to each other, and these tasks."""

    def __init__(self, runtime: Runtime, batch: Batch, versions: dict[UUID, DocumentVersion]) -> None:
        self.out: asyncio.Queue[Step | None] = asyncio.Queue(1)
        self.kept = Kept(runtime.slow)
        self._runtime, self._batch, self._versions = runtime, batch, versions
        self._ready: Buffer[Chunked | None] = Buffer(GROUP_CHUNKS)
        self._long: asyncio.Queue[Chunked | Opened | None] = asyncio.Queue()  # bounded by the places for slow documents
        self._progress = _Progress(batch, len(versions))

    async def parse(self) -> None:
        """Parse and chunk; wait while a group is ready that the embedder has not taken."""
        async with aclosing(chunked(self._runtime, self._batch, self._versions, self.kept)) as found:
            async for one in found:
                if not isinstance(one, Chunked | Opened):
                    await self.out.put(one)
                elif one.job_id in self.kept.jobs or isinstance(one, Opened):
                    self._long.put_nowait(one)
                else:
                    await self._ready.room(len(one.chunks))
                    self._ready.put(one, len(one.chunks))
        self._ready.put(None)
        self._long.put_nowait(None)

    async def embed(self) -> None:
        """Embed in groups what is ready."""
        async for group in _groups(self._ready):
            for step in await _embed(self._runtime, self._batch, group, self._progress):
                await self.out.put(step)

    async def embed_long(self) -> None:
        """Embed long documents one after another; the embedder takes turns between them and the groups."""
        while (one := await self._long.get()) is not None:
            document = one if isinstance(one, Chunked) else await chunk(self._runtime, self._batch, one)
            for step in await _embed(self._runtime, self._batch, [document], self._progress):
                await self.out.put(step)
            self.kept.leave(one.job_id)


async def steps(runtime: Runtime, batch: Batch, versions: dict[UUID, DocumentVersion]) -> AsyncGenerator[Step, None]:
    """Yield what is to be committed, as it comes: groups of embedded documents, rejected ones, overdue ones.

    `versions` by job id. Parsing, embedding and what the caller does with a step go on at the same time: the next
    group is embedded while the caller writes one, and no more than that. Long documents are embedded beside the
    others, so that those need not wait for them.
    """
    line = _Line(runtime, batch, versions)
    tasks = [asyncio.ensure_future(work) for work in (line.parse(), line.embed(), line.embed_long())]
    working = asyncio.ensure_future(_ended(tasks, line.out))
    try:
        while (step := await _next(line.out, working)) is not None:
            yield step
    finally:
        for task in (working, *tasks):
            task.cancel()
        await asyncio.gather(working, *tasks, return_exceptions=True)
        line.kept.leave(*line.kept.jobs)


async def _ended(tasks: Sequence[asyncio.Future[None]], out: asyncio.Queue[Step | None]) -> None:
    await asyncio.gather(*tasks)
    await out.put(None)


async def _next(out: asyncio.Queue[T], working: asyncio.Future[None]) -> T:
    """Take from a queue what `working` puts there, or raise why it puts nothing any more."""
    getting = asyncio.ensure_future(out.get())
    waited_for: set[asyncio.Future[Any]] = {getting, working}
    try:
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done() and out.empty():
            await working
        return await getting
    finally:
        getting.cancel()


async def _groups(ready: Buffer[Chunked | None]) -> AsyncGenerator[list[Chunked], None]:
    """Group documents as they come, in groups of about `GROUP_CHUNKS` chunks; a longer document goes alone.

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
        if group and size + len(one.chunks) > GROUP_CHUNKS:
            yield group
            group, size = [], 0
        group.append(one)
        size += len(one.chunks)
    if group:
        yield group


async def _embed(
    runtime: Runtime, batch: Batch, group: list[Chunked], progress: _Progress
) -> list[Embedded | Rejected]:
    """Embed the chunks of a group together; return those of its documents that cannot be indexed beside it."""
    documents = len(group)
    rejected = [Rejected(one.job_id, one.version, empty_document()) for one in group if not one.chunks]
    group = [one for one in group if one.chunks]
    texts = [embedding_text(document.title, chunk) for document in group for chunk in document.chunks]
    parts = []
    for start in range(0, len(texts), GROUP_CHUNKS):
        progress.show(documents * start / len(texts))
        with batch.watch.step("embed"):
            parts.append(await runtime.embedder.embed_passages(texts[start : start + GROUP_CHUNKS]))
    progress.embedded += documents
    progress.show()
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


async def plan_index(session: AsyncSession, runtime: Runtime, tenant_id: UUID) -> bool:
    """Plan the tenant's index where it has none yet, and return whether it was so. Then the caller commits before it
    writes, and holds the writer lock for both."""
    catalog = PostgresCatalog(session, tenant_id)
    if await catalog.live() is not None:
        return False
    served = await served_edition(session, tenant_id)
    await runtime.indexes.plan_first(catalog, await placement_of(session, tenant_id), edition=served)
    return True


async def wants_upkeep(session: AsyncSession, runtime: Runtime, tenant_id: UUID) -> bool:
    """Say whether what was committed calls for work on the tenant's index."""
    live = await runtime.indexes.live(PostgresCatalog(session, tenant_id))
    return live is not None and runtime.indexes.wants_upkeep(live, live.rows, await placement_of(session, tenant_id))


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
        generation = await runtime.indexes.open(catalog)
        require_recipe(runtime, generation.header)
        index_rows, chunk_rows = rows_of(passages, group.embeddings, generation.header.edition)
        with batch.watch.step("index"):
            repeated = [flip.version.version_no for flip in flips if flip.version.version_no in tried]
            if await runtime.indexes.insert(catalog, generation, index_rows, repeated=repeated):
                jobs.queue_drop(session, tenant_id)
        with batch.watch.step("store"):
            await repository.store_chunks(session, tenant_id, chunk_rows)
        await used(session, tenant_id)
        replaced = await repository.flip_active(session, flips)
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
