"""Tenants and keys over HTTP on the running stack."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest
from redis import Redis

from tenants import keys
from tests.ingestion.damage import opened
from tests.servers import addresses

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess


def slug() -> str:
    return f"s-{secrets.token_hex(5)}"


async def test_creating_is_idempotent_by_slug(admin: httpx.AsyncClient) -> None:
    body = {"slug": slug(), "name": "One", "settings": {"bm25_weight": 0.4}}
    first = await admin.post("/v1/admin/tenants", json=body)
    again = await admin.post("/v1/admin/tenants", json=body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert first.json()["settings"] == {"bm25_weight": 0.4}
    other = await admin.post("/v1/admin/tenants", json={**body, "name": "Two"})
    assert (other.status_code, other.json()["code"]) == (409, "slug_taken")


async def test_creating_one_slug_many_times_at_once_makes_one_tenant(admin: httpx.AsyncClient) -> None:
    body = {"slug": slug(), "name": "Once"}
    answers = await asyncio.gather(*(admin.post("/v1/admin/tenants", json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x"}, "body.slug"),
        ({"slug": "Bad Slug", "name": "x"}, "body.slug"),
        ({"slug": "-a", "name": "x"}, "body.slug"),
        ({"slug": "a" * 64, "name": "x"}, "body.slug"),
        ({"slug": "a", "name": ""}, "body.name"),
        ({"slug": "a", "name": "x", "settings": {"bm25_weight": 2}}, "body.settings.bm25_weight"),
        ({"slug": "a", "name": "x", "settings": {"colour": 1}}, "body.settings.colour"),
        ({"slug": "a", "name": "x", "settings": {"recall_target": 1.5}}, "body.settings.recall_target"),
        ({"slug": "a", "name": "x", "settings": {"recall_target": 0.2}}, "body.settings.recall_target"),
        ({"slug": "a", "name": "x", "id": "1"}, "body.id"),
    ],
)
async def test_a_wrong_tenant_is_pointed_at(admin: httpx.AsyncClient, body: dict[str, Any], pointer: str) -> None:
    answer = await admin.post("/v1/admin/tenants", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_tenants_are_listed_in_pages(admin: httpx.AsyncClient) -> None:
    made = [(await admin.post("/v1/admin/tenants", json={"slug": slug(), "name": "p"})).json()["id"] for _ in range(3)]
    first = (await admin.get("/v1/admin/tenants", params={"limit": 2})).json()
    second = (await admin.get("/v1/admin/tenants", params={"limit": 2, "cursor": first["next"]})).json()
    seen = [item["id"] for item in first["items"] + second["items"]]
    assert seen[:3] == made[::-1]
    wanted = first["items"][0]["slug"]
    found = (await admin.get("/v1/admin/tenants", params={"slug": wanted})).json()["items"]
    assert [item["slug"] for item in found] == [wanted]


async def test_a_tenant_can_be_changed(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    path = f"/v1/admin/tenants/{tenant.id}"
    changed = await admin.patch(path, json={"name": "New", "settings": {"bm25_weight": 0.2}})
    assert changed.status_code == 200
    kept = (await admin.get(path)).json()
    assert (kept["name"], kept["settings"], kept["plan"]) == ("New", {"bm25_weight": 0.2}, "standard")


async def test_a_suspended_tenant_is_refused_and_resumes(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    await tenant.upload("The lighthouse keeper has a green door.")
    suspended = await admin.post(f"/v1/admin/tenants/{tenant.id}/suspend")
    assert suspended.json()["state"] == "suspended"
    await asyncio.sleep(1.0)
    for call in (tenant.client.get("/v1/documents"), tenant.client.post("/v1/search", json={"query": "door"})):
        answer = await call
        assert (answer.status_code, answer.json()["code"]) == (403, "tenant_suspended")
    await admin.post(f"/v1/admin/tenants/{tenant.id}/resume")
    assert len(await tenant.search("Who has a green door?")) == 1


async def test_a_key_is_shown_once_and_only_its_hmac_is_kept(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    listed = (await admin.get(f"/v1/admin/tenants/{tenant.id}/keys")).json()["items"]
    assert [item["id"] for item in listed] == [keys.parse_key(tenant.key).id]
    assert keys.parse_key(tenant.key).secret not in str(listed)
    assert set(listed[0]) == {"id", "name", "created_at", "expires_at", "revoked_at", "last_used_at"}


async def test_a_repeated_key_creation_is_not_done_twice_and_shows_nothing(
    admin: httpx.AsyncClient, tenant: TenantAccess
) -> None:
    path = f"/v1/admin/tenants/{tenant.id}/keys"
    headers = {"Idempotency-Key": f"key-{tenant.id}"}
    first = await admin.post(path, json={"name": "second"}, headers=headers)
    assert first.status_code == 201
    again = await admin.post(path, json={"name": "second"}, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "shown_once")
    assert len((await admin.get(path)).json()["items"]) == 2
    async with httpx.AsyncClient(base_url=str(admin.base_url)) as nobody:
        stolen = await nobody.post(path, json={"name": "second"}, headers=headers)
    assert (stolen.status_code, stolen.json()["code"]) == (401, "missing_key")


async def test_two_keys_may_be_active(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    path = f"/v1/admin/tenants/{tenant.id}/keys"
    second = await admin.post(path, json={"name": "second"})
    assert second.status_code == 201
    third = await admin.post(path, json={"name": "third"})
    assert (third.status_code, third.json()["code"]) == (409, "too_many_keys")
    await admin.delete(f"{path}/{second.json()['id']}")
    assert (await admin.post(path, json={"name": "third"})).status_code == 201


async def test_a_revoked_key_stops_within_a_second(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    assert (await tenant.client.get("/v1/documents")).status_code == 200
    path = f"/v1/admin/tenants/{tenant.id}/keys/{keys.parse_key(tenant.key).id}"
    assert (await admin.delete(path)).status_code == 204
    revoked_at = time.monotonic()
    while (answer := await tenant.client.get("/v1/documents")).status_code == 200:
        assert time.monotonic() - revoked_at < 1.0, "still accepted after a second"
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key")


async def test_an_expired_key_is_refused(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    path = f"/v1/admin/tenants/{tenant.id}/keys"
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    key = (await admin.post(path, json={"name": "short", "expires_at": soon})).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    assert (await tenant.client.get("/v1/documents", headers=headers)).status_code == 200
    await asyncio.sleep(1.1)
    assert (await tenant.client.get("/v1/documents", headers=headers)).status_code == 401
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    answer = await admin.post(path, json={"name": "past", "expires_at": past})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "body.expires_at")


async def test_every_way_of_having_no_key(tenant: TenantAccess) -> None:
    parts, unknown = keys.generate_key()
    other_secret = tenant.key[:22] + unknown[22:]
    cases = [
        (None, "missing_key"),
        ("Basic abc", "missing_key"),
        ("Bearer nonsense", "malformed_key"),
        (f"Bearer {tenant.key[:-1]}x" if tenant.key[-1] != "x" else f"Bearer {tenant.key[:-1]}y", "malformed_key"),
        (f"Bearer {unknown}", "invalid_key"),
        (f"Bearer {other_secret}", "malformed_key"),
    ]
    async with httpx.AsyncClient(base_url=str(tenant.client.base_url)) as client:
        for header, code in cases:
            answer = await client.get("/v1/documents", headers={"Authorization": header} if header else {})
            assert (answer.status_code, answer.json()["code"]) == (401, code), header
            assert answer.headers["www-authenticate"] == "Bearer"
            assert parts.secret not in answer.text


async def test_deleting_a_tenant_removes_everything_and_gives_a_receipt(
    admin: httpx.AsyncClient, stack: StackState, make_tenant: Any
) -> None:
    tenant: TenantAccess = await make_tenant("erased")
    for i in range(3):
        await tenant.upload(f"# Paper {i}\n\nThe paper number {i} is about gulls.", f"{i}.md", metadata='{"a": "b"}')
    await tenant.client.post("/v1/chat", json={"message": "gulls?", "stream": False})
    deleted = await admin.delete(f"/v1/admin/tenants/{tenant.id}")
    assert deleted.status_code == 202
    for _ in range(300):
        job = (await admin.get(deleted.headers["location"])).json()
        if job["state"] in ("done", "failed"):
            break
        await asyncio.sleep(0.1)
    receipt = job["result"]
    assert job["state"] == "done", job
    assert (receipt["vectors"], receipt["lexical_entries"], receipt["objects"], receipt["collections"]) == (3, 3, 3, 0)
    rows = receipt["rows"]
    assert (rows["documents"], rows["chunks"], rows["conversations"], rows["messages"]) == (3, 3, 1, 2)
    assert (await tenant.client.get("/v1/documents")).status_code == 401
    assert (await admin.get(f"/v1/admin/tenants/{tenant.id}")).status_code == 404
    assert set(receipt["verified"].values()) == {0}, receipt["verified"]
    assert {"rows", "objects", "vectors", "collections", "lexical_entries"} == receipt["verified"].keys()
    assert receipt["purged_at"]
    assert not await left_in_stores(stack, tenant.id)
    assert not left_in_folders(stack, tenant.id)
    assert not in_redis(stack, tenant.id)
    again = await admin.post("/v1/admin/tenants", json={"slug": tenant.slug, "name": "again"})
    assert again.status_code == 201
    assert again.json()["id"] != tenant.id
    await tenant.client.aclose()


def in_redis(stack: StackState, tenant_id: str) -> list[bytes]:
    """Return the keys of Redis that bear the tenant's name, or hold it."""
    redis = Redis.from_url(stack.env["TESSERA_REDIS_URL"])
    names = (tenant_id.encode(), tenant_id.replace("-", "").encode())
    found = [key for key in redis.scan_iter() if any(name in key + (redis.dump(key) or b"") for name in names)]
    redis.close()
    return found


