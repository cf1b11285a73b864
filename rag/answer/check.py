"""Are the declared models there, on servers that can serve them? Asked at the start and by the doctor."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from rag.answer.replica_watch import has_no_address, server_root
from rag.answer.routes import Route, choice_of, routes_of
from rag.settings import GenerationSettings
from shards.authorities import authorities
from shards.model_server import untrusted_certificate
from tenants.errors import Misconfigured, Unavailable

log = logging.getLogger(__name__)
OLDEST_VLLM = (0, 9)
"""The first that knows `cache_salt`: an older one ignores it, and tenants would share its prefix cache."""
_Said = tuple[httpx.Response, httpx.Response] | httpx.HTTPError
_TIMEOUT_S = 5.0
_SHOWN = 5


async def check_generation(settings: GenerationSettings) -> None:
    """Ask every declared server for its models.

    A model that is away does not keep the service from answering, the built-in answerer does: whoever starts the
    service lets `Unavailable` pass and says it; the doctor calls it wrong.

    Raises:
        Misconfigured: a server refuses the key, does not know the model, is no OpenAI-compatible server or too old, or
            shows a certificate that is not trusted; or a setting contradicts another one.
        Unavailable: a server cannot be reached, or does not work now.
    """
    routes = routes_of(settings)
    choice_of(settings, routes)
    places = list(dict.fromkeys((url, route.api_key) for route in routes.values() for url in route.urls))
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, verify=authorities()) as client:
        said = dict(zip(places, await asyncio.gather(*(_ask(client, *place) for place in places)), strict=True))
    faults = [fault for route in routes.values() for fault in _faults(route, said)]
    for fault in faults:
        if isinstance(fault, Misconfigured):
            raise fault
    if faults:
        details = list(dict.fromkeys(fault.detail for fault in faults))
        raise Unavailable(f"{'; '.join(details)}.", code="generation_unavailable")


async def _ask(client: httpx.AsyncClient, url: str, api_key: str) -> _Said:
    """What a server says of its models and its version, or why it cannot be asked."""
    headers = {"Authorization": f"Bearer {api_key or 'none'}"}
    try:
        models = await client.get(f"{url.rstrip('/')}/models", headers=headers)
        return models, await client.get(f"{server_root(url)}/version")
    except httpx.HTTPError as error:
        return error


def _faults(route: Route, said: Mapping[tuple[str, str], _Said]) -> Iterator[Misconfigured | Unavailable]:
    """What is wrong with a model's servers. A name without an address is none of it while another server answers."""
    answers = {url: said[url, route.api_key] for url in route.urls}
    some = any(not isinstance(answer, httpx.HTTPError) for answer in answers.values())
    for url, answer in answers.items():
        if some and isinstance(answer, httpx.HTTPError) and has_no_address(answer):
            log.warning("the name of the model server %s of %s has no address", url, route.setting)
            continue
        fault = _fault(route, url, answer)
        if fault is not None:
            yield fault


def _fault(route: Route, url: str, said: _Said) -> Misconfigured | Unavailable | None:
    if isinstance(said, httpx.HTTPError):
        fault = f"The model server {url} of {route.setting} cannot be reached: {str(said) or type(said).__name__}"
        untrusted = untrusted_certificate(said)
        return Misconfigured(f"{fault}: {untrusted}.") if untrusted else Unavailable(fault)
    models, version = said
    return _refused(route, url, models) or _unknown(route, url, models) or _saltless(route, url, version)


def _refused(route: Route, url: str, answer: httpx.Response) -> Misconfigured | Unavailable | None:
    if answer.status_code in (401, 403):
        key = "its api_key" if "MODELS" in route.setting else "TESSERA_GENERATION_API_KEY"
        return Misconfigured(
            f"The model server {url} of {route.setting} refuses the key ({answer.status_code}): set {key}."
        )
    if answer.status_code >= 500 or answer.status_code in (408, 429):
        return Unavailable(f"The model server {url} of {route.setting} answers {answer.status_code}")
    if answer.status_code != 200 or not isinstance(_names(answer), list):
        return Misconfigured(
            f"{route.setting} has {url}, which is not an OpenAI-compatible server (its /models answers"
            f" {answer.status_code}): write the address up to /v1, as in http://host:8000/v1."
        )
    return None


def _unknown(route: Route, url: str, answer: httpx.Response) -> Misconfigured | None:
    names = _names(answer)
    # A server that loads what it is asked for, as `transformers serve` does, may list nothing.
    if not names or route.served in names:
        return None
    shown = ", ".join(repr(name) for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return Misconfigured(
        f"{route.setting}: the server {url} has no model {route.served!r}; it has {shown}. Correct the name, or"
        " serve it there (an adapter: --lora-modules)."
    )


def _saltless(route: Route, url: str, answer: httpx.Response) -> Misconfigured | None:
    """Of other servers than vLLM nothing is known: they are good unless the salt is required."""
    if route.salt == "off":
        return None
    version = _json(answer).get("version") if answer.status_code == 200 else None
    numbers = re.match(r"(\d+)\.(\d+)", version) if isinstance(version, str) else None
    oldest = ".".join(map(str, OLDEST_VLLM))
    if numbers is None:
        if route.salt != "required":
            return None
        setting = f"{route.setting}, cache_salt" if "MODELS" in route.setting else "TESSERA_GENERATION_CACHE_SALT"
        return Misconfigured(
            f"{setting} is required, and the server {url} does not say that it knows it: its /version is not that of"
            f" vLLM {oldest} or newer. Others may ignore it, so tenants would share a prefix cache: use such a vLLM, or"
            " set auto."
        )
    if (int(numbers[1]), int(numbers[2])) >= OLDEST_VLLM:
        return None
    return Misconfigured(
        f"{route.setting}: the server {url} is vLLM {version}, which knows no cache_salt, so tenants would share its"
        f" prefix cache: install {oldest} or newer, or set cache_salt to off."
    )


def _names(answer: httpx.Response) -> list[str] | None:
    """The names of a list of models, None when it is none."""
    data = _json(answer).get("data")
    return [str(one.get("id")) for one in data if isinstance(one, dict)] if isinstance(data, list) else None


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
