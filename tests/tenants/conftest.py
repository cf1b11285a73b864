"""Databases reached directly and through PgBouncer, for what must hold on both."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from tenants.db import Database
from tenants.roles import APP, WORKER
from tenants.settings import DatabaseSettings
from tests.clusters import Cluster
from tests.pgbouncer import PgBouncer

if TYPE_CHECKING:
    from tests.conftest import DatabaseUrls

POOL_OF_TEN, POOL_OF_ONE = 10, 1


@dataclass(frozen=True)
class Place:
    """A migrated database as the service reaches it, and as an operator does."""

    app_url: str
    worker_url: str
    superuser: str
    """Past any pooler."""
    pooled: bool
    app: Database
    worker: Database

    async def aclose(self) -> None:
        """Close the connections."""
        await self.app.aclose()
        await self.worker.aclose()


@dataclass(frozen=True)
class Pooled:
    """A database on a Postgres 15, to be reached through poolers."""

    cluster: Cluster
    urls: dict[str, str]

    def pooler(self, size: int) -> PgBouncer:
        """Return a PgBouncer before the server, not started."""
        words = {role: make_url(url).password or "" for role, url in self.urls.items()}
        return PgBouncer(Path(tempfile.mkdtemp(prefix="pgbouncer-")), self.cluster.port, words, size)

    def through(self, pooler: PgBouncer) -> Place:
        """Return the place as it is reached through a pooler."""
        app, worker = (
            make_url(self.urls[role]).set(port=pooler.port).render_as_string(hide_password=False)
            for role in (APP, WORKER)
        )
        return place_at(app, worker, self.urls["postgres"], pooled=True)


def place_at(app: str, worker: str, superuser: str, *, pooled: bool) -> Place:
    """Return a place with connections opened when they are needed."""
    settings = DatabaseSettings()
    return Place(
        app,
        worker,
        superuser,
        pooled,
        Database(app, settings),
        Database(worker, settings, setting="TESSERA_DATABASE_WORKER_URL"),
    )


@pytest.fixture(scope="session")
def pooled(postgres15: Cluster) -> Pooled:
    """A migrated database on the Postgres 15."""
    return Pooled(postgres15, postgres15.prepared("pooled"))


@pytest.fixture(scope="session")
def pooler_of_ten(pooled: Pooled) -> Iterator[PgBouncer]:
    """A PgBouncer that keeps running."""
    yield from running(pooled.pooler(POOL_OF_TEN))


@pytest.fixture
def pooler_of_one(pooled: Pooled) -> Iterator[PgBouncer]:
    """A PgBouncer with one connection of the server for each role."""
    yield from running(pooled.pooler(POOL_OF_ONE))


def running(pooler: PgBouncer) -> Iterator[PgBouncer]:
    """Start a pooler, and end it afterwards."""
    pooler.start()
    yield pooler
    pooler.close()


@pytest.fixture(params=["direct", "pooled"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    """A database reached directly, and one behind PgBouncer in transaction mode."""
    if request.param == "direct":
        own: DatabaseUrls = request.getfixturevalue("own_database")
        port = make_url(own.superuser).port  # past the pooler that a stack on servers has
        app, worker = (
            make_url(url).set(port=port).render_as_string(hide_password=False) for url in (own.app, own.worker)
        )
        found = place_at(app, worker, own.superuser, pooled=False)
    else:
        pooled: Pooled = request.getfixturevalue("pooled")
        found = pooled.through(request.getfixturevalue("pooler_of_ten"))
    yield found
    await found.aclose()
