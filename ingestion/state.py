"""What the routes of the write line find in `request.state`, with its type."""

from __future__ import annotations

from fastapi import Request

from ingestion.objects import Objects
from ingestion.settings import IngestSettings


def objects_of(request: Request) -> Objects:
    """Return the object store."""
    objects: Objects = request.state.objects
    return objects


def ingest_settings_of(request: Request) -> IngestSettings:
    """Return the limits of uploads."""
    settings: IngestSettings = request.state.ingest_settings
    return settings
