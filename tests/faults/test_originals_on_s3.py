"""A stack whose originals are on an S3 server that goes away, refuses, and comes back: uploads say so, and go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.conftest import TenantAccess, new_tenant
from tests.faults.own_stack import own_stack
from tests.faults.proxy import Proxy, proxy_before
from tests.faults.test_short_of_stores import erase, until_it_waits
from tests.ingestion.s3_server import S3Server
from tests.servers import server

if TYPE_CHECKING:
    from service.local.state import StackState


@dataclass(frozen=True)
class OnS3:
    """A tenant of the stack, its S3 server, and the proxy between the two."""

    tenant: TenantAccess
    s3: S3Server
    proxy: Proxy


@pytest.fixture(scope="module")
async def on_s3(fragile_stack: StackState, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[OnS3]:
    """A stack of its own with the other's Milvus."""
    s3 = S3Server(server("s3")["program"], tmp_path_factory.mktemp("s3") / "s3")
    s3.start()
    with ExitStack() as held:
        held.callback(s3.kill)
        proxy = held.enter_context(proxy_before(s3.port))
        told = s3.settings(proxy.port).model_dump(exclude_unset=True, exclude={"secret_access_key"})
        given = {f"TESSERA_OBJECTS_{name.upper()}": str(value) for name, value in told.items()}
        given["TESSERA_OBJECTS_SECRET_ACCESS_KEY"] = s3.settings().secret_access_key.get_secret_value()
        given["TESSERA_MILVUS_URI"] = fragile_stack.env["TESSERA_MILVUS_URI"]
        own = held.enter_context(own_stack(tmp_path_factory.mktemp("on_s3") / "data", **given))
        headers = {"Authorization": f"Bearer {own.admin_key}"}
        async with httpx.AsyncClient(base_url=own.url, headers=headers, timeout=60) as admin:
            tenant = await new_tenant(admin, "on-s3")
            async with tenant.client:
                yield OnS3(tenant, s3, proxy)
            proxy.heal()
            await erase(admin, tenant)


async def refused(tenant: TenantAccess, name: str) -> str:
    """Upload a document that cannot be taken; return the code of the problem."""
    text = f"The ferry to {name} leaves at noon."
    answer = await tenant.client.post("/v1/documents", files={"file": (f"{name}.txt", text.encode())})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), answer.text
    code: str = answer.json()["code"]
    return code


async def titles(tenant: TenantAccess) -> set[str]:
    return {one["title"] for one in (await tenant.client.get("/v1/documents")).json()["items"]}


async def test_uploads_say_why_they_cannot_be_taken_and_go_on_by_themselves(on_s3: OnS3) -> None:
    tenant = on_s3.tenant
    first = await tenant.upload("The ferry to Amber leaves at dawn.", "amber.txt")
    assert first["job"]["state"] == "done"
    assert list((on_s3.s3.folder / "originals" / "tenants" / tenant.id).iterdir())
    for mode in ("reset", "silence"):
        on_s3.proxy.fail(mode)
        assert await refused(tenant, mode) == "objects_unavailable"
        assert await tenant.search("When does the ferry to Amber leave?"), "questions do not need originals"
    on_s3.proxy.heal()
    on_s3.s3.kill()
    assert await refused(tenant, "killed") == "objects_unavailable"
    on_s3.s3.start("--readonly")
    assert await refused(tenant, "readonly") == "objects_refused"
    on_s3.s3.kill()
    on_s3.s3.start()
    assert (await tenant.upload("The ferry to Salt leaves at dusk.", "salt.txt"))["job"]["state"] == "done"
    assert await titles(tenant) == {"amber", "salt"}, "nothing is left of what was refused"
    content = await tenant.client.get(f"/v1/documents/{first['document']['id']}/content")
    assert content.text == "The ferry to Amber leaves at dawn."


async def test_uploads_that_hang_leave_the_database_to_everyone_else(on_s3: OnS3) -> None:
    """Each holds a connection as long as the object store does not answer, and a process has 20."""
    tenant = on_s3.tenant
    await tenant.upload("The ferry to Amber leaves at dawn.", "hang.txt")
    on_s3.proxy.fail("silence")
    files = [{"file": (f"{number}.txt", f"Ferry {number} leaves at noon.".encode())} for number in range(40)]
    uploads = [asyncio.create_task(tenant.client.post("/v1/documents", files=file)) for file in files]
    await asyncio.sleep(1)
    assert await tenant.search("When does the ferry to Amber leave?", filter={"format": {"eq": "txt"}})
    assert sum(upload.done() for upload in uploads) < 20, "the question had to wait for uploads to give up"
    on_s3.proxy.heal()
    told = {answer.status_code for answer in await asyncio.gather(*uploads)}
    assert told <= {202, 503}


async def test_a_job_that_needs_an_original_waits_for_the_store(on_s3: OnS3) -> None:
    tenant = on_s3.tenant
    first = await tenant.upload("The ferry to Wool leaves at one.", "wool.txt")
    on_s3.proxy.fail("reset")
    gone = await tenant.client.delete(f"/v1/documents/{first['document']['id']}")
    waits = await until_it_waits(tenant, gone.json()["job"]["id"])
    assert waits["error"]["code"] == "objects_unavailable"
    assert not [hit for hit in await tenant.search("ferry to Wool") if "Wool" in hit["text"]]
    on_s3.proxy.heal()
    done = await tenant.job(gone.json()["job"]["id"])
    assert (done["state"], done["result"]["objects"]) == ("done", 1)
