"""What a worker process opens once and every task uses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from ingestion.objects import Objects
from ingestion.parse.sandbox import ParserPool
from ingestion.settings import IngestSettings
from ingestion.sources.background import Background
from ingestion.sources.connect import SourceTools
from shards.catalog import Header, Recipe
from shards.catalog_postgres import PostgresCatalog
from shards.embed import Embedder
from shards.embed_models import EmbedModels
from shards.index import TenantIndexes
from tenants.db import Database
from tenants.errors import TesseraError


class RecipeChanged(TesseraError):
    """The tenant moved to another embedding model or chunking while documents were embedded; they are embedded anew."""

    code = "recipe_changed"
    retryable = True
    title = "Recipe changed"


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


@dataclass
class Kept:
    """The slow documents of one batch that its worker keeps, each in a place of the slow lane, by job id."""

    places: SlowPlaces
    jobs: set[UUID] = field(default_factory=set)

    def enter(self, job_id: UUID, *, anyway: bool = False) -> bool:
        """Keep a document, if there is room or `anyway`; say whether it is kept."""
        if job_id in self.jobs:
            return True
        if self.places.full and not anyway:
            return False
        self.places.enter()
        self.jobs.add(job_id)
        return True

    def leave(self, *job_ids: UUID) -> None:
        """Give back the places of documents that are kept; of any others nothing."""
        for job_id in self.jobs.intersection(job_ids):
            self.places.leave()
            self.jobs.discard(job_id)


class Quotes(Protocol):
    """What others keep that quotes documents. The write line knows of it only that it has to go."""

    async def remove(self, session: AsyncSession, tenant_id: UUID, document_id: UUID) -> dict[str, int]:
        """Remove what quotes a document, in the caller's transaction; return how much, by kind."""


@dataclass(frozen=True)
class Runtime:
    """The opened resources of one worker process. `embedder`, `settings` and `recipe` are those of tenants without an
    index, or of one tenant: see `following`."""

    database: Database
    objects: Objects
    indexes: TenantIndexes
    models: EmbedModels
    embedder: Embedder
    parsers: ParserPool
    settings: IngestSettings
    slow: SlowPlaces
    sources: SourceTools
    background: Background
    quotes: Quotes
    recipe: Recipe


async def following(runtime: Runtime, recipe: Recipe) -> Runtime:
    """Return the runtime with the embedder and the size of chunks that a recipe names.

    Raises:
        Unavailable: its model is not declared any more, or cannot be loaded (`embedder_unavailable`).
    """
    settings = runtime.settings
    if recipe.chunk_tokens is not None:
        settings = settings.model_copy(update={"chunk_tokens": recipe.chunk_tokens})
    return replace(runtime, embedder=await runtime.models.get(recipe.model), settings=settings, recipe=recipe)


async def of_tenant(runtime: Runtime, tenant_id: UUID) -> Runtime:
    """Return the runtime that follows the recipe of a tenant's live index, as `following` does."""
    async with runtime.database.tenant(tenant_id) as session:
        live = await PostgresCatalog(session, tenant_id).live()
    return await following(runtime, runtime.indexes.first_recipe if live is None else live.recipe)


def require_recipe(runtime: Runtime, header: Header) -> None:
    """Check that what was embedded belongs into a generation, under the writer lock.

    Raises:
        RecipeChanged: it is made by another recipe.
    """
    if header.recipe != runtime.recipe:
        raise RecipeChanged("The tenant moved to another embedding model or chunking; this is embedded anew.")
