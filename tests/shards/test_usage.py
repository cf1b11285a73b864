"""What is counted of a tenant's searches is written down, and nothing of a tenant that is being erased."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import select, update

from shards.index import TenantIndexes
from shards.memory import MemoryLexical
from shards.memory_vectors import MemoryVectors
from shards.probe import AnnHits
from shards.settings import ShardSettings
from shards.usage import UsageWatch
from shards.usage_models import CellHeat, IndexUse, ProbeSample
from tenants.db import Database
from tenants.models import Tenant
from tests.shards.clustered import DIM, clustered
from tests.shards.generations import generation_of

SETTINGS = ShardSettings(usage_every_s=3600, shadow_share=1.0, shadow_load=1.0)
FOUND = AnnHits([], "cells", 2, 8, 500, 0.98, 0.97, visited=(3, 5))


@pytest.fixture
async def tenant_id(app_database: Database) -> UUID:
    made = uuid4()
    async with app_database.admin() as session, session.begin():
        session.add(Tenant(id=made, slug=str(made), name="n", plan="p", state="active", placement="auto", settings={}))
    return made


async def searched(database: Database, tenant_id: UUID, times: int) -> None:
    """A process that searches and ends."""
    indexes = TenantIndexes(MemoryVectors(), MemoryLexical(), SETTINGS, embedder="e", dim=DIM)
    watch = UsageWatch(database, indexes, SETTINGS)
    live = replace(generation_of(clustered(1000, 8)), tenant_id=tenant_id)
    for _ in range(times):
        watch.note(live, np.ones(DIM, dtype=np.float32), FOUND, filtered=False)
    await watch.aclose()


async def test_visits_add_up_over_processes(app_database: Database, tenant_id: UUID) -> None:
    for times in (3, 4):
        await searched(app_database, tenant_id, times)
    async with app_database.tenant(tenant_id) as session:
        use = await session.get_one(IndexUse, tenant_id)
        assert (use.searches, use.upkeep_due) == (7, False)
        heat = {row.cell: row.heat for row in await session.scalars(select(CellHeat))}
    assert heat == {3: pytest.approx(7, abs=0.1), 5: pytest.approx(7, abs=0.1)}


async def test_nothing_is_written_of_a_tenant_that_is_being_erased(app_database: Database, tenant_id: UUID) -> None:
    async with app_database.admin() as session, session.begin():
        await session.execute(update(Tenant).where(Tenant.id == tenant_id).values(state="deleting"))
    await searched(app_database, tenant_id, 3)
    async with app_database.tenant(tenant_id) as session:
        for table in (IndexUse, CellHeat, ProbeSample):
            assert (await session.scalars(select(table))).all() == []
