"""Addresses and keys of model servers: what cannot be used is refused where it is read, by the name of its setting."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from pydantic import SecretStr

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
        ("http://gpü_1/v1", "no address"),
        (f"http://{'a' * 64}/v1", "no address"),
        ("host:8000/v1?key=s3cret", "'host:8000/v1', which is no address"),
        ("http://host/v1?key=s3cret", "'http://host/v1' with a query"),
        ("http://host/v1#s3cret", "'http://host/v1' with a query or a fragment"),
        ("http://host/v1?key=s3c@ret", "password"),
        ("reader:s3cret@host:8000/v1", "password"),
        ("http:/reader:s3cret@host/v1", "password"),
        ("https://reader:s3/cret@host/v1", "password"),
        ("https://reader:s3?cret@host/v1", "password"),
        ("https://reader:s3#cret@host/v1", "password"),
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
        assert not any(part in error.value.detail for part in ("secret", "s3", "cret"))


@pytest.mark.parametrize("url", ["https://models.example/v1", "http://[::1]:8000/v1/@cf", "http://10.0.0.1:8000"])
def test_an_address_is_taken_as_it_is(url: str) -> None:
    assert EmbedModel.model_validate({"kind": "openai", "url": url, "dim": 64}).addresses == [url]


KEYS = [
    ("TESSERA_GENERATION_API_KEY", "%s"),
    ("TESSERA_GENERATION_MODELS", '{"m": {"base_urls": ["http://host/v1"], "api_key": %s}}'),
    ("TESSERA_EMBED_MODELS", '{"m": {"kind": "openai", "url": "http://host/v1", "dim": 64, "key": %s}}'),
    ("TESSERA_SEARCH_RERANK_KEY", "%s"),
    ("TESSERA_OBJECTS_ACCESS_KEY_ID", "%s"),
]


def key_of(settings: Settings, name: str) -> str:
    """Return what was read of a key."""
    found: dict[str, Callable[[], str | SecretStr]] = {
        "TESSERA_GENERATION_API_KEY": lambda: settings.generation.api_key,
        "TESSERA_GENERATION_MODELS": lambda: settings.generation.models["m"].api_key,
        "TESSERA_EMBED_MODELS": lambda: settings.embed.models["m"].key,
        "TESSERA_SEARCH_RERANK_KEY": lambda: settings.search.rerank_key,
        "TESSERA_OBJECTS_ACCESS_KEY_ID": lambda: settings.objects.access_key_id,
    }
    key = found[name]()
    return key if isinstance(key, str) else key.get_secret_value()


@pytest.mark.parametrize(("name", "form"), KEYS)
def test_a_key_out_of_a_file_ends_without_its_newline_and_one_that_cannot_be_sent_is_refused(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given(key: str) -> Settings:
        monkeypatch.setenv(name, form % (key if form == "%s" else json.dumps(key)))
        return Settings()

    assert key_of(given(" sk-s3cret\n"), name) == "sk-s3cret"
    for wrong in ("sk-s3\ncret", "sk-s3cret\u20ac", "sk-s3cr\u00e9t", "sk-s3\x7fcret"):
        with pytest.raises(Misconfigured, match=f"The setting {name}") as refused:
            given(wrong)
        assert not any(part in refused.value.detail for part in ("s3", "cr")), refused.value.detail


def test_the_secret_of_an_object_store_may_have_lines_but_ends_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_OBJECTS_SECRET_ACCESS_KEY", '{"private_key":\n"hush"}\n')
    assert Settings().objects.secret_access_key.get_secret_value() == '{"private_key":\n"hush"}'
