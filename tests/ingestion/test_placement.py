"""A tenant's index moves between tiers while it is in use; the operator chooses and sees where it lies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

from tenants.db import Database
from tenants.settings import DatabaseSettings

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess

DOCUMENTS = 20


def sentence(number: int) -> str:
    return f"Warehouse {number} keeps {number * 7} crates of {('amber', 'salt', 'wool')[number % 3]} for the winter."


async def finished(admin: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    for _ in range(600):
        job: dict[str, Any] = (await admin.get(answer.headers["location"])).json()
        if job["state"] in ("done", "failed"):
            break
        await asyncio.sleep(0.05)
    assert job["state"] == "done", job
    assert answer.json()["job"]["id"] == job["id"]
    return job


async def place(admin: httpx.AsyncClient, tenant: TenantAccess, **wanted: str) -> dict[str, Any]:
    path = f"/v1/admin/tenants/{tenant.id}"
    return await finished(admin, await admin.post(f"{path}/placement", json=wanted))


async def shards(admin: httpx.AsyncClient, tenant: TenantAccess) -> dict[str, Any]:
    shown: dict[str, Any] = (await admin.get(f"/v1/admin/tenants/{tenant.id}/shards")).json()
    return shown


async def test_an_index_moves_while_it_is_used(
    tenant: TenantAccess, other_tenant: TenantAccess, admin: httpx.AsyncClient
) -> None:
    first = (tenant.upload(sentence(n), f"{n}.txt", external_id=str(n)) for n in range(DOCUMENTS))
    await asyncio.gather(*first)
    await other_tenant.upload(sentence(1), "1.txt", external_id="foreign")
    assert (await shards(admin, tenant))["tier"] == "pooled"
    ended, asked, written = asyncio.Event(), 0, DOCUMENTS

    async def ask() -> None:
        nonlocal asked
        while not ended.is_set():
            for exact in (False, True):
                body = {"query": sentence(3), "k": 5, "exact": exact}
                hits = (await tenant.client.post("/v1/search", json=body)).json()["hits"]
                assert [hit["external_id"] for hit in hits].count("3") == 1
            asked += 1
            await asyncio.sleep(0.05)

    async def write() -> None:
        nonlocal written
        while not ended.is_set():
            await tenant.upload(sentence(written), f"{written}.txt", external_id=str(written))
            written += 1

    busy = [asyncio.create_task(ask()), asyncio.create_task(write())]
    for tier in ("dedicated", "isolated", "pooled", "isolated", "auto"):
        job = await place(admin, tenant, tier=tier)
        assert job["result"]["tier"] == (tier if tier != "auto" else "pooled"), job
        assert job["result"]["why"] == "placement"
        shown = await shards(admin, tenant)
        assert shown["tier"] == job["result"]["tier"]
        assert not any(task.done() for task in busy)
    ended.set()
    await asyncio.gather(*busy)
    assert asked >= 5
    await nothing_is_missing(tenant, written)
    assert [hit["external_id"] for hit in await other_tenant.search(sentence(1))] == ["foreign"]
    job = await finished(admin, await admin.post(f"/v1/admin/tenants/{tenant.id}/reindex", json={}))
    assert job["result"] == {"split": 0, "merged": 0, "calibrated": False}, "there is nothing to train in a pool"
    await place(admin, tenant, tier="dedicated")
    job = await finished(admin, await admin.post(f"/v1/admin/tenants/{tenant.id}/reindex", json={"cells": 5}))
    assert (job["result"]["cells"], job["result"]["why"]) == (5, "asked")
    job = await finished(admin, await admin.post(f"/v1/admin/tenants/{tenant.id}/calibrate"))
    assert job["result"]["calibrated"]
    assert (await shards(admin, tenant))["calibration"]["source"] == "sentences"
    await nothing_is_missing(tenant, written)


async def nothing_is_missing(tenant: TenantAccess, written: int) -> None:
    for number in range(0, written, 7):
        body = {"query": sentence(number), "k": 10, "exact": True}
        hits = (await tenant.client.post("/v1/search", json=body)).json()["hits"]
        found = [hit["external_id"] for hit in hits]
        assert found.count(str(number)) == 1, number
        assert len(set(found)) == len(found)


async def test_what_cannot_be_is_refused_by_its_range(tenant: TenantAccess, admin: httpx.AsyncClient) -> None:
    path = f"/v1/admin/tenants/{tenant.id}"
    for route, body, named in (
        ("placement", {"tier": "shared"}, "'auto', 'pooled', 'dedicated' or 'isolated'"),
        ("placement", {"tier": "isolated", "endpoint": "moon"}, "TESSERA_MILVUS_ENDPOINTS"),
        ("placement", {"tier": "pooled", "endpoint": "moon"}, "isolated only"),
        ("reindex", {"cells": 0}, "greater than or equal to 1"),
        ("reindex", {"cells": 981}, "less than or equal to 980"),
    ):
        answer = await admin.post(f"{path}/{route}", json=body)
        assert answer.status_code == 422, (route, body)
        assert named in answer.text
    for body in ({"tier": "tiny"}, {"tier": "isolated", "endpoint": "moon"}):
        answer = await admin.post("/v1/admin/tenants", json={"slug": "refused", "name": "r", "placement": body})
        assert answer.status_code == 422
    assert not (await admin.get("/v1/admin/tenants", params={"slug": "refused"})).json()["items"]
    assert (await admin.get(path)).json()["placement"] == "auto", "what was refused changed nothing"


async def test_the_operator_sees_all_indexes(tenant: TenantAccess, admin: httpx.AsyncClient) -> None:
    await tenant.upload("A harbour of grain.", "grain.txt")
    shown = (await admin.get("/v1/admin/shards")).json()
    [server] = shown["servers"]
    assert server["endpoint"] == ""
    assert 0 < server["partitions"] < server["budget"]
    pooled = next(tier for tier in shown["tiers"] if tier["tier"] == "pooled")
    assert pooled["tenants"] >= 1
    assert pooled["rows"] >= 1
    assert (await tenant.client.get("/v1/admin/shards")).status_code == 401


async def test_a_cold_index_is_released_and_wakes(
    tenant: TenantAccess, admin: httpx.AsyncClient, stack: StackState
) -> None:
    await tenant.upload(sentence(5), "5.txt", external_id="5")
    await place(admin, tenant, tier="dedicated")
    database = Database(stack.env["TESSERA_DATABASE_WORKER_URL"], DatabaseSettings(pool_size=1))
    async with database.tenant(UUID(tenant.id)) as session, session.begin():
        await session.execute(text("UPDATE index_use SET used_at = now() - interval '2 days'"))
    await database.aclose()
    for _ in range(120):
        shown = await shards(admin, tenant)
        if shown["released_at"]:
            break
        await asyncio.sleep(0.25)
    assert shown["released_at"], shown
    assert [hit["external_id"] for hit in await tenant.search(sentence(5))] == ["5"]
    for _ in range(60):
        shown = await shards(admin, tenant)
        if not shown["released_at"]:
            break
        await asyncio.sleep(0.25)
    assert shown["released_at"] is None
    assert 0 < shown["woke_ms"] < 10_000
