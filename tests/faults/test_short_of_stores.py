"""A stack whose Milvus fails in every way a network can fail, and whose object store is full: each says so, and both go
on by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import TenantAccess, new_tenant
from tests.faults import small_disk, victims
from tests.faults.own_stack import own_stack
from tests.faults.proxy import Mode, Proxy, proxy_before

if TYPE_CHECKING:
    from service.local.state import StackState

FAILURES_S = 1.5
"""How long a way of failing lasts after an upload was seen to wait for its end."""


@dataclass(frozen=True)
class Short:
    """The stack, a tenant of it, the proxy before its Milvus, and where its originals are kept."""

    stack: StackState
    tenant: TenantAccess
    milvus: Proxy
    objects: Path
    small: bool


@pytest.fixture(scope="module")
async def short(fragile_stack: StackState, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Short]:
    """A stack of its own, with the other's Milvus behind a proxy, and a small file system where it may have one."""
    folder = tmp_path_factory.mktemp("short")
    objects = folder / "objects"
    objects.mkdir()
    before = small_disk.words_before(objects)
    target = urlsplit(fragile_stack.env["TESSERA_MILVUS_URI"]).port
    assert target is not None
    with ExitStack() as held:
        milvus = held.enter_context(proxy_before(target))
        given = {"TESSERA_MILVUS_URI": f"http://127.0.0.1:{milvus.port}", "TESSERA_MILVUS_TIMEOUT_S": "3"}
        given |= {"TESSERA_OBJECTS_URL": f"file://{objects}"}
        own = held.enter_context(own_stack(folder / "data", before=before, **given))
        headers = {"Authorization": f"Bearer {own.admin_key}"}
        async with httpx.AsyncClient(base_url=own.url, headers=headers, timeout=60) as admin:
            tenant = await new_tenant(admin, "short")
            async with tenant.client:
                yield Short(own, tenant, milvus, objects, small=bool(before))
            milvus.heal()
            await erase(admin, tenant)


async def erase(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    """Leave nothing in the Milvus of the other stack, to which this tenant is nobody."""
    erasing = (await admin.delete(f"/v1/admin/tenants/{tenant.id}")).headers["location"]
    async with asyncio.timeout(60):
        while (job := (await admin.get(erasing)).json())["state"] != "done":
            assert job["state"] != "failed", job
            await asyncio.sleep(0.1)


async def search(tenant: TenantAccess, query: str) -> dict[str, Any]:
    answer = await tenant.client.post("/v1/search", json={"query": query})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("mode", ["reset", "silence", "errors"])
async def test_while_milvus_fails_searches_say_so_and_uploads_wait(short: Short, mode: Mode) -> None:
    tenant = short.tenant
    await tenant.upload(f"The lighthouse of {mode} island burns whale oil.", f"{mode}-1.txt")
    question = f"What does the lighthouse of {mode} island burn?"
    assert (await search(tenant, question))["degraded"] == []
    short.milvus.fail(mode)
    body = await search(tenant, question)
    assert body["degraded"] == ["ann"]
    assert f"lighthouse of {mode} island" in body["hits"][0]["text"]
    text = f"The keeper of {mode} island paints the stairs of the lighthouse each spring."
    answer = await tenant.client.post("/v1/documents", files={"file": (f"{mode}-2.txt", text.encode())})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["job"]["id"]
    waited = await until_it_waits(tenant, job_id)
    assert (waited["attempts"], waited["error"]["code"]) == (0, "vectors_unavailable"), "to wait is no attempt"
    await asyncio.sleep(FAILURES_S)
    for _ in range(20):  # each would wait for the whole time-out if the server were not left alone for a while
        assert (await search(tenant, question))["degraded"] == ["ann"]
    short.milvus.heal()
    done = await tenant.job(job_id)
    assert (done["state"], done["attempts"]) == ("done", 1), done
    while (await search(tenant, question))["degraded"]:
        await asyncio.sleep(0.1)
    hits = await tenant.search(f"What does the keeper of {mode} island paint?")
    assert len([hit for hit in hits if "paints the stairs" in hit["text"] and mode in hit["text"]]) == 1


async def until_it_waits(tenant: TenantAccess, job_id: str) -> dict[str, Any]:
    for _ in range(900):
        job: dict[str, Any] = (await tenant.client.get(f"/v1/jobs/{job_id}")).json()
        assert job["state"] not in ("done", "failed"), job
        if job["state"] == "retrying":
            return job
        await asyncio.sleep(0.05)
    raise AssertionError(f"the job does not wait: {job}")


async def test_a_full_object_store_refuses_and_keeps_nothing_of_it(short: Short) -> None:
    if not short.small:
        pytest.skip("this machine does not allow a small file system to be mounted (unshare --user --mount)")
    tenant, api = short.tenant, victims.child_of(Path(short.stack.env["TESSERA_DATA_DIR"]), "api").pid
    first = await tenant.upload(page("first", 300), "first.html", external_id="first")
    assert first["job"]["state"] == "done"
    stored = small_disk.files_inside(api, short.objects)

    full = await tenant.client.post("/v1/documents", files={"file": ("big.html", page("big", 600))})
    assert (full.status_code, full.headers["content-type"]) == (507, "application/problem+json")
    assert full.json()["code"] == "objects_full"
    files = [("file", (f"{n}.html", page(str(n), 100))) for n in range(10)]
    bulk = await tenant.client.post("/v1/documents/bulk", files=files)
    assert (bulk.status_code, bulk.json()["code"]) == (507, "objects_full")
    assert small_disk.files_inside(api, short.objects) == stored, "nothing half-stored"
    listed = (await tenant.client.get("/v1/documents", params={"limit": 100})).json()["items"]
    assert {"big", *map(str, range(10))}.isdisjoint(document["title"] for document in listed)
    jobs = (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]
    assert {job["state"] for job in jobs} == {"done"}

    gone = await tenant.client.delete(f"/v1/documents/{first['document']['id']}")
    await tenant.job(gone.json()["job"]["id"])
    again = await tenant.upload(page("big", 600), "big.html")
    assert again["job"]["state"] == "done"


def page(word: str, kibibytes: int) -> bytes:
    """Return a document of little text and so many kibibytes."""
    return f"<p>The page on {word}.</p><!--{'-' * 1024 * kibibytes}-->".encode()
