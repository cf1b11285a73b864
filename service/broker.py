"""The Celery application: a thin pipe to the workers. What must not be lost waits in Postgres."""

from __future__ import annotations

import time
from contextlib import suppress

from celery import Celery
from redis.exceptions import RedisError

from ingestion.queues import COMMON
from service.redis_access import RedisAddress, celery_tls, connected_async

VISIBILITY_S = 4 * 3600
TASK_MODULES = (
    "ingestion.tasks",
    "ingestion.upkeep_tasks",
    "ingestion.reembed_tasks",
    "ingestion.source_tasks",
    "ingestion.fsck_tasks",
)
_MARK = "broker:memory"
_LOOK_EVERY_S = 1.0


class BrokerMemory:
    """A mark beside the messages: when it is gone (Redis was flushed, or came back empty), so are they."""

    def __init__(self, address: RedisAddress) -> None:
        self._redis, self._mark = connected_async(address), address.key(_MARK)
        self._looked = -_LOOK_EVERY_S

    async def was_lost(self) -> bool:
        """Say whether the mark is missing: so often until it is set again. While it is there, looks once a second;
        False while Redis is away."""
        if time.monotonic() - self._looked < _LOOK_EVERY_S:
            return False
        try:
            missing = await self._redis.get(self._mark) is None
        except (RedisError, OSError):
            return False
        if not missing:
            self._looked = time.monotonic()
        return missing

    async def remember(self) -> None:
        """Set the mark: what was lost is made good. While Redis is away nothing is set, and it counts as lost still."""
        with suppress(RedisError, OSError):
            await self._redis.set(self._mark, "1")

    async def aclose(self) -> None:
        """Close the connection."""
        await self._redis.aclose()


def make_celery(broker: RedisAddress) -> Celery:
    """Return the Celery application on a Redis broker.

    A message that its worker did not acknowledge is delivered again after the visibility timeout, which therefore lies
    above the longest time of a task; the lease in Postgres finds lost work long before. Workers take no commands from
    the broker: who can write there is no operator by that, and channels need not be granted.
    """
    app = Celery("tessera", broker=broker.url, include=list(TASK_MODULES))
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        broker_transport_options={"visibility_timeout": VISIBILITY_S, "global_keyprefix": broker.key("")},
        broker_use_ssl=celery_tls(broker),
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        enable_utc=True,
        task_default_queue=COMMON,
    )
    return app
