"""Will the servers do that were given by settings? The same looks as at the start of the service, all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import partial

from migrations.head import HEAD
from migrations.runner import SETTING as OWNER_SETTING
from migrations.state import SchemaState, schema_state
from rag.answer.check import check_generation
from rag.search.build import build_reranker
from service.checks import (
    EMBEDDING,
    OBJECTS,
    RERANKER,
    VECTORS,
    WORDS,
    embedding_check,
    postgres_check,
    redis_checks,
    reranker_check,
    store_check,
)
from service.local.finding import Finding, good, wrong
from service.redis_check import RedisState
from service.resources import build_lexical, build_objects, build_vectors
from service.settings import Settings
from service.startup import Check, Foreseen, looked
from shards.embed_models import EmbedModels
from tenants.db import Database
from tenants.errors import Misconfigured, TesseraError, Unavailable

NO_EVICTION = "noeviction"
PATIENCE_S = 20.0
_UPGRADE = "run `tessera db upgrade`, or `tessera up` for a local stack"


def with_addresses(settings: Settings, env: Mapping[str, str]) -> Settings:
    """Return the settings with the database and the Redis of a running local stack."""
    urls = {
        "url": env.get("TESSERA_DATABASE_URL", ""),
        "worker_url": env.get("TESSERA_DATABASE_WORKER_URL", ""),
        "owner_url": env.get("TESSERA_DATABASE_OWNER_URL", ""),
    }
    redis = {"url": env.get("TESSERA_REDIS_URL", "")}
    return settings.model_copy(
        update={
            "database": settings.database.model_copy(update=urls),
            "redis": settings.redis.model_copy(update=redis),
        }
    )


async def examine_servers(settings: Settings) -> list[Finding]:
    """Look at every server whose address is given."""
    findings = [finding async for finding in _databases(settings)]
    if settings.database.owner_url:
        findings.append(await _schema(settings.database.owner_url))
    if settings.redis.url:
        findings += [await _redis(check) for check in redis_checks(settings.redis)]
    findings += [finding async for finding in _stores(settings)]
    findings += [finding async for finding in _models(settings)]
    generation = settings.generation
    if generation.base_url or generation.base_urls or generation.models:
        look = partial(check_generation, generation)
        models = Check("the models", look, needed=False, setting="TESSERA_GENERATION_*")
        findings.append(await _finding(models, "models"))
    return findings


async def _databases(settings: Settings) -> AsyncIterator[Finding]:
    urls = {
        "TESSERA_DATABASE_URL": settings.database.url,
        "TESSERA_DATABASE_WORKER_URL": settings.database.worker_url,
    }
    for name, url in urls.items():
        if not url:
            continue
        try:
            database = Database(url, settings.database, setting=name)
        except Misconfigured as error:
            yield wrong("Postgres", error.detail, f"correct {name}")
            continue
        async with aclosing(database):
            role = database.url.username
            yield await _finding(postgres_check(database), f"Postgres as {role}")


async def _schema(owner_url: str) -> Finding:
    look = partial(asyncio.to_thread, schema_state, owner_url)
    try:
        found = await looked(Check("the schema", look, setting=OWNER_SETTING), PATIENCE_S)
    except TesseraError as error:
        return wrong("schema", error.detail, f"correct {OWNER_SETTING}")
    assert isinstance(found, SchemaState)
    if found.pending:
        return wrong("schema", f"version {found.revision or 'none'}, this release has {HEAD}", _UPGRADE)
    return good("schema", f"version {found.revision}")


async def _redis(check: Check) -> Finding:
    subject = "Redis" if check.needed else "Redis cache"
    try:
        found = await looked(check, PATIENCE_S)
    except TesseraError as error:
        return wrong(subject, error.detail, f"correct {check.setting}")
    evicts = isinstance(found, RedisState) and found.policy not in (None, NO_EVICTION)
    if check.needed and evicts:
        return wrong(
            subject,
            f"{found}: messages of the broker may be thrown away when memory is full",
            f"set maxmemory-policy to {NO_EVICTION}, or give the cache a server of its own (TESSERA_REDIS_CACHE_URL)",
        )
    return good(subject, str(found))


async def _stores(settings: Settings) -> AsyncIterator[Finding]:
    given = {
        ("Milvus", VECTORS): (bool(settings.milvus.uri), build_vectors),
        ("words", WORDS): (bool(settings.lexical.model_fields_set), build_lexical),
        ("objects", OBJECTS): (bool(settings.objects.url), build_objects),
    }
    for (subject, setting), (is_given, build) in given.items():
        if not is_given:
            continue
        try:
            async with AsyncExitStack() as stack:
                store = build(settings, stack)
                for check in store_check(subject, store, setting=setting):
                    yield await _finding(check, subject)
        except Misconfigured as error:
            yield wrong(subject, error.detail, f"correct {setting}")


async def _models(settings: Settings) -> AsyncIterator[Finding]:
    """Look at the embedding models and the reranker, where they are others than those that need no setting."""
    if settings.embed.model_fields_set & {"model", "models"}:
        subject = "embedding models"
        try:
            async with aclosing(EmbedModels(settings.embed)) as models:
                yield await _finding(embedding_check(models), subject)
        except Misconfigured as error:
            yield wrong(subject, error.detail, f"correct {EMBEDDING}")
    # A cross-encoder would be loaded beside that of the API, and perhaps not fit.
    if "reranker" in settings.search.model_fields_set and not settings.search.reranker.startswith("cross_encoder:"):
        subject = "reranker"
        try:
            with Foreseen(subject, RERANKER):
                reranker = build_reranker(settings.search)
        except Misconfigured as error:
            yield wrong(subject, error.detail, f"correct {RERANKER}")
            return
        if reranker is not None:
            async with aclosing(reranker):
                yield await _finding(reranker_check(reranker), subject)


async def _finding(check: Check, subject: str) -> Finding:
    try:
        found = await looked(check, PATIENCE_S)
    except Unavailable as error:
        return wrong(subject, error.detail, f"start it, or correct {check.setting}")
    except TesseraError as error:
        return wrong(subject, error.detail, f"correct {check.setting}")
    return good(subject, "answers" if found is None else str(found))
