"""Which servers a process needs, and what each must be able to do; the start and `tessera doctor` ask the same."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, Protocol, runtime_checkable

from migrations.head import HEAD
from rag.search.rerank import Reranker
from service.redis_access import RedisAddress, broker_address, cache_address
from service.redis_check import RedisState, check_redis, refuse_version
from service.startup import Check
from shards.embed_models import EmbedModels
from tenants.db import Database
from tenants.postgres_check import check_postgres
from tenants.settings import RedisSettings

VECTORS, WORDS, OBJECTS = "TESSERA_MILVUS_*", "TESSERA_LEXICAL_*", "TESSERA_OBJECTS_*"
EMBEDDING, RERANKER = "TESSERA_EMBED_MODEL, TESSERA_EMBED_MODELS", "TESSERA_SEARCH_RERANK*"
"""The settings of what is looked at."""


@runtime_checkable
class Checked(Protocol):
    """A store that can say whether it will do."""

    async def check(self) -> None:
        """Raise `Misconfigured` when it never will, `Unavailable` when it does not answer."""


def postgres_check(database: Database) -> Check:
    """Look at Postgres as one role."""
    return Check("Postgres", partial(check_postgres, database, HEAD), setting=database.setting)


def redis_checks(settings: RedisSettings) -> Iterator[Check]:
    """Look at the broker, and at the cache where it is another server. Without a cache the service starts."""
    broker, cache = broker_address(settings), cache_address(settings)
    yield Check("the broker", partial(_redis, broker, "broker"), setting=broker.setting)
    if cache != broker:
        yield Check("the cache", partial(_redis, cache, "cache"), needed=False, setting=cache.setting)


def store_check(subject: str, store: object, *, needed: bool = True, setting: str = Check.setting) -> Iterator[Check]:
    """Look at a store that can be asked."""
    if isinstance(store, Checked):
        yield Check(subject, store.check, needed, setting)


def embedding_check(models: EmbedModels) -> Check:
    """Try each declared embedding model. What needs one that is away waits, or is found by words."""
    return Check("the embedding models", models.check, needed=False, setting=EMBEDDING)


def reranker_check(reranker: Reranker) -> Check:
    """Try the reranker. While it is away the order is that of the fusion."""
    return Check("the reranker", reranker.check, needed=False, setting=RERANKER)


async def _redis(address: RedisAddress, use: Literal["broker", "cache"]) -> RedisState:
    found = await check_redis(address, use)
    refuse_version(found, address)
    return found
