"""Making what is missing again, from Postgres. Nothing here commits; callers hold the tenant's writer lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import jobs
from ingestion.chunk_context import ContextLines
from ingestion.chunk_split import TokenIndex
from ingestion.editions import LIVE_EDITION
from ingestion.fsck.check import Check
from ingestion.fsck.questions import NOBODY_FINISHES
from ingestion.fsck.rows import Breaches
from ingestion.fsck.texts import ServedText, texts_of_version
from ingestion.models import Job
from ingestion.runtime import Runtime, require_recipe
from ingestion.upload_rows import replace_fields
from shards.catalog_postgres import PostgresCatalog
from shards.index import IndexRow
from shards.models import Document, DocumentVersion
from shards.neighbours import with_neighbours

_SPECIAL_TOKENS = 2
_PLACES = text(
    "DELETE FROM chunk_cells k USING index_generations g WHERE g.tenant_id = :tenant AND g.state = 'live'"
    " AND k.tenant_id = g.tenant_id AND k.generation = g.generation AND k.version_no = ANY(CAST(:versions AS bigint[]))"
    " AND NOT EXISTS (SELECT FROM documents d JOIN chunks c ON c.tenant_id = d.tenant_id AND c.document_id = d.id"
    " AND c.version = d.active_version AND c.edition = g.edition"
    " WHERE d.tenant_id = k.tenant_id AND d.active_version_no = k.version_no"
    " AND c.id = k.chunk_id)"
)
_STAMP = text(
    "UPDATE index_generations g SET stamp = g.stamp + 1, rows = (SELECT count(*) FROM chunk_cells k"
    " WHERE k.tenant_id = g.tenant_id AND k.generation = g.generation)"
    " WHERE g.tenant_id = :tenant AND g.state = 'live' RETURNING g.generation, g.stamp"
)
_COUNT = text(
    "UPDATE micro_cells m SET stamp = :stamp, rows = coalesce(n.rows, 0) FROM micro_cells o LEFT JOIN"
    " (SELECT k.micro, count(*) AS rows FROM chunk_cells k WHERE k.tenant_id = :tenant AND k.generation = :generation"
    " GROUP BY k.micro) n ON n.micro = o.micro WHERE o.tenant_id = :tenant AND o.generation = :generation"
    " AND m.tenant_id = o.tenant_id AND m.generation = o.generation AND m.micro = o.micro"
)
_LEFT_CHUNKS = text(
    "DELETE FROM chunks c USING document_versions v WHERE v.tenant_id = :tenant AND v.document_id = :document"
    " AND v.version = :version AND v.state NOT IN ('active', 'pending') AND c.tenant_id = v.tenant_id"
    " AND c.document_id = v.document_id AND c.version = v.version"
)
_AS_MANY_AS_THERE_ARE = text(
    "UPDATE document_versions v SET chunk_count = (SELECT count(*) FROM chunks c WHERE c.tenant_id = v.tenant_id"  # noqa: S608 - constants
    f" AND c.document_id = v.document_id AND c.version = v.version AND c.edition = {LIVE_EDITION})"
    " WHERE v.tenant_id = :tenant AND v.document_id = :document AND v.version = :version"
)
_LEFT_EDITIONS = text(
    "DELETE FROM chunks c WHERE c.tenant_id = :tenant AND c.document_id = :document AND c.version = :version"
    # Without a live generation the chunks are all that is left to make one from.
    " AND EXISTS (SELECT FROM index_generations g WHERE g.tenant_id = :tenant AND g.state = 'live')"
    " AND NOT EXISTS (SELECT FROM index_generations g WHERE g.tenant_id = c.tenant_id AND g.edition = c.edition"
    " AND g.state <> 'gone')"
)
_RETURN = text(
    "UPDATE jobs SET state = 'retrying', batch_id = NULL, lease_until = NULL WHERE tenant_id = :tenant AND id = :job"
    " AND state = 'running' AND (batch_id IS NULL OR lease_until IS NULL"
    " OR lease_until < now() - interval '5 minutes')"
)
_GIVE_UP = text(
    "UPDATE index_generations g SET state = 'retired', retired_at = now() WHERE g.tenant_id = :tenant"  # noqa: S608 - constants
    f" AND g.generation = :generation AND {NOBODY_FINISHES}"
)


@dataclass(frozen=True)
class Passages:
    """A served version's chunks in order, with their vectors (chunks, dim) where those were made."""

    texts: list[ServedText]
    vectors: NDArray[np.float32]


