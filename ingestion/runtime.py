"""What a worker process opens once and every task uses."""

from __future__ import annotations

from dataclasses import dataclass

from ingestion.objects import Objects
from ingestion.parse.sandbox import ParserPool
from ingestion.settings import IngestSettings
from shards.embed import Embedder
from shards.index import TenantIndexes
from tenants.db import Database


@dataclass(frozen=True)
class Runtime:
    """The opened resources of one worker process."""

    database: Database
    objects: Objects
    indexes: TenantIndexes
    embedder: Embedder
    parsers: ParserPool
    settings: IngestSettings
