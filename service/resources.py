"""Composition: settings -> opened stores. The API and the workers build the same things here."""

from __future__ import annotations

import gc
import importlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from ingestion.objects import Objects
from service.checks import OBJECTS, VECTORS, WORDS, embedding_check, postgres_check, redis_checks, store_check
from service.settings import Settings
from service.startup import Check, Foreseen, all_good
from shards.bm25 import TantivyLexical
from shards.embed import Embedder
from shards.embed_models import EmbedModels
from shards.index import TenantIndexes
from shards.lexical import LexicalStore
from shards.milvus import MilvusVectors
from shards.settings import LexicalSettings
from tenants.db import Database
from tenants.errors import Misconfigured, Unavailable

log = logging.getLogger(__name__)
RoleSetting = Literal["TESSERA_DATABASE_URL", "TESSERA_DATABASE_WORKER_URL"]


@dataclass(frozen=True)
class Stores:
    """The stores beside Postgres, of which none was asked yet."""

    vectors: MilvusVectors
    lexical: LexicalStore
    objects: Objects

    def checks(self) -> Iterator[Check]:
        """Yield a look at each."""
        yield Check("the vector store", self._look_at_vectors, setting=VECTORS)
        yield from store_check("the lexical store", self.lexical, setting=WORDS)
        # Questions are answered without it, and when it is full.
        yield from store_check("the object store", self.objects, needed=False, setting=OBJECTS)

    async def _look_at_vectors(self) -> None:
        """Look at every server of vectors; without one that only isolated tenants have the others are served."""
        try:
            await self.vectors.check()
        except Unavailable as error:
            try:
                await self.vectors.ping()
            except Unavailable:
                raise error from None  # it names the server
            log.warning("starting without a server of vectors: %s", error.detail)


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
async def open_stores(settings: Settings) -> AsyncIterator[Stores]:
    """Make the clients of the stores, close them in the end.

    Raises:
        Misconfigured: a setting cannot be used.
    """
    async with AsyncExitStack() as stack:
        yield Stores(build_vectors(settings, stack), build_lexical(settings, stack), build_objects(settings, stack))


@Foreseen("the vector store", VECTORS)
def build_vectors(settings: Settings, stack: AsyncExitStack) -> MilvusVectors:
    """Make the client of the vector store; the stack closes it."""
    vectors = MilvusVectors(settings.milvus)
    stack.push_async_callback(vectors.aclose)
    return vectors


@Foreseen("the lexical store", WORDS)
def build_lexical(settings: Settings, stack: AsyncExitStack) -> LexicalStore:
    """Make the client of the lexical store; the stack closes it."""
    lexical = lexical_store(settings.lexical)
    stack.push_async_callback(lexical.aclose)
    return lexical


def lexical_store(settings: LexicalSettings) -> LexicalStore:
    """Return the store of words. The client of a server costs half a second to import: only who has one pays."""
    if not settings.url:
        return TantivyLexical(settings)
    store: LexicalStore = importlib.import_module("shards.opensearch").OpenSearchLexical(settings)
    return store


@Foreseen("the object store", OBJECTS)
def build_objects(settings: Settings, _stack: AsyncExitStack) -> Objects:
    """Make the client of the object store, which keeps nothing open."""
    return Objects(settings.objects)


@asynccontextmanager
async def open_resources(settings: Settings, role: RoleSetting) -> AsyncIterator[Resources]:
    """Open everything, refuse servers that the service cannot work with, close everything.

    Args:
        settings: of the process.
        role: which of the database URLs it uses.

    Raises:
        Misconfigured: names the setting that is missing or wrong.
        Unavailable: a server has not answered for `TESSERA_START_PATIENCE_S`.
    """
    url = settings.database.url if role == "TESSERA_DATABASE_URL" else settings.database.worker_url
    _require(settings, role, url)
    async with AsyncExitStack() as stack:
        database = Database(url, settings.database, setting=role)
        stack.push_async_callback(database.aclose)
        stores = await stack.enter_async_context(open_stores(settings))
        checks = [postgres_check(database), *redis_checks(settings.redis), *stores.checks()]
        await all_good(checks, settings.start.patience_s)
        models = EmbedModels(settings.embed)
        stack.push_async_callback(models.aclose)
        await all_good([embedding_check(models)], 0)
        await _warm_up(models.bundled)
        first = models.default
        indexes = TenantIndexes(stores.vectors, stores.lexical, settings.shards, embedder=first.name, dim=first.dim)
        _keep_for_good()
        yield Resources(settings, database, stores.objects, models, models.bundled, indexes)


def _keep_for_good() -> None:
    """Leave what there is by now out of every later garbage collection: modules and models, 240,000 objects that stay.
    A full collection stops the whole process for 0.15 s with them, and for milliseconds without."""
    gc.collect()
    gc.freeze()


async def _warm_up(embedder: Embedder) -> None:
    """Read both forms of the model now, so that the first question and the first document do not wait for it."""
    await embedder.embed_query("warm up")
    await embedder.embed_passages(["warm up"])


def _require(settings: Settings, role: RoleSetting, database_url: str) -> None:
    needed = {
        role: database_url,
        "TESSERA_REDIS_URL": settings.redis.url,
        "TESSERA_MILVUS_URI": settings.milvus.uri,
        "TESSERA_OBJECTS_URL": settings.objects.url,
    }
    for name, value in needed.items():
        if not value:
            raise Misconfigured(f"The setting {name} is missing; `tessera up` sets it for the local stack.")
