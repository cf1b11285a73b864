"""The queue of jobs, for the tests that look at all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from sqlalchemy import select

from ingestion.models import Job
from tenants.db import Database
from tenants.models import Tenant
from tests.ingestion.queue_rows import Queue, clear


@pytest.fixture
async def queue(worker_database: Database) -> AsyncIterator[Queue]:
    """Three tenants, and no job of any other test."""
    ids = [uuid4() for _ in range(3)]
    async with worker_database.dispatcher() as session:
        owners = list(await session.scalars(select(Job.tenant_id).distinct()))
    await clear(worker_database, owners)
    async with worker_database.admin() as session, session.begin():
        for i in ids:
            session.add(Tenant(id=i, slug=str(i), name="n", plan="p", state="active", placement="auto", settings={}))
    yield Queue(worker_database, ids)
    await clear(worker_database, ids)
