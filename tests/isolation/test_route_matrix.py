"""Every route of the OpenAPI document, called as the other tenant with ids that are not its own.

The answer for another tenant's id must be the same, byte for byte but for the request id, as for an id that does not
exist; and no answer may hold the other's canary.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import ADAPTERS

if TYPE_CHECKING:
    from tests.isolation.conftest import Canaried
    from tests.rag.answer.model_server import ModelServer

PARAMETERS = ("document_id", "job_id", "conversation_id", "tenant_id", "key_id", "source_id", "version")
BODIES: dict[str, dict[str, Any]] = {
    "/v1/search": {"query": "vault code"},
    "/v1/chat": {"message": "vault code", "stream": False},
    "/v1/sources": {"kind": "feed", "name": "x", "config": {"url": "https://example.com/feed"}},
    "/v1/sources/{source_id}": {"misses": 3},
    "/v1/admin/tenants": {"slug": "x", "name": "x"},
    "/v1/admin/tenants/{tenant_id}": {"name": "x"},
    "/v1/admin/tenants/{tenant_id}/placement": {"tier": "dedicated"},
    "/v1/admin/tenants/{tenant_id}/reindex": {},
    "/v1/admin/tenants/{tenant_id}/keys": {"name": "x"},
}


async def operations(client: httpx.AsyncClient) -> list[tuple[str, str]]:
    document = (await client.get("/openapi.json")).json()
    return [(method, path) for path, methods in document["paths"].items() for method in methods]


async def call(client: httpx.AsyncClient, method: str, path: str, ids: dict[str, str]) -> httpx.Response:
    url = re.sub(r"\{(\w+)\}", lambda match: ids[match[1]], path)
    return await client.request(method, url, json=BODIES.get(path))


def body_of(response: httpx.Response) -> str:
    request_id = response.headers["x-request-id"]
    assert request_id in response.text or response.status_code < 400
    return response.text.replace(request_id, "")


async def test_every_path_parameter_is_known_to_this_test(canaried: tuple[Canaried, Canaried]) -> None:
    for _, path in await operations(canaried[0].access.client):
        assert set(re.findall(r"\{(\w+)\}", path)) <= set(PARAMETERS), path


async def test_a_foreign_id_is_answered_like_an_unknown_one(canaried: tuple[Canaried, Canaried]) -> None:
    owner, stranger = canaried
    checked = 0
    for method, path in await operations(stranger.access.client):
        if "{" not in path:
            continue
        unknown = {name: str(uuid4()) for name in PARAMETERS} | {"key_id": "0" * 12, "version": "1"}
        foreign = await call(stranger.access.client, method, path, owner.ids)
        missing = await call(stranger.access.client, method, path, unknown)
        assert foreign.status_code == missing.status_code, (method, path)
        assert foreign.status_code in (401, 404), (method, path, foreign.text)
        assert body_of(foreign) == body_of(missing), (method, path)
        assert foreign.headers.keys() == missing.headers.keys()
        checked += 1
    assert checked >= 12
    for path in ("/v1/documents/{document_id}", "/v1/conversations/{conversation_id}"):
        assert (await call(owner.access.client, "get", path, owner.ids)).status_code == 200, "the owner still has it"


async def test_ids_in_bodies_are_no_way_in_either(canaried: tuple[Canaried, Canaried]) -> None:
    owner, stranger = canaried
    body = {"message": "vault code", "stream": False}
    foreign = await stranger.access.client.post(
        "/v1/chat", json={**body, "conversation_id": owner.ids["conversation_id"]}
    )
    missing = await stranger.access.client.post("/v1/chat", json={**body, "conversation_id": str(uuid4())})
    assert foreign.status_code == missing.status_code == 404
    assert body_of(foreign) == body_of(missing)


async def test_anothers_adapter_is_refused_like_one_that_does_not_exist(
    admin: httpx.AsyncClient, canaried: tuple[Canaried, Canaried], model_server: ModelServer
) -> None:
    for owner, adapter in zip(canaried, ADAPTERS, strict=True):
        body = {"settings": {"generation_models": [adapter]}}
        changed = await admin.patch(f"/v1/admin/tenants/{owner.access.id}", json=body)
        assert changed.status_code == 200, changed.text
    stranger, asked = canaried[1], len(model_server.requests)
    for stream in (False, True):
        message = {"message": "vault code", "stream": stream}
        foreign = await stranger.access.client.post("/v1/chat", json={**message, "model": ADAPTERS[0]})
        missing = await stranger.access.client.post("/v1/chat", json={**message, "model": "no-such-adapter"})
        assert foreign.status_code == missing.status_code == 403
        assert body_of(foreign) == body_of(missing)
        assert foreign.json()["code"] == "model_not_allowed"
    assert ADAPTERS[0] not in (await stranger.access.client.get("/v1/models")).text
    assert len(model_server.requests) == asked, "the server of the models never heard of it"
    for owner in canaried:
        await admin.patch(f"/v1/admin/tenants/{owner.access.id}", json={"settings": {}})


async def test_no_route_shows_the_others_canary(canaried: tuple[Canaried, Canaried]) -> None:
    for owner, stranger in (canaried, canaried[::-1]):
        for method, path in await operations(stranger.access.client):
            if method == "delete" and "{" not in path:
                continue
            answer = await call(stranger.access.client, method, path, owner.ids)
            assert owner.canary not in answer.text, (method, path)
            assert owner.canary not in str(answer.headers), (method, path)


@pytest.mark.parametrize("path", ["/v1/admin/tenants", "/v1/admin/tenants/{tenant_id}", "/readyz"])
async def test_a_tenants_key_does_not_open_the_operators_routes(canaried: tuple[Canaried, Canaried], path: str) -> None:
    answer = await call(canaried[0].access.client, "get", path, canaried[0].ids)
    assert answer.status_code == 401
    assert answer.json()["code"] == "invalid_key"


async def test_the_admin_key_does_not_open_a_tenants_routes(
    admin: httpx.AsyncClient, canaried: tuple[Canaried, Canaried]
) -> None:
    for method, path in await operations(admin):
        if path.startswith(("/v1/admin", "/v1/jobs/{")) or not path.startswith("/v1"):
            continue
        answer = await call(admin, method, path, canaried[0].ids)
        assert answer.status_code == 401, (method, path, answer.text)
        assert canaried[0].canary not in answer.text
