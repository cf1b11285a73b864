"""Which models a tenant may use, and the words for those that it may not."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from rag.answer.cache_salt import cache_salt
from rag.answer.routes import BUILT_IN, ModelChoice, choice_of, routes_of
from rag.settings import GenerationSettings
from tenants.context import TenantContext, TenantSettings
from tenants.errors import Forbidden, Misconfigured

MAIN: dict[str, Any] = {
    "base_urls": ["http://a:8000/v1", "http://b:8000/v1"],
    "model": "main",
    "adapters": ["acme-legal"],
    "models": {"large": {"base_urls": ["http://c:8000/v1"], "model": "org/large", "adapters": ["birch-sales"]}},
}


def choice(**values: Any) -> ModelChoice:
    settings = GenerationSettings.model_validate({**MAIN, **values})
    return choice_of(settings, routes_of(settings))


def tenant(*models: str) -> TenantContext:
    settings = TenantSettings(generation_models=list(models) or None)
    return TenantContext(uuid4(), "t", "key", settings)


def test_models_and_adapters_have_their_servers_and_their_names_there() -> None:
    routes = routes_of(GenerationSettings.model_validate(MAIN))
    assert {name: (route.served, route.urls) for name, route in routes.items()} == {
        "main": ("main", ("http://a:8000/v1", "http://b:8000/v1")),
        "acme-legal": ("acme-legal", ("http://a:8000/v1", "http://b:8000/v1")),
        "large": ("org/large", ("http://c:8000/v1",)),
        "birch-sales": ("birch-sales", ("http://c:8000/v1",)),
    }


def test_one_server_is_a_list_of_one() -> None:
    routes = routes_of(GenerationSettings(base_url="http://a/v1", base_urls=["http://a/v1", "http://b/v1"], model="m"))
    assert routes["m"].urls == ("http://a/v1", "http://b/v1")


def test_an_address_is_one_server_however_it_ends() -> None:
    models = {"large": {"base_urls": ["http://c/v1/", "http://c/v1"]}}
    urls = ["http://a/v1/", "http://b/v1"]
    routes = routes_of(
        GenerationSettings.model_validate(
            {"base_url": "http://a/v1", "base_urls": urls, "model": "m", "models": models}
        )
    )
    assert routes["m"].urls == ("http://a/v1", "http://b/v1")
    assert routes["large"].urls == ("http://c/v1",)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model": ""}, "TESSERA_GENERATION_MODEL"),
        ({"base_urls": ["gpu-1:8000"]}, "TESSERA_GENERATION_BASE_URLS"),
        ({"base_urls": ["http://gpu-1:99999/v1"]}, "TESSERA_GENERATION_BASE_URLS"),
        ({"adapters": ["main"]}, "TESSERA_GENERATION_ADAPTERS"),
        ({"models": {BUILT_IN: {"base_urls": ["http://c/v1"]}}}, "TESSERA_GENERATION_MODELS"),
        ({"models": {"main": {"base_urls": ["http://c/v1"]}}}, "TESSERA_GENERATION_MODELS"),
        ({"fallbacks": ["small"]}, "TESSERA_GENERATION_FALLBACKS"),
        ({"base_urls": [], "adapters": []}, "TESSERA_GENERATION_MODEL names 'main'"),
        ({"base_urls": [], "model": ""}, "TESSERA_GENERATION_ADAPTERS"),
    ],
)
def test_settings_that_contradict_each_other_are_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        choice(**values)


def test_a_tenant_has_the_default_unless_it_has_a_list_of_its_own() -> None:
    assert choice().allowed(tenant()) == ["main"]
    assert choice(fallbacks=["large"]).allowed(tenant()) == ["main", "large"]
    assert choice(fallbacks=["large"]).allowed(tenant("acme-legal", "main")) == ["acme-legal", "main"]
    assert choice(base_urls=[], model="", adapters=[]).allowed(tenant()) == [BUILT_IN]
    assert choice(base_urls=[], model="large", adapters=[]).allowed(tenant()) == ["large"]


def test_fallbacks_are_the_tenants_own_only() -> None:
    declared = choice(fallbacks=["large", "main"])
    assert declared.chain(tenant(), "") == ["main", "large"]
    assert declared.chain(tenant("acme-legal", "large"), "") == ["acme-legal", "large"]
    assert declared.chain(tenant("acme-legal"), "") == ["acme-legal"], "its text goes to no other server"
    assert declared.chain(tenant("acme-legal", "large"), "large") == ["large"]
    assert declared.chain(tenant(BUILT_IN, "main"), "") == [BUILT_IN]
    assert declared.chain(tenant("gone", "main"), "") == ["main"], "declared no more"
    assert declared.chain(tenant("gone"), "") == []


@pytest.mark.parametrize("name", ["birch-sales", "large", "no-such-model", "../main", BUILT_IN, "MAIN"])
def test_anothers_model_and_one_that_does_not_exist_are_refused_alike(name: str) -> None:
    acme = tenant("acme-legal", "main")
    choice().require_allowed(acme, "main")
    choice().require_allowed(acme, "")
    with pytest.raises(Forbidden) as refused:
        choice().require_allowed(acme, name)
    assert (refused.value.code, refused.value.status) == ("model_not_allowed", 403)
    assert refused.value.detail == "This tenant may not use a model of this name."


def test_a_salt_is_the_tenants_alone_and_follows_from_a_secret() -> None:
    one, other = uuid4(), uuid4()
    assert cache_salt("secret", one) == cache_salt("secret", one)
    assert len({cache_salt("secret", one), cache_salt("secret", other), cache_salt("other", one)}) == 3
    assert one.hex not in cache_salt("secret", one)
