"""The Celery worker: `celery -A service.worker worker --pool threads`.

One process opens its resources once; its tasks share them in one event loop. So while one batch waits for the disk,
Postgres or Milvus, another is parsed and embedded, and a small upload need not wait for the end of a large one.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import Any

from celery.signals import setup_logging, task_postrun, worker_init, worker_ready, worker_shutdown
from redis import Redis

from ingestion.job_queue import return_lost
from ingestion.parse.limits import ParseLimits
from ingestion.parse.sandbox import ParserPool
from ingestion.runtime import Runtime, SlowPlaces
from ingestion.sources.background import Background
from ingestion.sources.connect import SourceTools
from ingestion.sources.settings import forget_own_store
from ingestion.sources.vault import Vault
from ingestion.tasks import Shell
from migrations.tables import METADATA
from service.alive import keep_alive
from service.broker import make_celery
from service.quotes import StoredQuotes
from service.resources import open_resources
from service.settings import Settings
from service.wake import Waker
from tenants.errors import TesseraError

settings = Settings()
app = make_celery(settings.redis.url)
_stack = AsyncExitStack()
_signs: list[Any] = []
assert METADATA.tables, "erasing a tenant goes through every table, so every model must be known here"


@setup_logging.connect
def _log(**_: Any) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")


@worker_ready.connect
def _ready(**_: Any) -> None:
    _signs.append(keep_alive(Redis.from_url(settings.redis.url), "worker"))


@worker_init.connect
def _open(**_: Any) -> None:
    try:
        Shell.open(_open_runtime())
    except TesseraError as error:
        # Celery would log it and go on without resources.
        raise SystemExit(f"The worker cannot start: {error.detail}") from error


@worker_shutdown.connect
def _close(**_: Any) -> None:
    for stopped in _signs:
        stopped.set()
    Shell.close(_stack.aclose())


async def _open_runtime() -> Runtime:
    resources = await _stack.enter_async_context(open_resources(settings, settings.database.worker_url))
    forget_own_store()
    if settings.ingest.sole_worker:
        async with resources.database.dispatcher() as session, session.begin():
            await return_lost(session, all_of_it=True)
    parsers = ParserPool(ParseLimits.from_settings(settings.ingest))
    _stack.push_async_callback(parsers.aclose)
    await parsers.start()
    background = Background(settings.sources.runs_at_once, settings.sources.runs_per_tenant)
    _stack.push_async_callback(background.aclose)
    waker = Waker(settings.redis.url)
    _stack.push_async_callback(waker.aclose)
    # There is room for another batch, and maybe what this one left to do.
    task_postrun.connect(lambda **_: Shell.loop.call_soon_threadsafe(waker.wake), weak=False)
    return Runtime(
        database=resources.database,
        objects=resources.objects,
        indexes=resources.indexes,
        models=resources.models,
        embedder=resources.embedder,
        parsers=parsers,
        settings=settings.ingest,
        slow=SlowPlaces(settings.ingest.slow_in_flight),
        sources=SourceTools(
            settings.sources, Vault(settings.secret.sources.get_secret_value()), own_objects=settings.objects.url
        ),
        background=background,
        quotes=StoredQuotes(),
        recipe=resources.indexes.first_recipe,
    )
