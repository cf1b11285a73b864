"""Rebuilding a generation beside the live one: whatever is written or deleted meanwhile, it ends as Postgres says."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.memory import MemoryVectors
from shards.names import collection_name
from shards.rebuild import Rebuild
from shards.settings import ShardSettings
from shards.vectors import ChunkVector

DIM = 8
NO_QUESTIONS = np.empty((0, DIM), dtype=np.float32)
SETTINGS = ShardSettings(threshold=10, rows_per_cell=50)


@dataclass
class Corpus:
    """A live generation and what Postgres would hold of it."""

    store: MemoryVectors
    tenant_id: UUID
    collection: str
    chance: random.Random
    stored: dict[UUID, int] = field(default_factory=dict)
    version: int = 0

    async def add(self) -> None:
        self.version += 1
        rows = [ChunkVector(uuid4(), self.version, unit(self.chance)) for _ in range(self.chance.randint(1, 30))]
        await self.store.insert(self.collection, {0: rows})
        self.stored |= dict.fromkeys((row.chunk_id for row in rows), self.version)

    async def remove(self, *others: str) -> None:
        """Delete a version from every generation, as a purge does."""
        gone = self.chance.choice(sorted(set(self.stored.values())))
        for collection in (self.collection, *others):
            await self.store.delete_versions(collection, [gone])
        self.stored = {chunk_id: version for chunk_id, version in self.stored.items() if version != gone}

    async def orphan(self) -> None:
        """Leave rows that Postgres knows nothing of, as a writer that died before its commit does."""
        self.version += 1
        await self.store.insert(self.collection, {0: [ChunkVector(uuid4(), self.version, unit(self.chance))]})


def unit(chance: random.Random) -> NDArray[np.float32]:
    vector = np.array([chance.gauss(0, 1) for _ in range(DIM)], dtype=np.float32)
    normal: NDArray[np.float32] = vector / np.linalg.norm(vector)
    return normal


async def corpus_of(seed: int, versions: int) -> Corpus:
    tenant_id = uuid4()
    made = Corpus(MemoryVectors(), tenant_id, collection_name(tenant_id, 1), random.Random(seed))
    await made.store.create(made.collection, dim=DIM, cells=1)
    for _ in range(versions):
        await made.add()
    return made


def rebuild_of(corpus: Corpus) -> Rebuild:
    name = collection_name(corpus.tenant_id, 2)
    return Rebuild(corpus.store, SETTINGS, live=corpus.collection, number=2, collection=name)


@pytest.mark.parametrize("seed", range(30))
async def test_it_ends_with_what_is_stored(seed: int) -> None:
    corpus = await corpus_of(seed, versions=12)
    rebuilt = rebuild_of(corpus)
    if corpus.chance.random() < 0.3:
        await corpus.orphan()
    await rebuilt.fill(NO_QUESTIONS)
    for _ in range(corpus.chance.randint(1, 4)):
        for _ in range(corpus.chance.randint(0, 6)):
            if corpus.chance.random() < 0.6:
                await corpus.add()
            elif corpus.stored:
                seen = corpus.chance.random() < 0.7  # a purge may come before the collection is known to it
                await corpus.remove(*([rebuilt.collection] if seen else []))
        await rebuilt.catch_up(corpus.stored)
    held = {row.chunk_id: row.version_no async for page in corpus.store.scan(rebuilt.collection) for row in page}
    assert held == corpus.stored
    assert await corpus.store.count(rebuilt.collection) == rebuilt.rows == len(corpus.stored)
    assert await rebuilt.catch_up(corpus.stored) == 0
    for chunk_id in list(corpus.stored)[:5]:
        [vector] = [
            row.vector async for p in corpus.store.scan(corpus.collection) for row in p if row.chunk_id == chunk_id
        ]
        best = int(rebuilt.micros.cell[np.argmax(rebuilt.micros.centroids @ vector)])
        found = await corpus.store.search(rebuilt.collection, vector, k=1, cells=[best], scope=None)
        assert [hit.chunk_id for hit in found] == [chunk_id], "it lies in the cell whose centroid is nearest"


async def test_a_chunk_that_the_live_generation_lacks_is_not_passed_over() -> None:
    corpus = await corpus_of(0, versions=8)
    rebuilt = rebuild_of(corpus)
    await rebuilt.fill(NO_QUESTIONS)
    with pytest.raises(RuntimeError, match="lacks 1 of"):
        await rebuilt.catch_up(corpus.stored | {uuid4(): 999})
