"""The stores of the running stack, opened beside it, so that a test can damage them behind the service's back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import SecretStr
from sqlalchemy import text

from ingestion.objects import Objects
from service.resources import lexical_store
from shards.catalog import Header
from shards.catalog_postgres import PostgresCatalog
from shards.lexical import LexicalStore
from shards.milvus import MilvusVectors
from shards.names import lexical_name
from shards.settings import LexicalSettings, MilvusSettings
from shards.vectors import HeldRow
from tenants.db import Database
from tenants.settings import DatabaseSettings, ObjectSettings

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess

GRACE_IS_OVER = (
    "UPDATE index_generations SET retired_at = now() - interval '1 hour' WHERE state = 'retired'",
    "UPDATE jobs SET not_before = now() WHERE kind = 'drop_generation' AND state = 'queued' AND NOT EXISTS"
    " (SELECT FROM index_generations WHERE state = 'retired' AND retired_at > now() - interval '30 minutes')",
)
"""Statements that let the time that readers have be over, for the tenant in scope.

Each is its own transaction, since a worker locks the rows in another order; what was retired between the two keeps its
job waiting, which would find nothing to drop yet.
"""


@dataclass(frozen=True)
class Stores:
    """Every store, as the worker opens it."""

    database: Database
    vectors: MilvusVectors
    lexical: LexicalStore
    objects: Objects

    async def live(self, tenant: TenantAccess) -> Header:
        """Return the tenant's live generation."""
        async with self.database.tenant(UUID(tenant.id)) as session:
            header = await PostgresCatalog(session, UUID(tenant.id)).live()
        assert header is not None
        return header

    async def rows(self, tenant: TenantAccess) -> list[HeldRow]:
        """Return the tenant's rows in Milvus."""
        space = (await self.live(tenant)).space
        return [row async for page in self.vectors.held_rows(space) for row in page]

    async def chunks(self, tenant: TenantAccess, document_id: str) -> list[UUID]:
        """Return the chunk ids of a document."""
        found = await self.sql(tenant, "SELECT id FROM chunks WHERE document_id = :document", document=document_id)
        return [row.id for row in found]

    async def sql(self, tenant: TenantAccess, statement: str, **values: Any) -> list[Any]:
        """Run a statement as the worker, in the tenant's scope."""
        async with self.database.tenant(UUID(tenant.id)) as session, session.begin():
            result = await session.execute(text(statement), values)
            return list(result.all()) if result.returns_rows else []

    @staticmethod
    def index(tenant: TenantAccess) -> str:
        """Return the name of the tenant's lexical index."""
        return lexical_name(UUID(tenant.id))


def object_settings(env: Mapping[str, str]) -> ObjectSettings:
    """Return where the originals are that the environment of a stack names."""
    prefix = "TESSERA_OBJECTS_"
    given = {name.removeprefix(prefix).lower(): value for name, value in env.items() if name.startswith(prefix)}
    return ObjectSettings.model_validate(given)


def words_of(stack: StackState) -> LexicalStore:
    """Open the lexical store of a running stack."""
    names = ("path", "url", "prefix")
    values = {name: stack.env[f"TESSERA_LEXICAL_{name.upper()}"] for name in names}
    return lexical_store(LexicalSettings.model_validate(values))


def index_folder(stack: StackState, index: str) -> Path:
    """Return the folder of a lexical index, to be damaged; skip the test where the words are on a server."""
    if stack.env["TESSERA_LEXICAL_URL"]:
        pytest.skip("there is no folder to damage: the words are on a server")
    return Path(stack.env["TESSERA_LEXICAL_PATH"]) / index


@asynccontextmanager
async def opened(stack: StackState) -> AsyncIterator[Stores]:
    """Open the stores of a running stack."""
    env = stack.env
    database = Database(env["TESSERA_DATABASE_WORKER_URL"], DatabaseSettings(pool_size=3))
    login = SecretStr(env.get("TESSERA_MILVUS_TOKEN", ""))
    vectors = MilvusVectors(MilvusSettings(uri=env["TESSERA_MILVUS_URI"], token=login))
    lexical = words_of(stack)
    yield Stores(database, vectors, lexical, Objects(object_settings(env)))
    await vectors.aclose()
    await lexical.aclose()
    await database.aclose()


async def fsck(admin: httpx.AsyncClient, tenant: TenantAccess | None = None, **body: Any) -> dict[str, Any]:
    """Check a tenant's stores, or the whole installation's, and return the report."""
    wanted = body | ({"tenant_id": tenant.id} if tenant is not None else {})
    answer = await admin.post("/v1/admin/fsck", json=wanted)
    assert answer.status_code == 202, answer.text
    for _ in range(1200):
        job: dict[str, Any] = (await admin.get(answer.headers["location"])).json()
        if job["state"] in ("done", "failed", "cancelled"):
            break
        await asyncio.sleep(0.05)
    assert job["state"] == "done", job
    result: dict[str, Any] = job["result"]
    return result


async def finds(admin: httpx.AsyncClient, tenant: TenantAccess, expected: dict[str, dict[str, int]]) -> None:
    """Assert that a check finds exactly this, that a repair mends it, and that nothing is left then."""
    seen = await fsck(admin, tenant, deep=True)
    assert seen["differences"] == expected, seen
    mended = await fsck(admin, tenant, repair=True, deep=True)
    assert (mended["differences"], mended["left"]) == (expected, {}), mended
    assert (await fsck(admin, tenant, deep=True))["total"] == 0


def unit_vector(dim: int) -> NDArray[np.float32]:
    made = np.zeros(dim, dtype=np.float32)
    made[0] = 1.0
    return made
