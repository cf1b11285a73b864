"""Postgres against itself: what its own rows promise each other. Each question is one statement, so one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.fsck.check import Check
from ingestion.fsck.questions import COUNTS, QUESTIONS
from ingestion.metadata import field_rows
from shards.models import DocumentField

_DESCRIBED = text(
    "SELECT v.document_id, v.version, v.metadata AS described FROM document_versions v JOIN documents d"
    " ON d.tenant_id = v.tenant_id AND d.id = v.document_id AND d.active_version = v.version"
    " WHERE v.tenant_id = :tenant AND d.deleted_at IS NULL AND v.document_id > :last ORDER BY 1 LIMIT :page"
)
_VALUES = ("key", "ordinal", "text_value", "number_value", "bool_value", "time_value")
_PAGE = 500


@dataclass
class Breaches:
    """What was found, by the name of its question: rows with `document_id`, `version` and `what`."""

    rows: dict[str, list[Any]] = field(default_factory=dict)
    fields: list[tuple[UUID, int]] = field(default_factory=list)
    """Versions whose filterable fields are not those of their metadata."""


async def check_rows(check: Check) -> Breaches:
    """Ask Postgres every question; what breaks a promise is in the report, and returned to be mended."""
    found = Breaches()
    async with check.runtime.database.tenant(check.tenant_id) as session:
        for question in QUESTIONS:
            rows = (await session.execute(question.query, {"tenant": check.tenant_id})).all()
            found.rows[question.name] = list(rows)
            for row in rows:
                check.report.add("postgres", question.kind, str(row.what), why=question.why)
        counts = await session.execute(COUNTS, {"tenant": check.tenant_id})
        for kind, number in counts.one()._asdict().items():
            check.report.count(kind, int(number))
    last: UUID | None = UUID(int=0)
    while last is not None:
        async with check.runtime.database.tenant(check.tenant_id) as session:
            last, wrong = await _wrong_fields(session, check.tenant_id, last)
        for version in wrong:
            check.report.add("postgres", "fields", str(version[0]), why="fields are not those of the metadata")
        found.fields += wrong
    return found


async def _wrong_fields(
    session: AsyncSession, tenant_id: UUID, last: UUID
) -> tuple[UUID | None, list[tuple[UUID, int]]]:
    """Return the served versions of a page whose fields are wrong, and where the next page begins."""
    # Two statements that are to see one moment.
    await session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    values = {"tenant": tenant_id, "last": last, "page": _PAGE}
    described = (await session.execute(_DESCRIBED, values)).all()
    stored: dict[tuple[UUID, int], set[tuple[Any, ...]]] = {(row.document_id, row.version): set() for row in described}
    mine = select(DocumentField).where(
        DocumentField.tenant_id == tenant_id, DocumentField.document_id.in_([row.document_id for row in described])
    )
    for one in await session.scalars(mine):
        if (one.document_id, one.version) in stored:
            stored[one.document_id, one.version].add(tuple(getattr(one, name) for name in _VALUES))
    wrong = []
    for row in described:
        wanted = {tuple(field.get(name) for name in _VALUES) for field in field_rows(row.described)}
        if wanted != stored[row.document_id, row.version]:
            wrong.append((row.document_id, row.version))
    return (described[-1].document_id if len(described) == _PAGE else None), wrong
