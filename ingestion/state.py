"""What the routes of the write line find in `request.state`, with its type."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, nullcontext
from uuid import UUID

from fastapi import Request
from sqlalchemy import ColumnElement

from ingestion.admission import Admission
from ingestion.job_view import Signs, Viewers
from ingestion.objects import Objects
from ingestion.queue_order import QueueOrders
from ingestion.queues import QueueWatch
from ingestion.settings import IngestSettings
from ingestion.sources.settings import SourceSettings
from ingestion.sources.vault import Vault
from tenants.local_places import LocalPlaces


def objects_of(request: Request) -> Objects:
    """Return the object store."""
    objects: Objects = request.state.objects
    return objects


def ingest_settings_of(request: Request) -> IngestSettings:
    """Return the limits of uploads."""
    settings: IngestSettings = request.state.ingest_settings
    return settings


def filter_place(
    request: Request, tenant_id: UUID, condition: ColumnElement[bool] | None
) -> AbstractAsyncContextManager[object]:
    """Return the place that a request by a filter takes, which may read all documents; others need none."""
    places: LocalPlaces = request.state.filter_places
    return nullcontext() if condition is None else places.taken(tenant_id)


def signs_of(request: Request) -> Signs:
    """Return what tells whether the workers and the scheduler live."""
    signs: Signs = request.state.signs
    return signs


def viewers_of(request: Request) -> Viewers:
    """Return the bound on open streams of events."""
    viewers: Viewers = request.state.viewers
    return viewers


def closing_of(request: Request) -> asyncio.Event:
    """Return what is set when this process is about to close its connections."""
    closing: asyncio.Event = request.state.closing
    return closing


def queue_orders_of(request: Request) -> QueueOrders:
    """Return what knows where jobs stand in the queue."""
    orders: QueueOrders = request.state.queue_orders
    return orders


def queue_watch_of(request: Request) -> QueueWatch:
    """Return what knows the jobs that wait for workers of their model."""
    watch: QueueWatch = request.state.queue_watch
    return watch


def admission_of(request: Request) -> Admission:
    """Return what bounds uploads."""
    admission: Admission = request.state.admission
    return admission


def source_settings_of(request: Request) -> SourceSettings:
    """Return what sources may fetch."""
    settings: SourceSettings = request.state.source_settings
    return settings


def vault_of(request: Request) -> Vault:
    """Return what seals the credentials of sources."""
    vault: Vault = request.state.vault
    return vault
