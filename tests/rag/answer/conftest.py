"""The bundled embedder, and passages cut from small documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest

from rag.passages import Passage, Ranks
from rag.search.places import Places
from rag.settings import GenerationSettings
from shards.embed import Embedder, load_embedder
from shards.settings import EmbedSettings
from tenants.context import TenantContext


class Alone:
    """The only process of its service."""

    @asynccontextmanager
    async def taken(self, kind: str, tenant_id: UUID, most: int, *, patience_s: float = 0.0) -> AsyncIterator[None]:
        yield


def slots_of(settings: GenerationSettings) -> Places:
    """A tenant's places in one process."""
    return Places(
        settings.concurrent_per_tenant, settings.queue_per_tenant, settings.patience_s, Alone(), kind="answers"
    )


MakePassage = Callable[..., Passage]
TENANT = TenantContext(uuid5(NAMESPACE_URL, "acme"), "acme", "key")


@pytest.fixture(scope="session")
async def embedder(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Embedder]:
    embedder = load_embedder(EmbedSettings(cache_dir=tmp_path_factory.mktemp("answer-models")))
    yield embedder
    await embedder.aclose()


def passage(
    text: str, *, title: str = "Handbook", headings: Sequence[str] = (), start: int = 0, document: str = "handbook"
) -> Passage:
    """A passage whose text begins at `start` of its document."""
    identity: UUID = uuid5(NAMESPACE_URL, f"{document}/{start}/{text}")
    return Passage(
        chunk_id=identity,
        document_id=uuid5(NAMESPACE_URL, document),
        external_id=document,
        title=title,
        headings=tuple(headings),
        text=text,
        page=2,
        start=start,
        end=start + len(text),
        version=1,
        as_of=datetime.now(UTC),
        metadata={},
        score=1.0,
        ranks=Ranks(1, 1, 1),
    )


@pytest.fixture(scope="session")
def make_passage() -> MakePassage:
    return passage


LEAVE = passage(
    "A full-time employee has 27 days of annual leave in a calendar year. Leave is requested in the staff portal at "
    "https://portal.acme.example/leave.",
    title="Annual leave",
    start=40,
    document="leave",
)
TRAVEL = passage(
    "The mileage rate for a private car is CHF 0.68 per kilometre. A taxi is refunded after 22:00 only.",
    title="Travel",
    document="travel",
)
QUESTION = "How many days of annual leave does a full-time employee have?"
