"""Several servers of one model: each is looked at by itself, also while another one would have answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from rag.search.build import build_reranker
from rag.settings import SearchSettings
from service.local.ports import free_port
from shards.embed_models import EmbedModels
from shards.settings import EmbedModel, EmbedSettings
from tenants.errors import Misconfigured, Unavailable
from tests.embedding_server import DIM, EmbeddingServer, vector_of

AWAY = f"http://127.0.0.1:{free_port()}/v1"


@pytest.fixture
def other() -> Iterator[EmbeddingServer]:
    with closing(EmbeddingServer()) as started:
        yield started


@asynccontextmanager
async def embedding(folder: Path, *addresses: str) -> AsyncIterator[EmbedModels]:
    impatient = {"question_timeout_s": 0.5, "budget_s": 0.5}
    declared = EmbedModel.model_validate({"kind": "openai", "url": list(addresses), "dim": DIM, **impatient})
    async with aclosing(EmbedModels(EmbedSettings(cache_dir=folder, models={"words": declared}))) as models:
        yield models


async def check_reranker(*addresses: str) -> None:
    made = build_reranker(SearchSettings(reranker="remote:words", rerank_url=",".join(addresses)))
    assert made is not None
    async with aclosing(made):
        await made.check()


async def test_a_mistyped_address_behind_a_good_one_is_named(server: EmbeddingServer, other: EmbeddingServer) -> None:
    other.statuses = [404] * 9
    with pytest.raises(Misconfigured, match=f"TESSERA_SEARCH_RERANK_URL is wrong: {other.url} answers 404"):
        await check_reranker(server.url, other.url)


async def test_a_mistyped_address_of_an_embedding_model_is_named_too(
    server: EmbeddingServer, other: EmbeddingServer, tmp_path: Path
) -> None:
    other.page = "<html>"
    async with embedding(tmp_path, server.url, other.url) as models:
        with pytest.raises(Misconfigured, match=f"`url` of 'words' cannot be asked: {other.url} is no server"):
            await models.check()


async def test_one_that_is_away_is_told_and_waited_for_by_nobody(
    server: EmbeddingServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with embedding(tmp_path, AWAY, server.url) as models:
        await models.check()
    await check_reranker(AWAY, server.url)
    told = [record.getMessage() for record in caplog.records if AWAY in record.getMessage()]
    assert [message.split(" does not answer")[0] for message in told] == [
        "The embedding model 'words'",
        "The reranker 'words'",
    ]
    async with embedding(tmp_path, AWAY) as models:
        with pytest.raises(Unavailable, match=AWAY):
            await models.check()


async def test_two_servers_of_one_name_that_serve_different_models_are_told_apart(
    server: EmbeddingServer, other: EmbeddingServer, tmp_path: Path
) -> None:
    def another(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "embedding": vector_of("another model").tolist()} for row in rows]

    other.spoil = another
    async with embedding(tmp_path, server.url, other.url) as models:
        with pytest.raises(Misconfigured, match=f"{server.url} and {other.url} serve different models as 'words'"):
            await models.check()
