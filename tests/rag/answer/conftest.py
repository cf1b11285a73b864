"""The bundled embedder, and passages cut from small documents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest

from rag.passages import Passage, Ranks
from shards.embed import Embedder, load_embedder
from shards.settings import EmbedSettings

MakePassage = Callable[..., Passage]


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
