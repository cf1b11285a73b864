"""Words that a write moves to another place of the lexical store: what stays at the old one is not forgotten."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import select

from ingestion.fsck.mend import restore_words
from ingestion.models import Job
from shards.catalog_postgres import PostgresCatalog
from shards.index import IndexRow, TenantIndexes
from shards.memory import MemoryLexical
from shards.memory_vectors import MemoryVectors
from shards.settings import ShardSettings
from tenants.context import Placement
from tenants.db import Database
from tenants.models import Tenant

DIM = 8


class Leaving(MemoryLexical):
    """A store whose moves leave something, and which notes the grace that it is to keep."""

    def __init__(self, *, leaves: bool) -> None:
        super().__init__()
        self.leaves = leaves
        self.graces: list[timedelta] = []

    async def place(self, index: str, *, shared: bool) -> bool:
        await super().place(index, shared=shared)
        return self.leaves

    async def tidy(self, index: str, *, grace: timedelta) -> None:
        self.graces.append(grace)


@pytest.fixture
async def tenant_id(worker_database: Database) -> UUID:
    made = uuid4()
    async with worker_database.admin() as session:
        values = {"slug": str(made), "name": "n", "plan": "p", "state": "active", "placement": "pooled"}
        session.add(Tenant(id=made, settings={}, **values))
        await session.commit()
    return made


@pytest.mark.parametrize("leaves", [True, False])
async def test_what_a_move_leaves_is_dropped_by_a_job_that_keeps_the_grace(
    worker_database: Database, tenant_id: UUID, leaves: bool
) -> None:
    lexical = Leaving(leaves=leaves)
    indexes = TenantIndexes(MemoryVectors(), lexical, ShardSettings(), embedder="e", dim=DIM)
    row = IndexRow(uuid4(), 1, "heading", "text", np.eye(DIM, dtype=np.float32)[0])
    runtime: Any = SimpleNamespace(indexes=indexes)
    async with worker_database.tenant(tenant_id) as session:
        catalog = PostgresCatalog(session, tenant_id)
        await indexes.plan_first(catalog, Placement(tier="pooled"))
        generation = await indexes.open(catalog)
        assert await indexes.insert(catalog, generation, [row]) is leaves
        assert await indexes.restore(catalog, generation, [row]) is False, "it has its place, and no word is written"
        await restore_words(session, runtime, tenant_id, [])
        await session.flush()
        kinds = list(await session.scalars(select(Job.kind).where(Job.tenant_id == tenant_id)))
        assert kinds == ["drop_generation"] * leaves
        await indexes.drop_retired(catalog, grace=timedelta(seconds=60))
    assert lexical.graces == [timedelta(seconds=60)]
