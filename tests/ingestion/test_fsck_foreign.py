"""Checks of the whole installation: what belongs to no tenant is found and removed, and a server that is away stops no
other tenant's check."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from ingestion import jobs
from ingestion.models import Job
from shards.lexical import ChunkText
from shards.names import Space, collection_prefix, lexical_name, tenant_database
from shards.vectors import ChunkVector
from tenants.auth import PLATFORM
from tests.conftest import TenantAccess, new_tenant, tessera
from tests.ingestion.damage import Stores, fsck, opened, unit_vector

if TYPE_CHECKING:
    from service.local.state import StackState

EXPECTED = {"vectors": {"orphan": 4, "wrong_tenant": 3}, "lexical": {"orphan": 1}, "objects": {"orphan": 2}}


async def test_what_belongs_to_no_tenant_is_found_and_removed(fragile_stack: StackState) -> None:
    """Not in the stack of the other tests: every tenant of it is checked, again and again."""
    stack, folder = fragile_stack, Path(fragile_stack.env["TESSERA_DATA_DIR"])
    headers = {"Authorization": f"Bearer {stack.admin_key}"}
    async with httpx.AsyncClient(base_url=stack.url, headers=headers, timeout=60) as admin, opened(stack) as stores:
        tenant = await new_tenant(admin, "tenant")
        async with tenant.client:
            await tenant.upload("The harbour master keeps a log.", external_id="log")
            root = Path(stack.env["TESSERA_OBJECTS_URL"].removeprefix("file://"))
            await strew_and_sweep(admin, tenant, stores, root)
            await a_server_is_away(admin, tenant, stores)
            checked = tessera("fsck", "--all", data_dir=folder)
            assert checked.returncode == 1, "nothing is known of what could not be checked"
            assert "not checked: vector server 'eu'" in checked.stdout
            answer = await admin.delete(f"/v1/admin/tenants/{tenant.id}")
            await ended(admin, answer)


async def a_server_is_away(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores) -> None:
    lost = await new_tenant(admin, "lost")
    async with lost.client:
        await lost.upload("The light vessel lies off the bank.")
    await stores.sql(lost, "UPDATE index_generations SET tier = 'isolated', endpoint = 'eu'")
    await stores.lexical.drop(stores.index(tenant))
    seen = await fsck(admin)
    left_behind = {"wrong_tenant": 1}  # in the pool, of whom Postgres has on the server that is away
    assert seen["differences"] == {"lexical": {"missing": 1}, "vectors": left_behind}, seen
    assert [skipped["what"] for skipped in seen["not_checked"]] == ["vector server 'eu'", f"tenant {lost.id}"]
    known = [one["id"] for one in (await admin.get("/v1/admin/tenants")).json()["items"]]
    assert seen["tenants"]["checked"] == len(known) - 1
    assert (await fsck(admin, repair=True))["left"] == {}
    found = await figures(admin)
    assert (found["not_checked"], found["tenants_checked"], found["tenants"]) == (2, len(known) - 1, len(known))
    suspended = await admin.post(f"/v1/admin/tenants/{lost.id}/suspend")
    assert suspended.status_code == 200, suspended.text
    found = await figures(admin)
    assert found["tenants_checked"] == found["tenants"] == len(known) - 1, "nobody checks it by schedule"

    # Where a check was cut off is where its repeat goes on.
    async with stores.database.tenant(PLATFORM) as session:
        newest = select(Job).where(Job.tenant_id == PLATFORM).order_by(Job.created_at.desc()).limit(1)
        state = (await session.scalars(newest)).one().payload
    assert state["so_far"]["last"] == max(known)
    async with stores.database.tenant(PLATFORM) as session, session.begin():
        state["so_far"]["result"]["tenants"]["checked"] = 4000
        job = jobs.new_job(PLATFORM, "fsck", payload=state)
        session.add(job)
    assert (await ended(admin, f"/v1/jobs/{job.id}"))["tenants"]["checked"] == 4000


async def figures(admin: httpx.AsyncClient) -> dict[str, Any]:
    """Return what `/metrics` says of checks, by name; of the differences those that are there, by class and store."""
    shown = list(text_string_to_metric_families((await admin.get("/metrics")).text))
    found: dict[str, Any] = {
        family.name.removeprefix("tessera_fsck_"): family.samples[0].value
        for family in shown
        if family.name.startswith("tessera_fsck_") and family.samples
    }
    [every] = [family for family in shown if family.name == "tessera_fsck_differences"]
    found["differences"] = {tuple(one.labels.values()): one.value for one in every.samples if one.value}
    return found


async def ended(admin: httpx.AsyncClient, where: httpx.Response | str) -> dict[str, Any]:
    location = where if isinstance(where, str) else where.headers["location"]
    for _ in range(600):
        job = (await admin.get(location)).json()
        if job["state"] in ("done", "failed"):
            break
        await asyncio.sleep(0.05)
    assert job["state"] == "done", job
    result: dict[str, Any] = job["result"]
    return result


async def strew_and_sweep(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, objects: Path) -> None:
    live = (await stores.live(tenant)).space
    nobody = uuid4()
    own, isolated = Space(nobody, 1, 8), Space(nobody, 2, 8, "isolated")
    for space in (own, isolated):
        await stores.vectors.create(space, cells=1)
    lodger = Space(nobody, 1, live.dim, "pooled", live.bucket)
    foreign = Space(UUID(tenant.id), 99, live.dim, "pooled", live.bucket)
    for space, count in ((lodger, 2), (foreign, 3)):
        rows = [ChunkVector(uuid4(), 1, unit_vector(live.dim)) for _ in range(count)]
        await stores.vectors.insert(space, {0: rows})
    await stores.lexical.insert(lexical_name(nobody), [ChunkText(uuid4(), 1, "", "nobody")])
    folder = objects / "tenants" / str(nobody) / str(uuid4())
    folder.mkdir(parents=True)
    for name in ("1", "2"):
        (folder / name).write_bytes(b"nobody's")

    seen = await fsck(admin)
    assert seen["differences"] == EXPECTED, seen
    assert (await figures(admin))["differences"] == {
        (kind, store): number for store, classes in EXPECTED.items() for kind, number in classes.items()
    }
    mended = await fsck(admin, repair=True)
    assert (mended["differences"], mended["left"]) == (EXPECTED, {}), mended
    assert (await figures(admin))["differences"] == {}, "an operator's check counts as the scheduled one does"
    assert (await fsck(admin))["differences"] == {}
    names = {place.collection for place in await stores.vectors.places()}
    assert not any(name.startswith(collection_prefix(nobody)) for name in names)
    assert tenant_database(nobody) not in {place.database for place in await stores.vectors.places()}
    assert lexical_name(nobody) not in await stores.lexical.indexes()
    assert str(nobody) not in await stores.objects.tenants()
    assert (await tenant.search("harbour log", k=1))[0]["external_id"] == "log", "whose rows lie beside it"
