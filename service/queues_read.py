"""The queues that a worker process reads: what it is told to, or what it can do."""

from __future__ import annotations

from ingestion.queues import COMMON
from service.settings import Settings
from shards.torch_models import has_torch
from tenants.errors import Misconfigured


def queues_read(settings: Settings) -> list[str]:
    """Return the queues, checked: no worker takes what it cannot compute.

    Raises:
        Misconfigured: names a queue that no declared model has, or that needs torch, which is not installed.
    """
    models = settings.embed.queues
    told = [queue.strip() for queue in settings.ingest.queues.split(",") if queue.strip()]
    if not told:
        return [COMMON, *(models if has_torch() else [])]
    unknown = [queue for queue in told if queue not in (COMMON, *models)]
    if unknown:
        known = ", ".join((COMMON, *models))
        detail = f"TESSERA_INGEST_QUEUES names {unknown[0]!r}; the queues are {known}"
        raise Misconfigured(f"{detail}: those of models are declared in TESSERA_EMBED_MODELS.")
    if not has_torch() and any(queue in models for queue in told):
        detail = f"TESSERA_INGEST_QUEUES is {settings.ingest.queues!r}, and models are computed with torch"
        raise Misconfigured(f"{detail}: `pip install 'tessera[torch]'`, or leave their queues out.")
    return told
