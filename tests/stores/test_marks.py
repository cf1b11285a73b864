"""What one process wrote, another finds at once when it knows the mark: a job that is done is searchable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.bm25 import TantivyLexical
from shards.catalog_postgres import PostgresCatalog
from shards.index import IndexRow, TenantIndexes
from shards.milvus import MilvusVectors
from shards.names import Space, Tier
from shards.probe import AnnQuery
from shards.settings import LexicalSettings, MilvusSettings, ShardSettings
from shards.vectors import VectorStore
from tenants.context import Placement
from tenants.db import Database
from tenants.models import Tenant
from tests.stores.chunk_vectors import DIM, Rng, chunks, unit

TRIES = 60


@pytest.fixture
async def writer(milvus: MilvusSettings) -> AsyncIterator[MilvusVectors]:
    """A process that writes."""
    store = MilvusVectors(milvus)
    yield store
    await store.aclose()


@pytest.fixture
async def reader(milvus: MilvusSettings) -> AsyncIterator[MilvusVectors]:
    """Another that searches: nothing tells it of a write but the mark."""
    store = MilvusVectors(milvus)
    yield store
    await store.aclose()


async def test_a_mark_grows_with_what_is_written(store: VectorStore, space: Space, rng: Rng) -> None:
    marks = [await store.mark(space)]
    for version in range(3):
        await store.insert(space, {0: chunks(rng, [version])})
        marks.append(await store.mark(space))
    assert marks == sorted(marks)


@pytest.mark.parametrize("tier", ["pooled", "dedicated"])
async def test_whoever_knows_the_mark_finds_what_was_written_and_not_what_was_deleted(
    writer: MilvusVectors, reader: MilvusVectors, rng: Rng, tier: Tier
) -> None:
    space = Space(uuid4(), 1, DIM, tier, bucket=4001 if tier == "pooled" else 0)
    await writer.create(space, cells=1)
    for version in range(1, TRIES):
        rows = chunks(rng, [version])
        await writer.insert(space, {0: rows})
        if version % 2:
            await writer.delete_chunks(space, {0: [rows[0].chunk_id]})
        mark = await writer.mark(space)
        found = await reader.search(space, rows[0].vector, k=1, cells=[0], scope=None, mark=mark)
        assert (rows[0].chunk_id in {hit.chunk_id for hit in found}) == (version % 2 == 0), version
        fetched = await reader.fetch(space, {0: [rows[0].chunk_id]}, mark=mark)
        assert len(fetched) == int(version % 2 == 0)
    await writer.drop(space)


class Process:
    """A process of the service with clients of its own."""

    def __init__(self, database: Database, vectors: MilvusVectors, folder: Path) -> None:
        self.database = database
        lexical = TantivyLexical(LexicalSettings(path=folder))
        self.indexes = TenantIndexes(vectors, lexical, ShardSettings(), embedder="e", dim=DIM)

    async def write(self, tenant_id: UUID, row: IndexRow) -> None:
        """Index a chunk, as a job does before it is done."""
        async with self.database.tenant(tenant_id) as session:
            catalog = PostgresCatalog(session, tenant_id)
            await self.indexes.insert(catalog, await self.indexes.open(catalog), [row])
            await session.commit()

    async def found(self, tenant_id: UUID, vector: NDArray[np.float32]) -> list[UUID]:
        """Search, as a question does."""
        async with self.database.tenant(tenant_id) as session:
            live = await self.indexes.live(PostgresCatalog(session, tenant_id))
        assert live is not None
        hits = await self.indexes.search_ann(live, AnnQuery(vector, k=5, wanted=1, target=0.98))
        return [hit.chunk_id for hit in hits.hits]


@pytest.mark.parametrize("tier", ["pooled", "dedicated", "isolated"])
async def test_what_is_committed_is_found_by_the_next_search_of_another_process(
    worker_database: Database,
    app_database: Database,
    writer: MilvusVectors,
    reader: MilvusVectors,
    tmp_path: Path,
    rng: Rng,
    tier: Tier,
) -> None:
    tenant_id, placement = uuid4(), Placement(tier=tier)
    async with worker_database.admin() as session:
        values = {"slug": str(tenant_id), "name": "n", "plan": "p", "state": "active", "placement": tier}
        session.add(Tenant(id=tenant_id, settings={}, **values))
        await session.commit()
    worker, api = Process(worker_database, writer, tmp_path), Process(app_database, reader, tmp_path)
    async with worker_database.tenant(tenant_id) as session:
        await worker.indexes.plan_first(PostgresCatalog(session, tenant_id), placement)
        await session.commit()
    for number in range(1, TRIES):
        row = IndexRow(uuid4(), number, "heading", "text", unit(rng))
        await worker.write(tenant_id, row)
        assert (await api.found(tenant_id, row.vector))[:1] == [row.chunk_id], number
    await writer.drop_tenant(tenant_id)
