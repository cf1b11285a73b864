"""Which models there are, which of them a tenant may use, and in which order they are tried."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rag.settings import GenerationSettings, SaltRule
from shards.addresses import address_fault
from tenants.context import TenantContext
from tenants.errors import Forbidden, Misconfigured

BUILT_IN = "extractive"
"""The name of the built-in answerer, which a tenant may be given as well."""


@dataclass(frozen=True)
class Route:
    """A model by the name that tenants know, and the servers that have it under the name `served`."""

    name: str
    served: str
    urls: tuple[str, ...]
    api_key: str
    salt: SaltRule
    setting: str
    """Where the servers are declared, for messages to the operator."""


@dataclass(frozen=True)
class ModelChoice:
    """What the installation declares."""

    names: frozenset[str]
    default: str
    fallbacks: tuple[str, ...]

    def allowed(self, tenant: TenantContext) -> list[str]:
        """Return what the tenant's chats may name, the first unless they name one.

        Without a list of its own it has the installation's default, and what that falls back to.
        """
        own = tenant.settings.generation_models
        return list(dict.fromkeys([self.default, *self.fallbacks] if own is None else own))

    def require_allowed(self, tenant: TenantContext, name: str) -> None:
        """Raise `Forbidden` (`model_not_allowed`) for any other name, in the same words whether it exists or not."""
        if name and name not in self.allowed(tenant):
            raise Forbidden("This tenant may not use a model of this name.", code="model_not_allowed")

    def first(self, tenant: TenantContext, wanted: str) -> str:
        """Return the model that is asked for, whether it is declared or not: the tenant's first unless one is named."""
        return wanted or self.allowed(tenant)[0]

    def chain(self, tenant: TenantContext, wanted: str) -> list[str]:
        """Return the declared models in the order in which they are tried for an answer.

        Those that the tenant is allowed no more, or that are declared no more, are left out: a request may have been
        admitted just before. `[BUILT_IN]` means that no model was asked for.
        """
        allowed = self.allowed(tenant)
        first = self.first(tenant, wanted)
        order = [first] if first == BUILT_IN else [first, *self.fallbacks]
        return [name for name in dict.fromkeys(order) if name in allowed and name in self.names]


def routes_of(settings: GenerationSettings) -> dict[str, Route]:
    """Return the declared models by name, adapters among them.

    Raises:
        Misconfigured: names the setting that contradicts another or is not an address.
    """
    found: dict[str, Route] = {}
    for route in _declared(settings):
        if route.name in found or route.name == BUILT_IN:
            raise Misconfigured(f"{route.setting} declares the model {route.name!r}, a name that is taken already.")
        _require_addresses(route)
        found[route.name] = route
    return found


def choice_of(settings: GenerationSettings, routes: Mapping[str, Route]) -> ModelChoice:
    """Return what tenants may choose from.

    Raises:
        Misconfigured: the default or a fallback is not declared.
    """
    unknown = [name for name in settings.fallbacks if name not in routes]
    if unknown:
        raise Misconfigured(
            f"TESSERA_GENERATION_FALLBACKS names {unknown[0]!r}, which is not declared; declared are"
            f" {', '.join(sorted(routes)) or 'none'}."
        )
    if settings.model and settings.model not in routes:
        raise Misconfigured(
            f"TESSERA_GENERATION_MODEL names {settings.model!r}, and no server: set TESSERA_GENERATION_BASE_URLS, or"
            " declare it in TESSERA_GENERATION_MODELS."
        )
    return ModelChoice(frozenset({*routes, BUILT_IN}), settings.model or BUILT_IN, tuple(settings.fallbacks))


def _declared(settings: GenerationSettings) -> Iterator[Route]:
    urls = _distinct([settings.base_url, *settings.base_urls])
    if settings.adapters and not urls:
        raise Misconfigured(
            "TESSERA_GENERATION_ADAPTERS names adapters of no server: set TESSERA_GENERATION_BASE_URLS."
        )
    if urls:
        if not settings.model:
            raise Misconfigured(
                "TESSERA_GENERATION_MODEL is empty: name a model that TESSERA_GENERATION_BASE_URLS serve."
            )
        key, setting = settings.api_key.get_secret_value(), "TESSERA_GENERATION_BASE_URLS"
        yield Route(settings.model, settings.model, urls, key, settings.cache_salt, setting)
        for name in settings.adapters:
            yield Route(name, name, urls, key, settings.cache_salt, "TESSERA_GENERATION_ADAPTERS")
    for name, model in settings.models.items():
        key, setting = model.api_key.get_secret_value(), f"TESSERA_GENERATION_MODELS ({name})"
        served: Sequence[tuple[str, str]] = [(name, model.model or name), *((one, one) for one in model.adapters)]
        for known, there in served:
            yield Route(known, there, _distinct(model.base_urls), key, model.cache_salt, setting)


def _distinct(urls: Sequence[str]) -> tuple[str, ...]:
    """Each server once, however its address ends."""
    return tuple(dict.fromkeys(url.rstrip("/") for url in urls if url))


def _require_addresses(route: Route) -> None:
    for url in route.urls:
        fault = address_fault(url)
        if fault:
            raise Misconfigured(f"{route.setting} {fault}")
