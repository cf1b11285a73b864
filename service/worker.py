"""The Celery worker: `celery -A service.worker worker --pool threads`.

One process opens its resources once; its tasks share them in one event loop. So while one batch waits for the disk,
Postgres or Milvus, another is parsed and embedded, and a small upload need not wait for the end of a large one.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import Any

from celery.signals import setup_logging, task_postrun, worker_init, worker_ready, worker_shutdown, worker_shutting_down

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
from service import worker_seconds
from service.alive import SignOfLife, worker_role
from service.broker import make_celery
from service.queues_read import queues_read
from service.quotes import StoredQuotes
from service.redis_access import broker_address, cache_address
from service.resources import open_resources
from service.settings import Settings
from service.startup import Refusing, refuse
from service.wake import Waker
from tenants.errors import TesseraError, Unavailable

log = logging.getLogger(__name__)
try:
    settings = Settings()
except TesseraError as wrong:
    refuse("worker", wrong)
app = make_celery(broker_address(settings.redis))
_queues: list[str] = []
_stack = AsyncExitStack()
_signs: list[SignOfLife] = []
_ANSWER_S = 20.0
"""An event loop that needs longer to get round hangs."""
assert METADATA.tables, "erasing a tenant goes through every table, so every model must be known here"


@setup_logging.connect
def _log(**_: Any) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")


@worker_ready.connect
def _ready(**_: Any) -> None:
    cache = cache_address(settings.redis)
    role, *also = map(worker_role, _queues)
    _signs.append(SignOfLife(cache, role, settings.process, lambda: Shell.answers(_ANSWER_S), also=also))


@worker_init.connect
def _open(**_: Any) -> None:
    with Refusing("worker"):  # Celery would log an error and go on without resources
        _queues[:] = queues_read(settings)
        app.amqp.queues.select(_queues)
        Shell.open(_open_runtime())


@worker_shutting_down.connect
def _leave(**_: Any) -> None:
    """SIGTERM: Celery takes no more messages and waits for its tasks; those end soon, or hand back what they have."""
    Shell.leave(settings.ingest.drain_s)


@worker_shutdown.connect
def _close(**_: Any) -> None:
    for sign in _signs:
        sign.stop()
    Shell.close(_stack.aclose())


async def _open_runtime() -> Runtime:
    resources = await _stack.enter_async_context(open_resources(settings, "TESSERA_DATABASE_WORKER_URL"))
    forget_own_store()
    await _stack.enter_async_context(worker_seconds.written(cache_address(settings.redis), resources.models))
    if settings.ingest.queues:  # it is there for their models; others load one when they first need it
        try:
            await resources.models.load(_queues)
        except Unavailable as error:
            log.warning("what needs it waits: %s", error.detail)
    if settings.ingest.sole_worker:
        async with resources.database.dispatcher() as session, session.begin():
            await return_lost(session, all_of_it=True)
    parsers = ParserPool(ParseLimits.from_settings(settings.ingest))
    _stack.push_async_callback(parsers.aclose)
    await parsers.start()
    background = Background(settings.sources.runs_at_once, settings.sources.runs_per_tenant)
    _stack.push_async_callback(background.aclose)
    waker = Waker(broker_address(settings.redis))
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
