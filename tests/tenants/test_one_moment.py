"""A session of one moment sees nothing of what others commit meanwhile, and leaves nothing of that to the next."""

from __future__ import annotations

from contextlib import aclosing

from sqlalchemy import text

from tenants.db import Database
from tenants.settings import DatabaseSettings
from tests.tenants.conftest import Place
from tests.tenants.test_poolers import make_tenants

NAME = text("SELECT name FROM tenants")


async def test_two_statements_see_the_same_moment(place: Place) -> None:
    [tenant] = await make_tenants(place, 1)

    async def rename(name: str) -> None:
        async with place.app.admin() as session, session.begin():
            await session.execute(text("UPDATE tenants SET name = :name WHERE id = :id"), {"name": name, "id": tenant})

    await rename("before")
    async with aclosing(Database(place.app_url, DatabaseSettings(pool_size=1))) as database:
        for opened, seen in ((database.one_moment, "before"), (database.tenant, "after")):
            await rename("before")
            async with opened(tenant) as session:
                assert await session.scalar(NAME) == "before"
                await rename("after")
                assert await session.scalar(NAME) == seen
