"""Addresses of model servers: one that cannot be asked is refused where it is read, by the name of its setting."""

from __future__ import annotations

import pytest

from rag.answer.routes import routes_of
from rag.search.build import build_reranker
from rag.settings import GenerationSettings, SearchSettings
from service.settings import Settings
from shards.settings import EmbedModel
from tenants.errors import Misconfigured


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("host:8000/v1", "no address"),
        ("http://host:port/v1", "no address"),
        ("http://host:99999/v1", "no address"),
        ("http://host:0/v1", "no address"),
        ("http:///v1", "no address"),
        ("http://[::1/v1", "no address"),
        ("http://ho st/v1", "no address"),
        ("http://host/v1?version=1", "no address"),
        ("http://reader:secret@host/v1", "password"),
        ("http://reader:secret@host:port/v1", "password"),
    ],
)
def test_an_address_that_is_none_is_named_with_its_setting(url: str, said: str) -> None:
    model = {"kind": "openai", "url": ["http://good:8000/v1", url], "dim": 64}
    generation = {"models": {"words": {"base_urls": [url]}}}
    for setting, refuse in {
        "TESSERA_EMBED_MODELS (words)": lambda: Settings(embed={"models": {"words": model}}),
        "TESSERA_SEARCH_RERANK_URL": lambda: build_reranker(SearchSettings(reranker="remote:words", rerank_url=url)),
        "TESSERA_GENERATION_MODELS (words)": lambda: routes_of(GenerationSettings.model_validate(generation)),
    }.items():
        with pytest.raises(Misconfigured) as error:
            refuse()
        assert setting in error.value.detail
        assert said in error.value.detail
        assert "secret" not in error.value.detail


@pytest.mark.parametrize("url", ["https://models.example/v1", "http://[::1]:8000/v1/@cf", "http://10.0.0.1:8000"])
def test_an_address_is_taken_as_it_is(url: str) -> None:
    assert EmbedModel.model_validate({"kind": "openai", "url": url, "dim": 64}).addresses == [url]
