"""What the operator sees of a check; and nothing false while tenants are busy."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shards.lexical import ChunkText
from shards.vectors import ChunkVector
from tests.ingestion.damage import Stores, fsck, opened, unit_vector

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess


@pytest.fixture(scope="module")
async def stores(stack: StackState) -> AsyncIterator[Stores]:
    async with opened(stack) as found:
        yield found


async def test_the_figures_are_exported(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores) -> None:
    made = await tenant.upload("Ballast is taken on at the north quay.")

    async def values() -> dict[str, dict[tuple[str, ...], float]]:
        text = (await admin.get("/metrics")).text
        return {
            family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
            for family in text_string_to_metric_families(text)
        }

    await stores.lexical.drop(stores.index(tenant))
    await fsck(admin, tenant)
    seen = await values()
    assert seen["tessera_fsck_differences"]["missing", "lexical"] >= 1
    assert 1 <= seen["tessera_fsck_tenants_checked"][()] <= seen["tessera_fsck_tenants"][()]
    assert seen["tessera_fsck_last_run_timestamp_seconds"][()] > 1_600_000_000
    await fsck(admin, tenant, repair=True)
    after = await values()
    before = seen["tessera_fsck_differences"]["missing", "lexical"]
    assert after["tessera_fsck_differences"].get(("missing", "lexical"), 0) == before - 1
    assert after["tessera_fsck_repaired"][()] >= 1
    answer = await tenant.client.delete(f"/v1/documents/{made['document']['id']}")
    await tenant.job(answer.json()["job"]["id"])
    assert "tessera_removals_oldest_seconds" in await values()


@pytest.mark.parametrize("body", [{"tenant_id": "x"}, {"repair": "perhaps"}, {"unknown": 1}])
async def test_a_wrong_request_is_refused(admin: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await admin.post("/v1/admin/fsck", json=body)).status_code == 422


async def test_an_unknown_tenant_is_not_checked(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    assert (await admin.post("/v1/admin/fsck", json={"tenant_id": str(uuid4())})).status_code == 404
    assert (await tenant.client.post("/v1/admin/fsck", json={})).status_code == 401


async def test_a_busy_tenant_shows_no_false_difference(admin: httpx.AsyncClient, tenant: TenantAccess) -> None:
    """Uploads, replacements, deletes and moves between tiers go on; a check finds nothing at any moment."""
    random_ = random.Random(5)
    ended, made, jobs = asyncio.Event(), dict[str, str](), deque[str]()

    async def write() -> None:
        while not ended.is_set():
            name = str(random_.randrange(12))
            if name in made and random_.random() < 0.4:
                answer = await tenant.client.delete(f"/v1/documents/{made.pop(name)}")
            else:
                text = f"# Log {name}\n\nEntry {random_.random()}\n\n# More\n\nHarbour {random_.random()}"
                files = {"file": (f"{name}.md", text.encode())}
                answer = await tenant.client.post("/v1/documents", files=files, data={"external_id": name})
                made[name] = answer.json()["document"]["id"]
            jobs.append(answer.json()["job"]["id"])
            if len(jobs) > 20:  # servers take longer for a move, and what is written meanwhile waits for it
                await tenant.job(jobs.popleft())
            await asyncio.sleep(random_.random() / 4)

    async def move() -> None:
        for tier in ("dedicated", "isolated", "auto"):
            answer = await admin.post(f"/v1/admin/tenants/{tenant.id}/placement", json={"tier": tier})
            while answer.status_code == 202:
                if (await admin.get(answer.headers["location"])).json()["state"] in ("done", "failed"):
                    break
                await asyncio.sleep(0.05)

    busy = [asyncio.create_task(write()), asyncio.create_task(write())]
    moving = asyncio.create_task(move())
    reports: list[dict[str, Any]] = []
    while not moving.done() or len(reports) < 8:
        reports.append(await fsck(admin, tenant))
    ended.set()
    await asyncio.gather(*busy, moving)
    assert not [report for report in reports if report["total"]]
    await ended_jobs(tenant)
    report = await fsck(admin, tenant, deep=True)
    assert (report["total"], report["checked"]["documents"]) == (0, len(made)), report


async def ended_jobs(tenant: TenantAccess) -> None:
    """Wait for the tenant's jobs, the oldest first, but for the dropping of an index that others may still read, which
    is put off."""
    for job in reversed((await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]):
        if job["kind"] != "drop_generation":
            await tenant.job(job["id"])


async def test_any_damage_is_mended(
    admin: httpx.AsyncClient, make_tenant: Callable[[str], Awaitable[TenantAccess]], stores: Stores
) -> None:
    """A random program of damage over tenants of every tier: after one repair nothing is left and all is found."""
    random_ = random.Random(11)
    for tier in ("pooled", "dedicated", "isolated"):
        tenant = await make_tenant(tier)
        async with tenant.client:
            names = [str(n) for n in range(8)]
            texts = {
                name: f"# Log {name}\n\nBeacon {name} burns oil.\n\n# More\n\nKeeper {name} rows." for name in names
            }
            await asyncio.gather(*(tenant.upload(texts[name], f"{name}.md", external_id=name) for name in names))
            if tier != "pooled":
                placed = await admin.post(f"/v1/admin/tenants/{tenant.id}/placement", json={"tier": tier})
                while (await admin.get(placed.headers["location"])).json()["state"] != "done":
                    await asyncio.sleep(0.05)
            await damage(stores, tenant, random_)
            assert (await fsck(admin, tenant))["total"] > 0
            mended = await fsck(admin, tenant, repair=True)
            assert mended["left"] == {}, mended
            await ended_jobs(tenant)
            assert (await fsck(admin, tenant, deep=True))["total"] == 0
            for name in names:
                hit = (await tenant.search(f"Beacon {name} oil", k=1))[0]
                assert (hit["external_id"], hit["ranks"]["ann"] is not None) == (name, True)


async def damage(stores: Stores, tenant: TenantAccess, random_: random.Random) -> None:
    space, index = (await stores.live(tenant)).space, stores.index(tenant)
    for _ in range(12):
        chunks = [row.id for row in await stores.sql(tenant, "SELECT id FROM chunks ORDER BY id")]
        some = random_.sample(chunks, 2)
        version = random_.choice([1, 10**12, 10**12 + 1])
        choice = random_.randrange(8)
        if choice == 0:
            await stores.vectors.delete_chunks(space, {0: some})
        elif choice == 1:
            await stores.vectors.insert(space, {0: [ChunkVector(uuid4(), version, unit_vector(space.dim))]})
        elif choice == 2:
            await stores.lexical.delete_chunks(index, some)
        elif choice == 3:
            await stores.lexical.insert(index, [ChunkText(uuid4(), version, "stray", "entry")])
        elif choice == 4:
            await stores.sql(tenant, "DELETE FROM chunk_cells WHERE chunk_id = ANY(:ids)", ids=some)
        elif choice == 5:
            await stores.sql(tenant, "DELETE FROM chunks WHERE id = :one", one=some[0])
        elif choice == 6:
            await stores.sql(tenant, "UPDATE micro_cells SET rows = 0")
        else:
            await stores.lexical.insert(index, [ChunkText(some[0], version, "wrong", "version")])
