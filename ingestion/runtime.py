"""What a worker process opens once and every task uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.objects import Objects
from ingestion.parse.sandbox import ParserPool
from ingestion.settings import IngestSettings
from ingestion.sources.background import Background
from ingestion.sources.connect import SourceTools
from shards.embed import Embedder
from shards.index import TenantIndexes
from tenants.db import Database


@dataclass
class SlowPlaces:
    """Slow documents in work in this process, and how many there should be at most."""

    most: int
    taken: int = 0

    @property
    def full(self) -> bool:
        """Whether another has to wait."""
        return self.taken >= self.most

    def enter(self) -> None:
        """Count one more."""
        self.taken += 1

    def leave(self) -> None:
        """Count one less."""
        self.taken -= 1


class Quotes(Protocol):
    """What others keep that quotes documents. The write line knows of it only that it has to go."""

    async def remove(self, session: AsyncSession, tenant_id: UUID, document_id: UUID) -> dict[str, int]:
        """Remove what quotes a document, in the caller's transaction; return how much, by kind."""


@dataclass(frozen=True)
class Runtime:
    """The opened resources of one worker process."""

    database: Database
    objects: Objects
    indexes: TenantIndexes
    embedder: Embedder
    parsers: ParserPool
    settings: IngestSettings
    slow: SlowPlaces
    sources: SourceTools
    background: Background
    quotes: Quotes
