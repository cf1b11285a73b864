"""The budget of partitions, counted on the real Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from shards.catalog import Recipe
from shards.catalog_postgres import PostgresCatalog
from shards.names import Space, Tier
from shards.room import require_room, rooms
from shards.vectors import Budget
from tenants import repository
from tenants.context import Placement
from tenants.errors import InvalidRequest, NoRoom

if TYPE_CHECKING:
    from tenants.db import Database

PLENTY = {name: Budget(10**6, 63) for name in ("", "eu", "full")}


async def create(database: Database, tier: str, endpoint: str = "") -> UUID:
    async with database.admin() as session, session.begin():
        placement = Placement.model_validate({"tier": tier, "endpoint": endpoint})
        tenant, _ = await repository.create_tenant(
            session, slug=uuid4().hex, name="n", plan="p", settings={}, placement=placement
        )
        return tenant.id


async def index(
    database: Database, tenant: UUID, tier: Tier, number: int = 1, *, cells: int = 1, **where: object
) -> None:
    async with database.tenant(tenant) as session, session.begin():
        space = Space(tenant, number, 7, tier, **where)  # type: ignore[arg-type]  # bucket or endpoint
        state = "live" if number == 1 else "building"
        await PostgresCatalog(session, tenant).plan(space, state=state, recipe=Recipe("e"), edition=1, cells=cells)


async def taken(database: Database) -> dict[str, tuple[int, int]]:
    async with database.admin() as session:
        return {name: (room.partitions, room.databases) for name, room in (await rooms(session, PLENTY)).items()}


async def test_partitions_are_counted_as_the_engines_have_them(
    app_database: Database, worker_database: Database
) -> None:
    partitions, databases = (await taken(app_database))[""]
    large = await create(app_database, "auto")
    await index(worker_database, large, "dedicated", cells=40)
    assert (await taken(app_database))[""] == (partitions + 41, databases)
    await index(worker_database, large, "dedicated", 2, cells=50)
    assert (await taken(app_database))[""] == (partitions + 92, databases), "what is being built counts"
    for bucket in (0, 0, 1, 64, 64):
        await index(worker_database, await create(app_database, "auto"), "pooled", bucket=bucket)
    assert (await taken(app_database))[""] == (partitions + 92 + 3 + 2, databases), "three buckets of two collections"
    promised = await create(app_database, "dedicated")
    assert (await taken(app_database))[""] == (partitions + 99, databases), "and what was promised"
    await index(worker_database, promised, "dedicated")
    assert (await taken(app_database))[""] == (partitions + 99, databases), "once"
    await create(app_database, "isolated", "eu")
    assert (await taken(app_database))["eu"] == (2, 1)
    async with worker_database.dispatcher() as session:
        seen = {name: (room.partitions, room.databases) for name, room in (await rooms(session, PLENTY)).items()}
    assert seen == await taken(app_database), "the workers count the same"


@pytest.mark.parametrize("tier", ["auto", "pooled", "dedicated", "isolated"])
async def test_a_tenant_without_room_is_refused_with_what_to_do(app_database: Database, tier: str) -> None:
    placement = Placement.model_validate({"tier": tier})
    used = (await taken(app_database))[""][0]
    needed = 2 if tier in ("dedicated", "isolated") else 1
    for budget, fits in ((used + needed, True), (used + needed - 1, False)):
        async with app_database.admin() as session:
            await repository.create_tenant(
                session, slug=uuid4().hex, name="n", plan="p", settings={}, placement=placement
            )
            if fits:
                await require_room(session, {"": Budget(budget, 63)}, placement)
                continue
            with pytest.raises(NoRoom, match="TESSERA_MILVUS_PARTITION_BUDGET") as caught:
                await require_room(session, {"": Budget(budget, 63)}, placement)
            assert (caught.value.status, caught.value.retryable) == (507, False)
    assert (await taken(app_database))[""][0] == used, "what was refused was not made"


async def test_databases_are_few(app_database: Database) -> None:
    there = Placement(tier="isolated", endpoint="full")
    for _ in range(PLENTY["full"].databases):
        await create(app_database, "isolated", "full")
    async with app_database.admin() as session:
        await require_room(session, PLENTY, there)
        await repository.create_tenant(session, slug=uuid4().hex, name="n", plan="p", settings={}, placement=there)
        with pytest.raises(NoRoom, match="databases"):
            await require_room(session, PLENTY, there)


async def test_where_there_are_no_databases_an_endpoint_takes_one_isolated_tenant_and_the_main_server_none(
    app_database: Database,
) -> None:
    few = {"": Budget(10**6, 0), "own": Budget(10**6, 1)}
    async with app_database.admin() as session:
        for endpoint, there in (("own", 1), ("", 0)):
            placement = Placement(tier="isolated", endpoint=endpoint)
            for number in range(there + 1):
                await repository.create_tenant(
                    session, slug=uuid4().hex, name="n", plan="p", settings={}, placement=placement
                )
                if number < there:
                    await require_room(session, few, placement)
                    continue
                with pytest.raises(NoRoom, match="TESSERA_MILVUS_ENDPOINTS"):
                    await require_room(session, few, placement)


async def test_an_unknown_server_is_refused_naming_those_there_are(app_database: Database) -> None:
    async with app_database.admin() as session:
        with pytest.raises(InvalidRequest) as caught:
            await require_room(session, PLENTY, Placement(tier="isolated", endpoint="moon"))
    assert "'eu', 'full'" in caught.value.fields[0].detail
