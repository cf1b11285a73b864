"""The scheduler: gives waiting jobs to the workers and tidies up. `python -m service.scheduler`."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import exists, func, select, text, update

from ingestion import regular
from ingestion.dispatch import Dispatcher, Send
from ingestion.jobs import queue_partition, queue_release
from ingestion.queues import COMMON, ModelQueues
from ingestion.settings import IngestSettings
from ingestion.sources.due import queue_due
from service.alive import SignOfLife, readers
from service.broker import BrokerMemory, make_celery
from service.checks import postgres_check, redis_checks
from service.redis_access import RedisAddress, broker_address, cache_address, connected_async
from service.settings import Settings
from service.startup import all_good, refuse
from service.wake import Woken
from shards.index_models import IndexGeneration
from shards.usage_models import IndexUse
from tenants.auth import PLATFORM
from tenants.db import Database
from tenants.errors import TesseraError, Unavailable

log = logging.getLogger(__name__)
_TIDY_EVERY_S = 600.0
_UPKEEP_EVERY_S = 15.0
_SOURCES_EVERY_S = 2.0
_LOOK_EVERY_S = 1.0
"""What is due later, or was not told, is found within this."""
_AWAY_PAUSE_S = 1.0
_COUNT_EVERY_S = 2.0
_REDIS_S = 3.0
_HANGS_S = 60.0
"""No work that the scheduler does itself takes so long, even where a server is away."""
_RELEASES = 100
"""Most collections released at a time."""


@dataclass
class Periodic:
    """Work that comes round: what, and how often; it is due at once when the scheduler starts."""

    every_s: float
    work: Callable[[], Awaitable[object]]
    done_at: float = -math.inf

    async def run_if_due(self, now: float) -> None:
        """Do it when its time has come. What fails is tried again at the next look."""
        if now - self.done_at > self.every_s:
            await self.work()
            self.done_at = now


@dataclass
class Looked:
    """When the scheduler last looked at the queue, by the monotonic clock."""

    at: float

    def lately(self) -> bool:
        """Say whether that is not long ago; one that has not looked for so long hangs."""
        return time.monotonic() - self.at < _HANGS_S


class Workers:
    """How many worker processes read each queue, counted now and then: each takes so many batches at a time."""

    def __init__(self, cache: RedisAddress, queues: ModelQueues) -> None:
        self._redis, self._cache = connected_async(cache, _REDIS_S), cache
        self._queues = (COMMON, *queues.names)
        self._numbers = {COMMON: 1}
        self._counted_at = -math.inf

    async def counted(self) -> Mapping[str, int]:
        """Return the numbers, of the common queue at least 1; the last ones known while Redis is away."""
        now = time.monotonic()
        if now - self._counted_at > _COUNT_EVERY_S:
            with suppress(RedisError, OSError):
                found = await readers(self._redis, self._cache, *self._queues)
                self._numbers, self._counted_at = found | {COMMON: max(1, found[COMMON])}, now
        return self._numbers

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()


def works(database: Database, settings: Settings) -> list[Periodic]:
    """Return what the scheduler does beside giving out jobs."""
    found = [
        Periodic(_UPKEEP_EVERY_S, partial(_queue_upkeep, database)),
        Periodic(_SOURCES_EVERY_S, partial(queue_due, database)),
        Periodic(regular.LOOK_EVERY_S, partial(_queue_regular, database, settings.ingest)),
        Periodic(_TIDY_EVERY_S, partial(_tidy, database)),
        Periodic(regular.FORGET_EVERY_S, partial(_forget_jobs, database, settings.ingest.jobs_kept_days)),
    ]
    if settings.shards.release_after_s:
        found.append(Periodic(_UPKEEP_EVERY_S, partial(_queue_releases, database, settings.shards.release_after_s)))
    return found


async def run(settings: Settings) -> None:
    """Dispatch until SIGTERM or SIGINT."""
    database = Database(settings.database.worker_url, settings.database, setting="TESSERA_DATABASE_WORKER_URL")
    await all_good([postgres_check(database), *redis_checks(settings.redis)], settings.start.patience_s)
    broker, cache = broker_address(settings.redis), cache_address(settings.redis)
    celery = make_celery(broker)
    queues = ModelQueues.of(settings.embed)
    dispatcher = Dispatcher(database, settings.ingest, _sender(celery), queues)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    looked = Looked(time.monotonic())
    sign = SignOfLife(cache, "scheduler", settings.process, looked.lately)
    memory, workers = BrokerMemory(broker), Workers(cache, queues)
    periodic = works(database, settings)
    woken = Woken(broker)
    while not stop.is_set():
        try:
            dispatcher.readers = await workers.counted()
            async with database.sole_scheduler() as alone:
                if alone:
                    await make_good(memory, dispatcher)
                    await dispatcher.tick()
                    for one in periodic:
                        await one.run_if_due(time.monotonic())
        except Unavailable as error:
            log.warning("waiting for a server: %s", error.detail)
            await asyncio.sleep(_AWAY_PAUSE_S)
        looked.at = time.monotonic()
        await woken.wait(stop, least_s=settings.ingest.poll_s, most_s=_LOOK_EVERY_S)
    sign.stop()
    for opened in (woken, memory, workers, database):
        await opened.aclose()


async def make_good(memory: BrokerMemory, dispatcher: Dispatcher) -> None:
    """Give out again what a broker had that came back empty; only then does it count as known.

    Raises:
        Unavailable: the database is away; at the next call the broker's loss is found again.
    """
    if await memory.was_lost():
        returned = await dispatcher.broker_forgot()
        await memory.remember()
        if returned:
            log.warning("the broker has lost its memory: %d jobs are given out again", returned)


def _sender(celery: Celery) -> Send:
    def send(task: str, tenant_id: UUID, batch_id: UUID, queue: str) -> None:
        batch = {"tenant_id": str(tenant_id), "batch_id": str(batch_id)}
        try:
            celery.send_task(task, kwargs=batch, queue=queue, retry=False)
        except OperationalError as error:
            raise Unavailable("The broker does not answer.", code="broker_unavailable") from error

    return send


async def _queue_upkeep(database: Database) -> None:
    """Queue a look at the cells of tenants whose searches asked for it."""
    async with database.dispatcher() as session:
        due = list(await session.scalars(select(IndexUse.tenant_id).where(IndexUse.upkeep_due)))
    for tenant_id in due:
        async with database.tenant(tenant_id) as session, session.begin():
            await queue_partition(session, tenant_id)
            await session.execute(update(IndexUse).values(upkeep_due=False).where(IndexUse.tenant_id == tenant_id))


async def _queue_releases(database: Database, after_s: float) -> None:
    """Queue the release of collections that nobody has used for a while. Those in the pool are shared and stay."""
    own = exists().where(
        IndexGeneration.tenant_id == IndexUse.tenant_id,
        IndexGeneration.state == "live",
        IndexGeneration.tier != "pooled",
    )
    unused = IndexUse.used_at < func.now() - timedelta(seconds=after_s)
    async with database.dispatcher() as session:
        cold = select(IndexUse.tenant_id).where(IndexUse.released_at.is_(None), unused, own)
        found = list(await session.scalars(cold.limit(_RELEASES)))
    for tenant_id in found:
        async with database.tenant(tenant_id) as session, session.begin():
            await queue_release(session, tenant_id)


async def _queue_regular(database: Database, settings: IngestSettings) -> None:
    """Queue the checks and sweeps whose turn it is."""
    turns: list[tuple[UUID, str, dict[str, object]]] = []
    async with database.dispatcher() as session:
        for kind, every_s in (("fsck", settings.fsck_every_s), ("retention", settings.sweep_every_s)):
            found = await regular.due(session, kind, every_s) if every_s else []
            turns += [(tenant_id, kind, {}) for tenant_id in found]
        if settings.fsck_every_s and await regular.installation_due(session, settings.fsck_every_s):
            turns.append((PLATFORM, "fsck", {"tenants": False}))
    for tenant_id, kind, payload in turns:
        async with database.tenant(tenant_id) as session, session.begin():
            await regular.queue(session, tenant_id, kind, payload)


async def _tidy(database: Database) -> None:
    async with database.dispatcher() as session, session.begin():
        await session.execute(text("DELETE FROM idempotent_answers WHERE created_at < now() - interval '24 hours'"))


async def _forget_jobs(database: Database, days: int) -> None:
    async with database.dispatcher() as session, session.begin():
        await regular.forget_ended(session, days)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(run(Settings()))
    except TesseraError as error:
        refuse("scheduler", error)
