"""The Celery worker: `celery -A service.worker worker`. Each child process opens its resources once."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Any

from celery.signals import setup_logging, worker_process_init, worker_process_shutdown, worker_ready, worker_shutdown
from redis import Redis

from ingestion.parse.sandbox import ParseLimits, ParserPool
from ingestion.runtime import Runtime
from ingestion.tasks import Shell
from migrations.tables import METADATA
from service.alive import keep_alive
from service.broker import make_celery
from service.resources import open_resources
from service.settings import Settings

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


@worker_shutdown.connect
def _stop_signs(**_: Any) -> None:
    for stopped in _signs:
        stopped.set()


@worker_process_init.connect
def _open(**_: Any) -> None:
    Shell.loop = asyncio.new_event_loop()
    asyncio.set_event_loop(Shell.loop)
    Shell.runtime = Shell.loop.run_until_complete(_open_runtime())


@worker_process_shutdown.connect
def _close(**_: Any) -> None:
    Shell.loop.run_until_complete(_stack.aclose())
    Shell.loop.close()


async def _open_runtime() -> Runtime:
    resources = await _stack.enter_async_context(open_resources(settings, settings.database.worker_url))
    parsers = ParserPool(ParseLimits.from_settings(settings.ingest))
    _stack.push_async_callback(parsers.aclose)
    await parsers.start()
    return Runtime(
        database=resources.database,
        objects=resources.objects,
        indexes=resources.indexes,
        embedder=resources.embedder,
        parsers=parsers,
        settings=settings.ingest,
    )
