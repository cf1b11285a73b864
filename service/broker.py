"""The Celery application: a thin pipe to the workers. What must not be lost waits in Postgres."""

from __future__ import annotations

from celery import Celery

VISIBILITY_S = 4 * 3600


def make_celery(broker_url: str) -> Celery:
    """Return the Celery application on a Redis broker.

    A message that its worker did not acknowledge is delivered again after the visibility timeout, which therefore lies
    above the longest time of a task; the lease in Postgres finds lost work long before.
    """
    app = Celery("tessera", broker=broker_url, include=["ingestion.tasks", "ingestion.upkeep_tasks"])
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_prefetch_multiplier=1,
        broker_transport_options={"visibility_timeout": VISIBILITY_S},
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        enable_utc=True,
        task_default_queue="tessera",
    )
    return app
