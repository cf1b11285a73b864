"""The first generation of a tenant: what an attempt wrote that was never committed can be removed from it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import pytest

from shards.catalog_postgres import PostgresCatalog
from shards.index import IndexRow, TenantIndexes
from shards.memory import MemoryLexical
from shards.memory_vectors import MemoryVectors
from shards.settings import ShardSettings
from tenants.context import Placement
from tenants.models import Tenant

if TYPE_CHECKING:
    from tenants.db import Database

DIM = 8


def row(version_no: int) -> IndexRow:
    vector = np.zeros(DIM, dtype=np.float32)
    vector[version_no % DIM] = 1.0
    return IndexRow(uuid4(), version_no, "heading", "text", vector)


@pytest.mark.parametrize("tier", ["pooled", "dedicated"])
async def test_a_purge_reaches_what_an_attempt_wrote_that_never_committed(worker_database: Database, tier: str) -> None:
    tenant_id, placement = uuid4(), Placement(tier=tier)  # type: ignore[arg-type]  # one of its literals
    async with worker_database.admin() as session:
        values = {"slug": str(tenant_id), "name": "n", "plan": "p", "state": "active", "placement": tier}
        session.add(Tenant(id=tenant_id, settings={}, **values))
        await session.commit()
    vectors, lexical = MemoryVectors(), MemoryLexical()
    for version_no, commits in ((1, False), (2, True), (3, True)):
        indexes = TenantIndexes(vectors, lexical, ShardSettings(), embedder="e", dim=DIM)
        async with worker_database.tenant(tenant_id) as session:
            catalog = PostgresCatalog(session, tenant_id)
            await indexes.plan_first(catalog, placement)
            await session.commit()
            generation = await indexes.open(catalog)
            await indexes.insert(catalog, generation, [row(version_no)])
            if commits:
                await session.commit()
    async with worker_database.tenant(tenant_id) as session:
        counts = await indexes.delete_versions(PostgresCatalog(session, tenant_id), [1])
    assert counts == {"vectors": 1, "lexical": 1}
    left = [held.version_no async for page in vectors.scan(generation.space, cells=[0]) for held in page]
    assert sorted(left) == [2, 3]