async def mend_rows(session: AsyncSession, check: Check, found: Breaches) -> None:
    """Mend what Postgres says against itself: rows that are wrong, and jobs that somebody should do."""
    tenant_id, rows = check.tenant_id, found.rows
    for one in rows["active"]:
        await _settle_active(session, tenant_id, one.document_id)
    for one in rows["count"]:
        await _mend_count(session, check, one)
    for one in rows["chunks"]:
        await session.execute(_LEFT_CHUNKS, _of(tenant_id, one))
    for one in rows["editions"]:
        await session.execute(_LEFT_EDITIONS, _of(tenant_id, one))
    if rows["places"]:
        versions = [one.version for one in rows["places"]]
        await session.execute(_PLACES, {"tenant": tenant_id, "versions": versions})
    if rows["places"] or rows["micros"]:
        generation = (await session.execute(_STAMP, {"tenant": tenant_id})).one()
        await session.execute(_COUNT, {"tenant": tenant_id, **generation._asdict()})
    for one in rows["lost"]:
        await session.execute(_RETURN, {"tenant": tenant_id, "job": one.what})
    for name, kind in (("pending", "ingest"), ("replaced", "purge"), ("deleted", "delete")):
        for one in rows[name]:
            session.add(_job(tenant_id, kind, one.document_id, one.version))
    for one in rows["unbuilt"]:
        await session.execute(_GIVE_UP, {"tenant": tenant_id, "generation": one.version})
    if rows["undropped"] or rows["unbuilt"]:
        jobs.queue_drop(session, tenant_id)
    await _mend_fields(session, tenant_id, found.fields)
    check.without_vectors.update((one.document_id, one.version) for one in (*rows["no_index"], *rows["unplaced"]))
    await session.flush()


def _of(tenant_id: UUID, row: Any) -> dict[str, Any]:
    return {"tenant": tenant_id, "document": row.document_id, "version": row.version}


def _job(tenant_id: UUID, kind: str, document_id: UUID, version: int) -> Job:
    if kind == "ingest":
        return jobs.new_job(tenant_id, kind, document_id=document_id, version=version, payload={"again": True})
    return jobs.new_job(tenant_id, kind, document_id=document_id)


async def _settle_active(session: AsyncSession, tenant_id: UUID, document_id: UUID) -> None:
    """Let a document serve the newest version that says it is active, or wait for its newest one to be ingested."""
    document = await session.get_one(Document, (tenant_id, document_id), with_for_update=True)
    mine = (DocumentVersion.tenant_id == tenant_id, DocumentVersion.document_id == document_id)
    versions = list(await session.scalars(select(DocumentVersion).where(*mine).order_by(DocumentVersion.version)))
    active = [version for version in versions if version.state == "active"]
    for version in active[:-1]:
        version.state = "replaced"
    if active[:-1]:
        session.add(_job(tenant_id, "purge", document_id, 0))
    if active:
        newest = active[-1]
        document.active_version, document.active_version_no = newest.version, newest.version_no
        document.state, document.title, document.doc_metadata = "active", newest.title, newest.doc_metadata
        return
    document.active_version = document.active_version_no = None
    document.state = "failed"
    if versions:
        document.state = versions[-1].state = "pending"
        session.add(_job(tenant_id, "ingest", document_id, versions[-1].version))


