"""The barrier: an engine's keys become text only here, read from Postgres under row-level security.

A chunk whose version is not the active one, or whose document is deleted, or which is another tenant's, is not in the
answer, whatever an engine said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, any_, bindparam, case, literal_column, select
from sqlalchemy.dialects.postgresql import ARRAY

from rag.passages import Passage, Ranks
from shards.models import SERVED, Chunk, Document
from tenants.db import Database
from tenants.one_trip import Row, Statement

_UNRANKED = Ranks(ann=None, bm25=None, rerank=None)


def _among(name: str) -> ColumnElement[bool]:
    return Chunk.id == any_(bindparam(name, type_=ARRAY(Uuid)))


_CANDIDATES = Statement(
    select(
        Chunk.id,
        Chunk.document_id,
        Document.external_id,
        Document.title,
        Chunk.headings,
        Chunk.text,
        Chunk.page,
        Chunk.span_start,
        Chunk.span_end,
        Chunk.version,
        Document.updated_at,
        Document.doc_metadata,
        case((_among("with_bits"), Chunk.token_bits), else_=literal_column("''")),
    )
    .join(Document, SERVED)
    .where(Chunk.tenant_id == bindparam("tenant_id"), _among("chunk_ids"))
)


@dataclass(frozen=True)
class Candidate:
    """A passage that may be shown, not ranked yet, with its stored token vectors when they were asked for."""

    passage: Passage
    token_bits: bytes


async def read_candidates(
    database: Database, tenant_id: UUID, chunk_ids: Sequence[UUID], *, with_bits: Sequence[UUID]
) -> dict[UUID, Candidate]:
    """Return the chunks that this tenant may see now, by id; `with_bits` names those whose token vectors are needed."""
    rows = await database.read(tenant_id, _CANDIDATES, chunk_ids=list(chunk_ids), with_bits=list(with_bits))
    return {row[0]: _candidate(row) for row in rows}


def _candidate(row: Row) -> Candidate:
    passage = Passage(
        chunk_id=row[0],
        document_id=row[1],
        external_id=row[2],
        title=row[3],
        headings=tuple(row[4]),
        text=row[5],
        page=row[6],
        start=row[7],
        end=row[8],
        version=row[9],
        as_of=row[10],
        metadata=row[11],
        score=0.0,
        ranks=_UNRANKED,
    )
    return Candidate(passage, row[12])
