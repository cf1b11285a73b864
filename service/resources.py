"""Composition: settings -> opened stores. The API and the workers build the same things here."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from ingestion.objects import Objects
from service.settings import Settings
from shards.bm25 import TantivyLexical
from shards.embed import Embedder
from shards.embed_models import EmbedModels
from shards.index import TenantIndexes
from shards.milvus import MilvusVectors
from tenants.db import Database
from tenants.errors import Misconfigured


@dataclass(frozen=True)
class Resources:
    """What one process holds open. `embedder` is the bundled one."""

    settings: Settings
    database: Database
    objects: Objects
    models: EmbedModels
    embedder: Embedder
    indexes: TenantIndexes


@asynccontextmanager
async def open_resources(settings: Settings, database_url: str) -> AsyncIterator[Resources]:
    """Open everything, refuse a database role that row-level security does not bind, close everything.

    Raises:
        Misconfigured: names the setting that is missing or the role that is wrong.
    """
    _require(settings, database_url)
    async with AsyncExitStack() as stack:
        database = Database(database_url, settings.database)
        stack.push_async_callback(database.aclose)
        await database.check_role()
        models = EmbedModels(settings.embed)
        stack.push_async_callback(models.aclose)
        await _warm_up(models.bundled)
        vectors = MilvusVectors(settings.milvus)
        stack.push_async_callback(vectors.aclose)
        lexical = TantivyLexical(settings.lexical)
        stack.push_async_callback(lexical.aclose)
        first = models.default
        indexes = TenantIndexes(vectors, lexical, settings.shards, embedder=first.name, dim=first.dim)
        _keep_for_good()
        yield Resources(settings, database, Objects(settings.objects.url), models, models.bundled, indexes)


def _keep_for_good() -> None:
    """Leave what there is by now out of every later garbage collection: modules and models, 240,000 objects that stay.
    A full collection stops the whole process for 0.15 s with them, and for milliseconds without."""
    gc.collect()
    gc.freeze()


async def _warm_up(embedder: Embedder) -> None:
    """Read both forms of the model now, so that the first question and the first document do not wait for it."""
    await embedder.embed_query("warm up")
    await embedder.embed_passages(["warm up"])


def _require(settings: Settings, database_url: str) -> None:
    needed = {
        "TESSERA_DATABASE_URL (API) or TESSERA_DATABASE_WORKER_URL (workers)": database_url,
        "TESSERA_REDIS_URL": settings.redis.url,
        "TESSERA_MILVUS_URI": settings.milvus.uri,
        "TESSERA_OBJECTS_URL": settings.objects.url,
    }
    for name, value in needed.items():
        if not value:
            raise Misconfigured(f"The setting {name} is missing; `tessera up` sets it for the local stack.")
