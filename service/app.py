"""The HTTP application, built once; its lifespan opens what it needs. `uvicorn --factory service.app:create_app`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from redis.asyncio import Redis

from ingestion import api as ingestion_api
from ingestion import erasure_api, fsck_api, jobs_api, sources_api, upkeep_api, upload_api, versions_api
from ingestion.admission import Admission
from ingestion.job_view import Viewers
from ingestion.queue_order import QueueOrders
from ingestion.sources.vault import Vault
from rag import api as rag_api
from rag.answer.build import build_generator
from rag.chat import Answerer
from rag.pipeline import Retriever
from rag.search.build import build_reranker
from rag.search.places import Places
from rag.withdrawal import is_current
from service import health, metrics, openapi, problems
from service.edge import RequestEdge
from service.resources import open_resources
from service.settings import Settings
from service.wake import Waker
from shards import api as shards_api
from shards import provisioning_api
from shards.usage import UsageWatch
from tenants import api as tenants_api
from tenants.auth import Authenticator
from tenants.cursor import CursorSigner
from tenants.errors import Misconfigured

DESCRIPTION = "A private, always fresh knowledge base with cited answers for each tenant."


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application from settings (by default from the environment)."""
    chosen = settings or Settings()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_state(chosen) as state:
            yield state

    app = FastAPI(title="Tessera", version="1", description=DESCRIPTION, lifespan=lifespan)
    for router in (
        tenants_api.router,
        provisioning_api.router,
        erasure_api.router,
        upload_api.router,
        ingestion_api.router,
        versions_api.router,
        jobs_api.router,
        sources_api.router,
        rag_api.router,
        shards_api.router,
        upkeep_api.router,
        fsck_api.router,
        health.router,
        metrics.router,
    ):
        app.include_router(router)
    problems.install(app)
    openapi.install(app)
    app.add_middleware(RequestEdge, upload_limit=chosen.ingest.max_upload_bytes)
    return app


@asynccontextmanager
async def open_state(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """Open what the routes find in `request.state`."""
    pepper = settings.secret.pepper.get_secret_value()
    if len(pepper) < 32:
        raise Misconfigured("The setting TESSERA_SECRET_PEPPER is missing or shorter than 32 characters.")
    async with open_resources(settings, settings.database.url) as resources:
        redis, waker = Redis.from_url(settings.redis.url), Waker(settings.redis.url)
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        usage = UsageWatch(resources.database, resources.indexes, settings.shards)
        retriever = Retriever(
            database=resources.database,
            indexes=resources.indexes,
            embedder=resources.embedder,
            models=resources.models,
            reranker=build_reranker(settings.search),
            settings=settings.search,
            usage=usage,
            places=Places(
                settings.search.concurrent_per_tenant, settings.search.queue_per_tenant, settings.search.patience_s
            ),
        )
        generator = build_generator(settings.generation, resources.embedder)
        try:
            yield {
                "resources": resources,
                "database": resources.database,
                "objects": resources.objects,
                "indexes": resources.indexes,
                "models": resources.models,
                "usage": usage,
                "redis": redis,
                "waker": waker,
                "pepper": pepper,
                "cursors": CursorSigner(pepper),
                "authenticator": Authenticator(resources.database, pepper=pepper, admin_key=admin_key),
                "ingest_settings": settings.ingest,
                "source_settings": settings.sources,
                "vault": Vault(settings.secret.sources.get_secret_value()),
                "retriever": retriever,
                "answerer": Answerer(retriever, generator, settings.generation.passages),
                "problem": problems.problem,
                "is_current": is_current,
                "signs": partial(health.signs_of_life, redis),
                "admission": Admission(resources.database, settings.ingest),
                "viewers": Viewers(settings.ingest.streams_per_tenant),
                "queue_orders": QueueOrders(),
            }
        finally:
            await usage.aclose()
            await generator.aclose()
            await waker.aclose()
            await redis.aclose()