async def left_in_stores(stack: StackState, tenant_id: str) -> list[str]:
    """Return whatever is the tenant's in any store, known to Postgres or not."""
    tenant = UUID(tenant_id)
    async with opened(stack) as stores:
        left = await stores.objects.list_tenant(tenant) + await stores.lexical.indexes(of=tenant)
        left += [str(place) for place in await stores.vectors.places(tenant)]
        for place in await stores.vectors.places():
            if place.collection.startswith("pool_"):
                rows = [row for page in [page async for page in stores.vectors.pool_rows(place)] for row in page]
                left += [str(row) for row in rows if row.tenant_id == tenant]
    return left


def left_in_folders(stack: StackState, tenant_id: str) -> list[str]:
    """Return the files that bear the tenant's name, in the folders of what is on this machine."""
    names = (tenant_id, tenant_id.replace("-", ""))
    on_servers = {
        "objects": not stack.env["TESSERA_OBJECTS_URL"].startswith("file:"),
        "lexical": stack.env["TESSERA_LEXICAL_URL"],
        "milvus": addresses(),
    }
    folders = [
        Path(stack.env["TESSERA_DATA_DIR"]) / folder for folder, elsewhere in on_servers.items() if not elsewhere
    ]
    assert all(folder.is_dir() for folder in folders)
    return [str(path) for folder in folders for path in folder.rglob("*") if any(name in path.name for name in names)]
