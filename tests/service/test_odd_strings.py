"""What Postgres cannot hold, NUL and half a surrogate pair, in every string of a request: refused, never a 5xx."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

if TYPE_CHECKING:
    from tests.conftest import TenantAccess

ODD = ("\x00", "a\x00b", "\ud800", "a\udfffb")
BODIES: dict[str, dict[str, Any]] = {
    "post /v1/search": {"query": "pier"},
    "post /v1/chat": {"message": "pier", "stream": False},
    "post /v1/documents/delete": {},
    "post /v1/jobs/retry": {},
    "post /v1/sources": {"kind": "feed", "name": "x", "config": {"url": "https://example.com/feed"}},
    "patch /v1/sources/{source_id}": {},
    "post /v1/admin/tenants": {"slug": "odd", "name": "x"},
    "patch /v1/admin/tenants/{tenant_id}": {},
    "post /v1/admin/tenants/{tenant_id}/placement": {"tier": "isolated"},
    "post /v1/admin/tenants/{tenant_id}/reindex": {},
    "post /v1/admin/tenants/{tenant_id}/keys": {"name": "x"},
    "post /v1/admin/fsck": {},
}
"""What each route takes but for the string that is put into it."""
Place = tuple[str | int, ...]


def places(schema: dict[str, Any], whole: dict[str, Any], at: Place = ()) -> Iterator[Place]:
    """Yield where a body of this schema may have a string; in what may hold anything, where its kinds have one."""
    if "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    for one in schema.get("anyOf", []):
        yield from places(one, whole, at)
    if schema.get("type") == "string":
        yield at
    elif schema.get("type") == "array":
        yield from places(schema["items"], whole, (*at, 0))
    elif schema.get("type") == "object":
        for name, part in schema.get("properties", {}).items():
            yield from places(part, whole, (*at, name))
        if schema.get("additionalProperties") is True:
            yield from ((*at, "url"), (*at, "a", "eq"), (*at, "a", "in", 0))


def put(body: Any, place: Place, value: Any) -> Any:
    """Return a body with something else at a place."""
    if not place:
        return value
    first, *rest = place
    if isinstance(first, int):
        return [put(None, tuple(rest), value)]
    inside = deepcopy(body) if isinstance(body, dict) else {}
    return {**inside, first: put(inside.get(first), tuple(rest), value)}


def odd_bodies(place: Place, body: dict[str, Any]) -> Iterator[Any]:
    for odd in ODD:
        yield put(body, place, odd)
        if isinstance(place[-1], str):
            yield put(body, (*place[:-1], odd), "a")


async def operations(client: httpx.AsyncClient) -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    whole = (await client.get("/openapi.json")).json()
    return [(method, path, one, whole) for path, all_ in whole["paths"].items() for method, one in all_.items()]


def given(path: str, tenant: TenantAccess, **others: str) -> str:
    """Return the path of an object that may not exist."""
    return re.sub(r"\{(\w+)\}", lambda name: {"tenant_id": tenant.id, **others}.get(name[1], str(uuid4())), path)


def client_of(path: str, tenant: TenantAccess, admin: httpx.AsyncClient) -> httpx.AsyncClient:
    return admin if path.startswith("/v1/admin") else tenant.client


async def fails(client: httpx.AsyncClient, method: str, url: str, **request: Any) -> bool:
    """Say whether the service fails at a request; after that it also closes the connection, perhaps at once."""
    try:
        return (await client.request(method, url, **request)).status_code >= 500
    except httpx.ReadError:
        return True


async def test_no_string_of_a_body_is_a_failure_of_the_service(tenant: TenantAccess, admin: httpx.AsyncClient) -> None:
    made = await tenant.client.post("/v1/sources", json=BODIES["post /v1/sources"])
    failed, asked = [], 0
    for method, path, operation, whole in await operations(tenant.client):
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if schema is None:
            continue
        client, url = client_of(path, tenant, admin), given(path, tenant, source_id=made.json()["id"])
        for place in places(schema, whole):
            for body in odd_bodies(place, BODIES[f"{method} {path}"]):
                kind = {"Content-Type": "application/json"}
                asked += 1
                if await fails(client, method, url, content=json.dumps(body), headers=kind):
                    failed.append((method, path, body))
    assert not failed
    assert asked > 200


async def test_no_string_of_an_address_is_either(tenant: TenantAccess, admin: httpx.AsyncClient) -> None:
    document = (await tenant.upload("The pier opens at nine."))["document"]["id"]
    failed, asked = [], 0
    for method, path, operation, _ in await operations(tenant.client):
        client, body = client_of(path, tenant, admin), BODIES.get(f"{method} {path}")
        urls = []
        for parameter in operation.get("parameters", []):
            for odd in ("%00", "a%00b", "%ED%A0%80", "%7B%22a%22%3A%7B%22eq%22%3A%22%5Cud800%22%7D%7D", "9" * 20):
                if parameter["in"] == "path":
                    urls.append(given(path, tenant, **{"document_id": document, parameter["name"]: odd}))
                else:
                    urls.append(f"{given(path, tenant)}?{parameter['name']}={odd}")
        for url in urls:
            asked += 1
            for headers in {}, {"Idempotency-Key": str(uuid4())}:
                if await fails(client, method, url, json=body, headers=headers):
                    failed.append((method, url, *headers))
    assert not failed
    assert asked > 100


@pytest.mark.parametrize("charset", ["utf-8", "utf-7", "undefined"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "odd"}])
async def test_no_string_of_a_form_is_either(tenant: TenantAccess, headers: dict[str, str], charset: str) -> None:
    texts = ["\x00", "+2AA-", '{"+2AA-": 1}', *(json.dumps(each) for odd in ODD for each in ({odd: 1}, {"a": odd}))]
    items = [json.dumps([{name: odd}]) for odd in ODD for name in ("external_id", "title", odd)]
    items += [json.dumps([{"metadata": one}]) for odd in ODD for one in ({odd: 1}, {"a": odd}, odd)]
    forms = [("/v1/documents", name, text) for text in texts for name in ("external_id", "title", "metadata", text)]
    forms += [("/v1/documents/bulk", "items", text) for text in texts + items]
    failed = []
    for path, name, text in forms:
        body = _form(name, text)
        kind = f"multipart/form-data; boundary=cut; charset={charset}"
        if await fails(tenant.client, "post", path, content=body, headers={**headers, "Content-Type": kind}):
            failed.append((path, name, text))
    assert not failed


def _form(name: str, text: str) -> bytes:
    part = '--cut\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n{}\r\n'
    file = part.format("file", f'; filename="{text[:9]}.txt"'.replace('"{', '"'), "")
    return (part.format(name.replace('"', ""), "", text) + file + "--cut--\r\n").encode()
