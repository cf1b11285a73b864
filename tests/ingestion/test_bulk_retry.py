"""Trying many jobs again at once, on a real Postgres with as many rows as one call may take."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from ingestion import job_control
from ingestion.models import Job
from shards.models import Document, DocumentVersion
from tenants.models import Tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from tenants.db import Database

MOST = 10_000
_NUMBERED = "FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n"
_ID = "CAST(lpad(to_hex(n), 32, '0') AS uuid)"
_FILL = (
    "INSERT INTO documents (tenant_id, id, title, state, source, format, metadata, content_sha256, latest_version,"
    f" deleted_at) SELECT :tenant, {_ID}, 't', 'failed', 'upload', 'txt', '{{}}', sha256(n::text::bytea), :latest,"
    f" CASE WHEN :deleted THEN now() END {_NUMBERED}",
    "INSERT INTO document_versions (tenant_id, document_id, version, title, title_given, format, metadata, filename,"
    " content_type, size_bytes, content_sha256, object_key, state, created_at)"
    f" SELECT :tenant, {_ID}, 1, 't', true, 'txt', '{{}}', 't.txt', 'text/plain', 1, sha256(n::text::bytea), 'k',"
    f" 'failed', now() {_NUMBERED}",
    "INSERT INTO jobs (tenant_id, id, kind, state, document_id, version, attempts, created_at, error)"
    f" SELECT :tenant, {_ID}, 'ingest', 'failed', {_ID}, 1, 3, now() + n * interval '1 ms',"
    f""" '{{"code": "embedding_failed"}}' {_NUMBERED}""",
)


@pytest.fixture
async def session(app_database: Database) -> AsyncIterator[AsyncSession]:
    """A session of a new tenant; nothing of it is kept."""
    tenant_id = uuid4()
    async with app_database.admin() as admin, admin.begin():
        where = {"state": "active", "placement": "auto"}
        admin.add(Tenant(id=tenant_id, slug=str(tenant_id), name="n", plan="p", settings={}, **where))
    async with app_database.tenant(tenant_id) as opened:
        yield opened
        await opened.rollback()


async def tenant_of(session: AsyncSession) -> UUID:
    found: UUID = (await session.scalars(select(Tenant.id))).one()
    return found


async def fill(session: AsyncSession, numbers: range, *, latest: int = 1, deleted: bool = False) -> None:
    """Add documents of one version whose ingestion failed, in this order."""
    span = {"first": numbers.start, "last": numbers.stop - 1, "tenant": await tenant_of(session)}
    values = {**span, "latest": latest, "deleted": deleted}
    for statement in _FILL:
        filled = text(statement)
        await session.execute(filled, {name: values[name] for name in filled.compile().params})


async def states(session: AsyncSession, model: type[Job | Document | DocumentVersion]) -> Counter[str]:
    return Counter(await session.scalars(select(model.state)))


async def test_as_many_as_one_call_may_take_are_tried_again_at_once(session: AsyncSession) -> None:
    await fill(session, range(MOST + 5))
    tenant_id = await tenant_of(session)
    assert await job_control.retry_all(session, tenant_id, state="failed", code="embedding_failed") == MOST
    assert await states(session, Job) == {"queued": MOST, "failed": 5}
    assert await states(session, DocumentVersion) == {"pending": MOST, "failed": 5}
    assert await states(session, Document) == {"pending": MOST, "failed": 5}
    assert await job_control.retry_all(session, tenant_id, state="failed", code=None) == 5


async def test_what_was_replaced_or_deleted_since_does_not_stand_before_what_can_be_tried_again(
    session: AsyncSession,
) -> None:
    await fill(session, range(MOST // 2), latest=2)
    await fill(session, range(MOST // 2, MOST), deleted=True)
    await fill(session, range(MOST, MOST + 3))
    tenant_id = await tenant_of(session)
    assert await job_control.retry_all(session, tenant_id, state="failed", code=None) == 3
    assert await job_control.retry_all(session, tenant_id, state="failed", code=None) == 0
    assert await states(session, Job) == {"queued": 3, "failed": MOST}
