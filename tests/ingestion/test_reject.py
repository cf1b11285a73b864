"""A document that cannot be ingested fails, unless it was deleted or replaced meanwhile: then nothing failed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from ingestion import job_queue, jobs, pipeline
from ingestion.batch import Batch
from ingestion.models import Job, Lane
from ingestion.parsing import Rejected
from ingestion.settings import IngestSettings
from shards.models import Document, DocumentVersion
from tenants.db import Database
from tenants.errors import NotFound
from tenants.models import Tenant

SETTINGS = IngestSettings()
NOW = datetime.now(UTC)


@pytest.fixture
async def tenant_id(worker_database: Database) -> UUID:
    found = uuid4()
    async with worker_database.admin() as session:
        where = {"state": "active", "placement": "auto"}
        session.add(Tenant(id=found, slug=str(found), name="n", plan="p", settings={}, **where))
        await session.commit()
    return found


async def add_document(session: AsyncSession, tenant_id: UUID, **state: Any) -> DocumentVersion:
    """A document with one pending version and whatever else `state` says of it."""
    same: dict[str, Any] = {"title": "t", "format": "txt", "doc_metadata": {}, "created_at": NOW}
    content = uuid4().bytes
    document = Document(
        tenant_id=tenant_id,
        id=uuid4(),
        source="upload",
        content_sha256=content,
        updated_at=NOW,
        **same | {"latest_version": 1, "state": "pending"} | state,
    )
    version = DocumentVersion(
        tenant_id=tenant_id,
        document_id=document.id,
        version=1,
        title_given=True,
        filename="t.txt",
        content_type="text/plain",
        size_bytes=1,
        content_sha256=content,
        object_key="k",
        state="pending",
        **same,
    )
    session.add(document)
    await session.flush()
    session.add(version)
    await session.flush()
    return version


async def test_only_a_document_that_is_still_wanted_fails(worker_database: Database, tenant_id: UUID) -> None:
    async with worker_database.tenant(tenant_id) as session:
        versions = [
            await add_document(session, tenant_id),
            await add_document(session, tenant_id, deleted_at=NOW),
            await add_document(session, tenant_id, active_version=2, latest_version=2, state="active"),
        ]
        added = [jobs.new_job(tenant_id, "ingest", document_id=one.document_id, version=1) for one in versions]
        session.add_all(added)
        await session.commit()
        given = await job_queue.give_out(
            session, tenant_id, Lane.MAIN, turn=0, size=10, max_cost=100, lease=timedelta(seconds=30)
        )
        assert given is not None
        batch = Batch(worker_database, SETTINGS, tenant_id, given.batch_id)
        batch.jobs = await jobs.claim(session, tenant_id, given.batch_id, lease=batch.lease, max_attempts=3)
        assert len(batch.jobs) == 3
        await session.commit()
    runtime: Any = SimpleNamespace(settings=SETTINGS)
    gone = NotFound("There is no such object.")
    rejected = [Rejected(job.id, one, gone) for job, one in zip(added, versions, strict=True)]
    async with worker_database.tenant(tenant_id) as session:
        await pipeline.reject(session, runtime, batch, rejected)
        await session.commit()
    async with worker_database.tenant(tenant_id) as session:
        found = {job.id: job for job in await session.scalars(select(Job).where(Job.kind == "ingest"))}
        assert [found[job.id].state for job in added] == ["failed", "done", "done"]
        assert [(found[job.id].result or {}).get("superseded") for job in added] == [None, True, True]
        purges = set(await session.scalars(select(Job.document_id).where(Job.kind == "purge")))
        assert purges == {versions[1].document_id, versions[2].document_id}
        states = {row.document_id: row.state for row in await session.scalars(select(DocumentVersion))}
        assert [states[one.document_id] for one in versions] == ["failed", "replaced", "replaced"]
