"""The doctor asks the servers of the declared models: those that generate, embed and rerank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rag.settings import GenerationSettings, SearchSettings
from service.local.finding import Finding, good
from service.local.given_servers import examine_servers
from service.settings import Settings
from shards.settings import EmbedSettings
from tests.embedding_server import DIM, EmbeddingServer
from tests.rag.answer.model_server import running_model_server


async def examined(url: str, model: str) -> Finding:
    settings = Settings(generation=GenerationSettings(base_urls=[url], model=model))
    findings = [finding for finding in await examine_servers(settings) if finding.subject == "models"]
    assert len(findings) == 1
    return findings[0]


async def test_a_model_is_good_unknown_or_away() -> None:
    async with running_model_server() as server:
        server.says("m", "x")
        assert (await examined(server.url, "m")).good
        unknown = await examined(server.url, "n")
        assert (unknown.good, unknown.mend) == (False, "correct TESSERA_GENERATION_*")
        assert "has no model 'n'; it has 'm'" in unknown.detail
        url = server.url
    away = await examined(url, "m")
    assert (away.good, away.mend) == (False, "start it, or correct TESSERA_GENERATION_*")
    assert url in away.detail
    none = [finding.subject for finding in await examine_servers(Settings())]
    assert "models" not in none


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    started = EmbeddingServer(key="right")
    yield started
    started.close()


def embedding(url: str, **given: Any) -> Settings:
    model = {"kind": "openai", "url": url, "dim": DIM, "key": "right", "question_timeout_s": 0.5, **given}
    return Settings(embed=EmbedSettings.model_validate({"models": {"words": model}}))


def reranking(url: str, *, model: str = "words", **given: Any) -> Settings:
    told = {"reranker": f"remote:{model}", "rerank_url": url, "rerank_key": "right", **given}
    return Settings(search=SearchSettings.model_validate(told))


async def the_finding(settings: Settings) -> Finding:
    [found] = await examine_servers(settings)
    return found


async def test_an_embedding_server_is_good_wrong_or_away(server: EmbeddingServer) -> None:
    assert await the_finding(embedding(server.url)) == good("embedding models", "answers")
    for given, said in (
        ({"key": "wrong"}, "the `key` of 'words' is wrong"),
        ({"model": "unknown"}, "the `model` or its `url` of 'words' is wrong"),
        ({"dim": DIM + 1}, "the `dim` of 'words' is wrong"),
    ):
        found = await the_finding(embedding(server.url, **given))
        assert (found.good, found.mend) == (False, "correct TESSERA_EMBED_MODEL, TESSERA_EMBED_MODELS")
        assert f"TESSERA_EMBED_MODELS: {said}" in found.detail
    server.failing = True
    found = await the_finding(embedding(server.url))
    assert (found.good, found.mend) == (False, "start it, or correct TESSERA_EMBED_MODEL, TESSERA_EMBED_MODELS")
    assert f"{server.url} answers 500" in found.detail
    found = await the_finding(Settings(embed=EmbedSettings(model="moon")))
    assert (found.good, "TESSERA_EMBED_MODEL is 'moon'" in found.detail) == (False, True)


async def test_a_reranking_server_is_good_wrong_or_away(server: EmbeddingServer) -> None:
    assert await the_finding(reranking(server.url)) == good("reranker", "answers")
    for settings, said in (
        (reranking(server.url, rerank_key="wrong"), "TESSERA_SEARCH_RERANK_KEY"),
        (reranking(server.url, model="unknown"), "TESSERA_SEARCH_RERANKER"),
        (reranking("http://host:port"), "TESSERA_SEARCH_RERANK_URL has 'http://host:port'"),
    ):
        found = await the_finding(settings)
        assert (found.good, found.mend) == (False, "correct TESSERA_SEARCH_RERANK*")
        assert said in found.detail
    server.failing = True
    found = await the_finding(reranking(server.url))
    assert (found.good, found.mend) == (False, "start it, or correct TESSERA_SEARCH_RERANK*")
    assert f"{server.url} answers 500" in found.detail
    assert await examine_servers(Settings(search=SearchSettings(reranker="none"))) == []
