"""The HTTP application, built once; its lifespan opens what it needs. `service/serve.py` serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI

from ingestion import api as ingestion_api
from ingestion import erasure_api, fsck_api, jobs_api, sources_api, upkeep_api, upload_api, versions_api
from ingestion.admission import Admission
from ingestion.job_view import Viewers
from ingestion.queue_order import QueueOrders
from ingestion.queues import ModelQueues, QueueWatch
from ingestion.sources.vault import Vault
from rag import api as rag_api
from rag.withdrawal import is_current
from service import health, metrics, openapi, problems, worker_seconds
from service.alive import process_name, served_queues
from service.drain import Drain
from service.edge import RequestEdge
from service.read_line import open_read_line
from service.redis_access import broker_address, cache_address, connected_async
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
from tenants.local_places import LocalPlaces
from tenants.shared_places import SharedPlaces

_PLACES_S = 0.5
"""Longest that a request waits for Redis to count its place; then this process counts for itself."""
_FILTERS_S = 10.0
"""Longest that a list by a filter waits for others of its tenant."""
DESCRIPTION = "A private, always fresh knowledge base with cited answers for each tenant."


def create_app(settings: Settings | None = None, drain: Drain | None = None) -> FastAPI:
    """Build the application from settings (by default from the environment); `drain` tells when it leaves."""
    chosen, leaving = settings or Settings(), drain or Drain()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with open_state(chosen) as state:
            yield {**state, "drain": leaving, "closing": leaving.closing}

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
    app.add_middleware(RequestEdge, upload_limit=chosen.ingest.max_upload_bytes, drain=leaving)
    return app


@asynccontextmanager
async def open_state(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """Open what the routes find in `request.state`."""
    pepper = settings.secret.pepper.get_secret_value()
    if len(pepper) < 32:
        raise Misconfigured("The setting TESSERA_SECRET_PEPPER is missing or shorter than 32 characters.")
    async with open_resources(settings, "TESSERA_DATABASE_URL") as resources:
        cache = cache_address(settings.redis)
        places = SharedPlaces(connected_async(cache, _PLACES_S), cache.prefix)
        redis, waker = connected_async(cache), Waker(broker_address(settings.redis))
        admin_key = settings.admin_key.get_secret_value() if settings.admin_key else None
        usage = UsageWatch(resources.database, resources.indexes, settings.shards)
        queues = ModelQueues.of(settings.embed)
        try:
            async with open_read_line(settings, resources, usage=usage, shared=places, secret=pepper) as answerer:
                yield {
                    "process_name": process_name("api", settings.process),
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
                    "retriever": answerer.retriever,
                    "answerer": answerer,
                    "generation_models": answerer.generator.choice.names,
                    "problem": problems.problem,
                    "is_current": is_current,
                    "worker_seconds": partial(worker_seconds.read, redis, cache),
                    "signs": partial(health.signs_of_life, redis, cache),
                    "admission": Admission(resources.database, settings.ingest),
                    "filter_places": LocalPlaces(settings.ingest.filters_per_tenant, _FILTERS_S, "filters"),
                    "viewers": Viewers(settings.ingest.streams_per_tenant, places),
                    "queue_orders": QueueOrders(),
                    "queue_watch": QueueWatch(queues, partial(served_queues, redis, cache, queues.names)),
                }
        finally:
            await usage.aclose()
            await waker.aclose()
            await places.aclose()
            await redis.aclose()
