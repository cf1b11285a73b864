"""What belongs to no tenant, whose turn it is, what the operator sees; and nothing false while tenants are busy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shards.lexical import ChunkText
from shards.names import Space, collection_prefix, lexical_name, tenant_database
from shards.vectors import ChunkVector
from tests.ingestion.damage import Stores, fsck, opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess


@pytest.fixture(scope="module")
async def stores(stack: StackState) -> AsyncIterator[Stores]:
    async with opened(stack) as found:
        yield found


def vector(dim: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    made = np.zeros(dim, dtype=np.float32)
    made[0] = 1.0
    return made


def mendable(differences: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Without the originals that other tests have taken away: those cannot be mended."""
    found = {store: dict(kinds) for store, kinds in differences.items()}
    found.get("objects", {}).pop("missing", None)
    return {store: kinds for store, kinds in found.items() if kinds}


async def test_what_belongs_to_no_tenant_is_found_and_removed(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, stack: StackState
) -> None:
    await tenant.upload("The harbour master keeps a log.", external_id="log")
    await fsck(admin, repair=True)  # what other tests left
    live = (await stores.live(tenant)).space
    nobody = uuid4()
    own, isolated = Space(nobody, 1, 8), Space(nobody, 2, 8, "isolated")
    for space in (own, isolated):
        await stores.vectors.create(space, cells=1)
    lodger = Space(nobody, 1, live.dim, "pooled", live.bucket)
    foreign = Space(UUID(tenant.id), 99, live.dim, "pooled", live.bucket)
    for space, count in ((lodger, 2), (foreign, 3)):
        rows = [ChunkVector(uuid4(), 1, vector(live.dim)) for _ in range(count)]
        await stores.vectors.insert(space, {0: rows})
    await stores.lexical.insert(lexical_name(nobody), [ChunkText(uuid4(), 1, "", "nobody")])
    folder = Path(stack.env["TESSERA_OBJECTS_URL"].removeprefix("file://")) / "tenants" / str(nobody) / str(uuid4())
    folder.mkdir(parents=True)
    for name in ("1", "2"):
        (folder / name).write_bytes(b"nobody's")

    expected = {"vectors": {"orphan": 4, "wrong_tenant": 3}, "lexical": {"orphan": 1}, "objects": {"orphan": 2}}
    seen = await fsck(admin)
    assert mendable(seen["differences"]) == expected, seen
    mended = await fsck(admin, repair=True)
    assert (mendable(mended["differences"]), mendable(mended["left"])) == (expected, {}), mended
    assert mendable((await fsck(admin))["differences"]) == {}
    names = {place.collection for place in await stores.vectors.places()}
    assert not any(name.startswith(collection_prefix(nobody)) for name in names)
    assert tenant_database(nobody) not in {place.database for place in await stores.vectors.places()}
    assert lexical_name(nobody) not in await stores.lexical.indexes()
    assert str(nobody) not in await stores.objects.tenants()
    assert (await tenant.search("harbour log", k=1))[0]["external_id"] == "log", "whose rows lie beside it"


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
    ended, made = asyncio.Event(), dict[str, str]()

    async def write() -> None:
        while not ended.is_set():
            name = str(random_.randrange(12))
            if name in made and random_.random() < 0.4:
                await tenant.client.delete(f"/v1/documents/{made.pop(name)}")
            else:
                text = f"# Log {name}\n\nEntry {random_.random()}\n\n# More\n\nHarbour {random_.random()}"
                files = {"file": (f"{name}.md", text.encode())}
                answer = await tenant.client.post("/v1/documents", files=files, data={"external_id": name})
                made[name] = answer.json()["document"]["id"]
            await asyncio.sleep(random_.random() / 10)

    async def move() -> None:
        for tier in ("dedicated", "isolated", "pooled", "dedicated", "auto"):
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
    """Wait for the tenant's jobs, but for the dropping of an index that others may still read, which is put off."""
    for job in (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]:
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
            for name in names:
                text = f"# Log {name}\n\nBeacon {name} burns oil.\n\n# More\n\nKeeper {name} rows."
                await tenant.upload(text, f"{name}.md", external_id=name)
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
            await stores.vectors.insert(space, {0: [ChunkVector(uuid4(), version, vector(space.dim))]})
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
