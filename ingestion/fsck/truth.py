"""What Postgres says there should be: the chunks that are served and where they lie, and what is on its way.

A version is *served* when its document is there and names it as the active one. It is *on its way* while its document
has an unfinished job: what an ingestion has written or a purge has not removed yet is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.editions import LIVE_EDITION
from ingestion.fsck.digest import Digest, bucket_column, columns, digest_of
from ingestion.models import UNFINISHED
from shards.catalog import Header

_SERVED = (
    " FROM documents d JOIN chunks c ON c.tenant_id = d.tenant_id AND c.document_id = d.id"
    f" AND c.version = d.active_version AND c.edition = {LIVE_EDITION}"
)
_PLACED = (
    " JOIN chunk_cells k ON k.tenant_id = d.tenant_id AND k.generation = :generation"
    " AND k.version_no = d.active_version_no AND k.chunk_id = c.id"
    " JOIN micro_cells m ON m.tenant_id = d.tenant_id AND m.generation = :generation AND m.micro = k.micro"
)
_MINE = " WHERE d.tenant_id = :tenant AND d.deleted_at IS NULL"
_CHUNK_DIGEST = columns("c.id", "d.active_version_no")
_BUCKET = bucket_column("c.id")

_EDITION = text(f"SELECT {LIVE_EDITION} AS edition")
_BY_CELL = text(f"SELECT m.cell, {_CHUNK_DIGEST}{_SERVED}{_PLACED}{_MINE} GROUP BY m.cell")
_IN_CELLS = text(
    f"SELECT c.id, d.active_version_no AS version_no, m.cell{_SERVED}{_PLACED}{_MINE}"
    " AND m.cell = ANY(CAST(:cells AS integer[]))"
)
_BY_BUCKET = text(f"SELECT {_BUCKET} AS bucket, {_CHUNK_DIGEST}{_SERVED}{_MINE} GROUP BY 1")
_IN_BUCKETS = text(
    f"SELECT c.id, d.active_version_no AS version_no{_SERVED}{_MINE} AND {_BUCKET} = ANY(CAST(:buckets AS integer[]))"
)
ON_ITS_WAY = (
    "EXISTS (SELECT FROM jobs j WHERE j.tenant_id = {0}.tenant_id AND j.document_id = {0}.{1}"
    f" AND j.{UNFINISHED})"
)
"""Whether a document has an unfinished job: to be filled with the alias of a table and its column of the document."""
_CHUNKS = text(
    "SELECT c.id, c.document_id, c.version, v.version_no, m.cell,"  # noqa: S608 - constants
    " d.deleted_at IS NULL AND d.active_version = c.version AND v.state = 'active'"
    f" AND c.edition = {LIVE_EDITION} AS served"
    " FROM chunks c JOIN documents d ON d.tenant_id = c.tenant_id AND d.id = c.document_id"
    " JOIN document_versions v ON v.tenant_id = c.tenant_id AND v.document_id = c.document_id AND v.version = c.version"
    " LEFT JOIN chunk_cells k ON k.tenant_id = c.tenant_id AND k.generation = :generation"
    " AND k.version_no = v.version_no AND k.chunk_id = c.id"
    " LEFT JOIN micro_cells m ON m.tenant_id = c.tenant_id AND m.generation = :generation AND m.micro = k.micro"
    " WHERE c.tenant_id = :tenant AND c.id = ANY(CAST(:chunks AS uuid[]))"
)
_VERSIONS = text(
    "SELECT v.version_no, v.document_id, v.version, v.state,"  # noqa: S608 - constants
    f" {ON_ITS_WAY.format('v', 'document_id')} AS on_its_way"
    " FROM document_versions v WHERE v.tenant_id = :tenant AND v.version_no = ANY(CAST(:versions AS bigint[]))"
)


@dataclass(frozen=True)
class Key:
    """A served chunk: its id, the number of its version, and the cell it lies in (-1 where that is not asked)."""

    chunk_id: UUID
    version_no: int
    cell: int = -1


@dataclass(frozen=True)
class ChunkFact:
    """What Postgres says of a chunk now. `cell` is None when it has no place in the generation."""

    document_id: UUID
    version: int
    version_no: int
    cell: int | None
    served: bool


@dataclass(frozen=True)
class VersionFact:
    """What Postgres says of a version now."""

    document_id: UUID
    version: int
    state: str
    on_its_way: bool


class Truth:
    """Reads one tenant's truth in one session."""

    def __init__(self, session: AsyncSession, tenant_id: UUID) -> None:
        self._session = session
        self._tenant = {"tenant": tenant_id}

    async def edition(self) -> int:
        """Return the edition of chunks that is read."""
        [row] = await self._rows(_EDITION)
        return int(row.edition)

    async def by_cell(self, header: Header) -> dict[int, Digest]:
        """Return the digest of the served chunks in each cell of a generation."""
        rows = await self._rows(_BY_CELL, generation=header.number)
        return {row.cell: digest_of(row.keys, row.xor_keys, row.weight) for row in rows}

    async def in_cells(self, header: Header, cells: Sequence[int]) -> set[Key]:
        """Return the served chunks in cells of a generation."""
        rows = await self._rows(_IN_CELLS, generation=header.number, cells=list(cells))
        return {Key(row.id, row.version_no, row.cell) for row in rows}

    async def by_bucket(self) -> dict[int, Digest]:
        """Return the digest of the served chunks in each bucket of chunk ids."""
        return {row.bucket: digest_of(row.keys, row.xor_keys, row.weight) for row in await self._rows(_BY_BUCKET)}

    async def in_buckets(self, buckets: Sequence[int]) -> set[Key]:
        """Return the served chunks in buckets."""
        rows = await self._rows(_IN_BUCKETS, buckets=list(buckets))
        return {Key(row.id, row.version_no) for row in rows}

    async def chunks(self, chunk_ids: Sequence[UUID], generation: int = 0) -> dict[UUID, ChunkFact]:
        """Return what is known of chunks, by id, with their cells in a generation."""
        rows = await self._rows(_CHUNKS, chunks=list(chunk_ids), generation=generation)
        return {
            row.id: ChunkFact(row.document_id, row.version, row.version_no, row.cell, bool(row.served)) for row in rows
        }

    async def versions(self, numbers: Sequence[int]) -> dict[int, VersionFact]:
        """Return what is known of versions, by number."""
        rows = await self._rows(_VERSIONS, versions=list(numbers))
        return {row.version_no: VersionFact(row.document_id, row.version, row.state, row.on_its_way) for row in rows}

    async def _rows(self, query: Any, **values: Any) -> Sequence[Any]:
        return (await self._session.execute(query, {**self._tenant, **values})).all()
