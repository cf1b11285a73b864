"""Where the next edition of a tenant is begun, and what becomes of one that was begun before."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from ingestion import jobs, reembed_jobs
from ingestion.models import Job
from ingestion.reembed_tasks import _begun
from shards import editions
from shards.catalog import Header, Recipe
from shards.catalog_postgres import PostgresCatalog
from shards.names import Space
from shards.placement import space_of
from shards.settings import ShardSettings
from tenants.db import Database
from tenants.models import Tenant

DIM = 8
SETTINGS = ShardSettings()


@dataclass
class Shop:
    """A tenant with a live generation, and a worker that begins slices of its move."""

    database: Database
    id: UUID = field(default_factory=uuid4)
    made: list[Space] = field(default_factory=list)

    async def create(self, space: Space, *, cells: int) -> None:
        """Be the vector store."""
        self.made.append(space)

    async def slice(self) -> Header | None:
        """Give the job out and begin a slice of it."""
        batch_id = uuid4()
        async with self.database.tenant(self.id) as session, session.begin():
            await session.execute(update(Job).where(Job.kind == "reembed").values(batch_id=batch_id))
            lease = timedelta(seconds=30)
            found = await jobs.claim(session, self.id, batch_id, lease=lease, max_attempts=9)
        indexes = SimpleNamespace(vectors=self, settings=SETTINGS, first_recipe=Recipe("m"))
        models = SimpleNamespace(facts=lambda _: SimpleNamespace(dim=DIM))
        runtime: Any = SimpleNamespace(database=self.database, indexes=indexes, models=models)
        batch: Any = SimpleNamespace(tenant_id=self.id, batch_id=batch_id, jobs=found)
        return await _begun(runtime, batch)

    async def place(self, tier: str) -> None:
        """Do what the operator does."""
        async with self.database.admin() as session, session.begin():
            await session.execute(update(Tenant).where(Tenant.id == self.id).values(placement=tier))

    async def move(self, tier: str) -> None:
        """Do what the upkeep does then."""
        async with self.database.tenant(self.id) as session, session.begin():
            await self.live(session, tier)

    async def live(self, session: Any, tier: Any) -> None:
        catalog = PostgresCatalog(session, self.id)
        await catalog.retire("live")
        space = space_of(self.id, await catalog.last_number() + 1, DIM, tier, "", SETTINGS)
        await catalog.plan(space, state="live", recipe=Recipe("m"), edition=1)
        await catalog.add_micros(space.generation, editions.empty_micros(DIM))

    async def drops(self) -> int:
        async with self.database.tenant(self.id) as session:
            mine = (Job.tenant_id == self.id, Job.kind == "drop_generation")
            return await session.scalar(select(func.count()).select_from(Job).where(*mine)) or 0

    async def job(self) -> Job:
        async with self.database.tenant(self.id) as session:
            return await reembed_jobs.unfinished(session, self.id)


@pytest.fixture
async def shop(worker_database: Database) -> Shop:
    made = Shop(worker_database)
    async with worker_database.admin() as session, session.begin():
        values = {"name": "n", "plan": "p", "state": "active", "placement": "auto", "settings": {}}
        session.add(Tenant(id=made.id, slug=str(made.id), **values))
    async with worker_database.tenant(made.id) as session, session.begin():
        await made.live(session, "pooled")
        await reembed_jobs.ask(session, made.id, {"embedding_model": "other"})
    return made


async def test_a_move_goes_on_where_it_was_begun(shop: Shop) -> None:
    first = await shop.slice()
    assert first is not None
    assert (first.space.tier, await shop.drops()) == ("pooled", 0)
    again = await shop.slice()
    assert again is not None
    assert (again.number, await shop.drops()) == (first.number, 0)
    await shop.place("dedicated")  # the live one is not moved yet: the upkeep moves both, one after the other
    again = await shop.slice()
    assert again is not None
    assert again.number == first.number


@pytest.mark.parametrize("moved", [False, True])
async def test_nothing_more_of_a_tenant_that_is_to_be_isolated_goes_into_the_pool(shop: Shop, moved: bool) -> None:
    first = await shop.slice()
    assert first is not None
    async with shop.database.tenant(shop.id) as session, session.begin():
        job = await reembed_jobs.unfinished(session, shop.id)
        job.payload, job.progress = job.payload | {"cursor": 7, "documents": 40}, 0.5
    await shop.place("isolated")
    if moved:
        await shop.move("isolated")
    again = await shop.slice()
    assert again is not None
    assert (again.space.tier, again.number > first.number) == ("isolated", True)
    job = await shop.job()
    assert (job.payload["generation"], job.payload["cursor"], job.payload["documents"]) == (again.number, 0, 0)
    assert (job.progress, await shop.drops()) == (0.0, 1), "what was begun in the pool is dropped"
    async with shop.database.tenant(shop.id) as session:
        [kept] = await PostgresCatalog(session, shop.id).generations("embedding")
    assert kept.number == again.number
    assert [space.tier for space in shop.made] == ["pooled", "isolated"]
    last = await shop.slice()
    assert last is not None
    assert last.number == again.number, "once"


async def test_a_tenant_that_left_its_isolation_is_not_brought_back(shop: Shop) -> None:
    await shop.place("isolated")
    await shop.move("isolated")
    first = await shop.slice()
    assert first is not None
    await shop.place("auto")
    await shop.move("pooled")
    again = await shop.slice()
    assert again is not None
    assert (first.space.tier, again.space.tier) == ("isolated", "pooled")


async def test_what_was_made_of_a_cancelled_move_is_dropped_by_the_next_one(shop: Shop) -> None:
    """The drop that cancelling queued may come when the next move is under way, and finds nothing to give up."""
    first = await shop.slice()
    assert first is not None
    async with shop.database.tenant(shop.id) as session, session.begin():
        await session.execute(update(Job).where(Job.kind == "reembed").values(state="cancelled", batch_id=None))
        await reembed_jobs.ask(session, shop.id, {"chunk_tokens": 40})
    assert await shop.drops() == 0
    again = await shop.slice()
    assert again is not None
    assert (again.number > first.number, await shop.drops()) == (True, 1)