async def _mend_count(session: AsyncSession, check: Check, row: Any) -> None:
    """Read a version again from its original; without that, what is left of it is what it is."""
    version = await session.get_one(DocumentVersion, (check.tenant_id, row.document_id, row.version))
    if await check.runtime.objects.head(version.object_key) is not None:
        session.add(_job(check.tenant_id, "ingest", row.document_id, row.version))
    else:
        await session.execute(_AS_MANY_AS_THERE_ARE, _of(check.tenant_id, row))


async def _mend_fields(session: AsyncSession, tenant_id: UUID, wrong: Sequence[tuple[UUID, int]]) -> None:
    for one in wrong:
        version = await session.get(DocumentVersion, (tenant_id, *one))
        if version is not None:
            await replace_fields(session, [version])


async def embedded(runtime: Runtime, tenant_id: UUID, version: tuple[UUID, int]) -> Passages:
    """Return a served version's chunks with vectors made anew; none when it is not served any more."""
    async with runtime.database.tenant(tenant_id) as session:
        texts = await texts_of_version(session, tenant_id, *version)
    if not texts:
        return Passages([], np.empty((0, runtime.embedder.dim), dtype=np.float32))
    found = await runtime.embedder.embed_passages(_with_context(runtime, texts))
    return Passages(texts, with_neighbours(found.vectors))


def _with_context(runtime: Runtime, texts: Sequence[ServedText]) -> list[str]:
    """Return what the embedder reads of each chunk. The columns of a table that goes on are not known here."""
    spans = runtime.embedder.token_spans
    room = runtime.embedder.max_tokens - _SPECIAL_TOKENS
    lines = ContextLines(texts[0].title, TokenIndex("", spans), room)
    read = []
    for text_ in texts:
        line = lines.before(text_.row.text, len(spans(text_.row.text)), text_.headings, "")
        read.append(f"{line}\n{text_.row.text}" if line else text_.row.text)
    return read


async def restore_vectors(session: AsyncSession, runtime: Runtime, tenant_id: UUID, made: Sequence[Passages]) -> None:
    """Write vectors of versions that are served still: each where Postgres places its chunk, or where it belongs."""
    catalog = PostgresCatalog(session, tenant_id)
    generation = await runtime.indexes.open(catalog)
    require_recipe(runtime, generation.header)
    rows: list[IndexRow] = []
    for passages in made:
        first = passages.texts[0]
        served = {
            text_.row.chunk_id for text_ in await texts_of_version(session, tenant_id, first.document_id, first.version)
        }
        rows += [
            IndexRow(
                text_.row.chunk_id,
                text_.row.version_no,
                text_.row.heading,
                text_.row.text,
                vector,
                text_.row.language,
            )
            for text_, vector in zip(passages.texts, passages.vectors, strict=True)
            if text_.row.chunk_id in served
        ]
    if await runtime.indexes.restore(catalog, generation, rows):
        jobs.queue_drop(session, tenant_id)


async def restore_words(
    session: AsyncSession, runtime: Runtime, tenant_id: UUID, versions: Sequence[tuple[UUID, int]]
) -> None:
    """Write the lexical entries of versions that are served still."""
    live = await PostgresCatalog(session, tenant_id).live()
    if live is None:  # there is nothing to search; what lacks an index is made again with it
        return
    rows = [text_.row for one in versions for text_ in await texts_of_version(session, tenant_id, *one)]
    if await runtime.indexes.insert_texts(live, rows):
        jobs.queue_drop(session, tenant_id)


async def flag_originals(
    session: AsyncSession, tenant_id: UUID, found: Mapping[tuple[UUID, int], str], *, deep: bool
) -> None:
    """Say of each document whose original is missing or damaged that it is; of others that it is there again."""
    ended = ["missing", "damaged"] if deep else ["missing"]
    mine = Document.tenant_id == tenant_id
    await session.execute(update(Document).where(mine, Document.original.in_(ended)).values(original="intact"))
    for (document_id, version), state in found.items():
        newest = (mine, Document.id == document_id, Document.latest_version == version)
        await session.execute(update(Document).where(*newest).values(original=state))
