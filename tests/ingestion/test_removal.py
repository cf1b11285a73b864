"""What was deleted goes for good: whatever fails meanwhile, and whatever was under way when it was deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from sqlalchemy import delete, func, select, update

from ingestion import jobs, regular, removal
from ingestion.models import Job
from ingestion.upload_rows import Identity, Upload, find_same
from shards.index import TenantIndexes
from shards.models import Document
from shards.settings import ShardSettings
from shards.vectors import ChunkVector
from tenants.auth import PLATFORM
from tenants.errors import Conflict, Unavailable
from tenants.models import Tenant
from tests.ingestion.damage import Stores, fsck, index_folder, opened
from tests.ingestion.runtimes import part_of_runtime

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tenants.db import Database
    from tests.conftest import TenantAccess

LEASE = timedelta(seconds=30)


@pytest.fixture(scope="module")
async def stores(stack: StackState) -> AsyncIterator[Stores]:
    async with opened(stack) as found:
        yield found


@pytest.fixture
async def tenant_id(worker_database: Database) -> AsyncIterator[UUID]:
    """A tenant of the database that no worker looks at."""
    made = uuid4()
    async with worker_database.admin() as session, session.begin():
        values = {"name": "n", "plan": "p", "state": "active", "placement": "auto", "settings": {}}
        session.add(Tenant(id=made, slug=str(made), **values))
    yield made
    async with worker_database.erasure(made) as session, session.begin():
        await session.execute(delete(Job).where(Job.tenant_id == made))
        await session.execute(delete(Tenant).where(Tenant.id == made))


@pytest.mark.parametrize("kind", ["delete", "purge", "erase_tenant", "drop_generation"])
async def test_a_removal_is_never_given_up(worker_database: Database, tenant_id: UUID, kind: str) -> None:
    batch_id, now = uuid4(), datetime.now(UTC)
    async with worker_database.tenant(tenant_id) as session, session.begin():
        job = jobs.new_job(tenant_id, kind)
        job.attempts, job.batch_id, job.lease_until = 40, batch_id, now + LEASE
        session.add(job)
    async with worker_database.tenant(tenant_id) as session, session.begin():
        [claimed] = await jobs.claim(session, tenant_id, batch_id, lease=LEASE, max_attempts=3)
        error = Conflict("not even retryable")
        assert await jobs.fail(session, tenant_id, {claimed.id: error}, max_attempts=3) == set()
    async with worker_database.tenant(tenant_id) as session:
        after = await session.get_one(Job, (tenant_id, job.id))
    assert (after.state, after.attempts, after.error["code"]) == ("retrying", 41, "conflict")
    assert after.not_before is not None
    assert timedelta(minutes=50) < after.not_before - now < timedelta(minutes=70), "after an ever longer pause"


async def test_an_ingestion_that_loses_its_worker_too_often_is_over(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    """Its version fails with it, and what an attempt left in the engines goes."""
    await tenant.upload("The lamp is lit at dusk.", external_id="lamp")
    mine = UUID(tenant.id)
    batch_id = uuid4()
    answer = await tenant.client.post("/v1/documents", files={"file": ("a.txt", b"Oil is brought by boat.")})
    document_id = answer.json()["document"]["id"]
    await tenant.job(answer.json()["job"]["id"])
    rows = await stores.sql(tenant, "SELECT version_no FROM document_versions WHERE document_id = :d", d=document_id)
    async with stores.database.tenant(mine) as session, session.begin():
        # As a worker leaves it that is killed each time between the engines and the commit.
        job = update(Job).where(Job.document_id == UUID(document_id))
        lost = {"state": "retrying", "attempts": 3, "batch_id": batch_id, "lease_until": datetime.now(UTC) + LEASE}
        await session.execute(job.values(**lost))
    await stores.sql(tenant, "DELETE FROM chunks WHERE document_id = :d", d=document_id)
    await stores.sql(tenant, "DELETE FROM chunk_cells WHERE version_no = :v", v=rows[0].version_no)
    await stores.sql(tenant, "UPDATE micro_cells SET rows = 1")
    await stores.sql(tenant, "UPDATE index_generations SET rows = 1")
    unserved = "UPDATE documents SET state = 'pending', active_version = NULL, active_version_no = NULL WHERE id = :d"
    await stores.sql(tenant, unserved, d=document_id)
    await stores.sql(tenant, "UPDATE document_versions SET state = 'pending' WHERE document_id = :d", d=document_id)
    assert (await fsck(admin, tenant))["total"] == 0, "it is on its way still"
    async with stores.database.tenant(mine) as session, session.begin():
        assert await jobs.claim(session, mine, batch_id, lease=LEASE, max_attempts=3) == []
    for job_row in (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]:
        await tenant.job(job_row["id"])
    assert (await tenant.client.get(f"/v1/documents/{document_id}")).json()["state"] == "failed"
    assert (await fsck(admin, tenant, deep=True))["total"] == 0
    assert len(await stores.rows(tenant)) == 1


async def test_a_document_deleted_while_it_is_ingested_leaves_nothing(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    await tenant.upload("What stays.", external_id="stays")

    async def receipt(pause_s: float) -> dict[str, Any]:
        rows = "\n\n".join(f"On day {n} came {n} crates of lamp oil after {pause_s} hours." for n in range(150))
        answer = await tenant.client.post(
            "/v1/documents", files={"file": ("ledger.md", f"# Ledger\n\n{rows}".encode())}
        )
        await asyncio.sleep(pause_s)
        gone = await tenant.client.delete(f"/v1/documents/{answer.json()['document']['id']}")
        result: dict[str, Any] = (await tenant.job(gone.json()["job"]["id"]))["result"]
        await tenant.job(answer.json()["job"]["id"])
        return result

    receipts = await asyncio.gather(*map(receipt, (0.0, 0.2, 0.6, 1.2)))
    assert [hit["external_id"] for hit in await tenant.search("crates of lamp oil")] == ["stays"]
    assert all(set(receipt["verified"].values()) == {0} for receipt in receipts)
    for job in (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]:
        await tenant.job(job["id"])
    assert (await fsck(admin, tenant, deep=True))["total"] == 0
    assert len(await stores.rows(tenant)) == 1
    assert len(await stores.objects.list_tenant(UUID(tenant.id))) == 1


async def test_a_document_deleted_while_its_old_versions_are_purged_waits_for_its_own_turn(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    """Deleting takes no lock, so it may come between the two transactions of a purge. What the first did not take out
    of the counts stays for the job of the deletion."""
    made = await tenant.upload("The bell is rung in fog.", external_id="bell")
    mine, document_id = UUID(tenant.id), UUID(made["document"]["id"])
    indexes = TenantIndexes(stores.vectors, stores.lexical, ShardSettings(), embedder="all-MiniLM-L6-v2", dim=384)
    runtime = part_of_runtime(database=stores.database, indexes=indexes, objects=stores.objects)
    async with stores.database.writer_lock(mine), stores.database.tenant(mine) as session:
        forgotten = await removal.forget_document(session, runtime, mine, document_id)
        await session.commit()
        assert forgotten == frozenset(), "nothing of it is to go"
        gone = await tenant.client.delete(f"/v1/documents/{document_id}")
        with pytest.raises(Unavailable, match="deleted meanwhile"):
            await removal.purge_document(session, runtime, mine, document_id, forgotten)
    assert (await tenant.job(gone.json()["job"]["id"]))["state"] == "done"
    assert await stores.sql(tenant, "SELECT FROM chunk_cells") == []
    assert (await fsck(admin, tenant, deep=True))["total"] == 0


async def test_an_upload_beside_a_delete_is_not_deleted_with_it(tenant: TenantAccess) -> None:
    """Of an upload and a delete of one document at the same time, the one that is answered last is what holds."""
    left = []

    async def race(number: int) -> None:
        made = await tenant.upload(f"Tide {number}.", external_id=f"tide {number}")
        path = f"/v1/documents/{made['document']['id']}"
        files, form = {"file": ("t.txt", f"High tide {number}.".encode())}, {"external_id": f"tide {number}"}
        deleted, uploaded = await asyncio.gather(
            tenant.client.delete(path), tenant.client.post("/v1/documents", files=files, data=form)
        )
        assert (deleted.status_code, uploaded.status_code) == (202, 202)
        await tenant.job(uploaded.json()["job"]["id"])
        await tenant.job(deleted.json()["job"]["id"])
        same = uploaded.json()["document"]["id"] == made["document"]["id"]
        found = await tenant.client.get(f"/v1/documents/{uploaded.json()['document']['id']}")
        # A new version of it, then deleted; or deleted first, and then another document.
        assert found.status_code == (404 if same else 200), number
        left.extend([] if same else [f"tide {number}"])

    await asyncio.gather(*map(race, range(12)))
    assert sorted(hit["external_id"] for hit in await tenant.search("High tide", k=20)) == sorted(left)


async def test_a_cancelled_ingestion_leaves_nothing(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    await tenant.upload("The jetty was rebuilt.", external_id="jetty")
    text = "# Ledger\n\n" + "\n\n".join(f"On day {n} came {n} crates of lamp oil for the tower." for n in range(300))
    answer = await tenant.client.post("/v1/documents", files={"file": ("ledger.md", text.encode())})
    job, document = answer.json()["job"]["id"], answer.json()["document"]["id"]
    while (await tenant.client.get(f"/v1/jobs/{job}")).json()["state"] == "queued":
        await asyncio.sleep(0.02)
    version = "SELECT version_no FROM document_versions WHERE document_id = :d"
    [[number]] = await stores.sql(tenant, version, d=document)
    space = (await stores.live(tenant)).space
    vector = np.zeros(space.dim, dtype=np.float32)
    vector[0] = 1.0
    await stores.vectors.insert(space, {0: [ChunkVector(uuid4(), number, vector)]})  # as if written and not committed
    cancelled = (await tenant.client.post(f"/v1/jobs/{job}/cancel")).status_code == 200
    for one in (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]:
        await tenant.job(one["id"])
    if not cancelled:  # it was done already, so the stray row is one that nobody wrote
        await fsck(admin, tenant, repair=True)
    assert (await fsck(admin, tenant, deep=True))["total"] == 0
    assert not cancelled or len(await stores.rows(tenant)) == 1


async def test_a_tenant_whose_lexical_index_is_damaged_is_erased(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores, stack: StackState
) -> None:
    await tenant.upload("The slipway was tarred.")
    folder = index_folder(stack, stores.index(tenant))
    (folder / "meta.json").write_text("{")
    answer = await admin.delete(f"/v1/admin/tenants/{tenant.id}")
    for _ in range(600):
        job = (await admin.get(answer.headers["location"])).json()
        if job["state"] in ("done", "failed", "retrying"):
            break
        await asyncio.sleep(0.05)
    assert job["state"] == "done", job
    assert not folder.exists()


async def test_checks_come_round_for_every_tenant(worker_database: Database, tenant_id: UUID) -> None:
    async def due(kind: str) -> bool:
        async with worker_database.dispatcher() as session:
            return tenant_id in await regular.due(session, kind, 60.0)

    async def age(**ages: str) -> None:
        async with worker_database.admin() as session, session.begin():
            old = datetime.now(UTC) - timedelta(minutes=5)
            await session.execute(update(Tenant).where(Tenant.id == tenant_id).values(created_at=old, **ages))

    assert not await due("fsck"), "a new tenant is not checked at once"
    await age()
    assert await due("fsck")
    assert not await due("retention"), "it never had a retention"
    await age(settings={"retention": {"keep_versions": 2}})
    assert await due("retention")
    for state, blocks in (("running", True), ("retrying", False)):
        async with worker_database.tenant(PLATFORM) as session, session.begin():
            await session.execute(delete(Job).where(Job.tenant_id == PLATFORM))
            session.add(jobs.new_job(PLATFORM, "fsck"))
            await session.flush()
            await session.execute(update(Job).where(Job.tenant_id == PLATFORM).values(state=state))
        assert await due("fsck") is not blocks, state
    async with worker_database.tenant(PLATFORM) as session, session.begin():
        await session.execute(delete(Job).where(Job.tenant_id == PLATFORM))
    for kind in ("fsck", "retention"):
        async with worker_database.tenant(tenant_id) as session, session.begin():
            await regular.queue(session, tenant_id, kind, {})
        assert not await due(kind), "it is queued"
    async with worker_database.tenant(tenant_id) as session, session.begin():
        await session.execute(update(Job).values(state="done", finished_at=datetime.now(UTC)))
    assert not await due("fsck"), "it was just done"
    async with worker_database.tenant(tenant_id) as session, session.begin():
        long_ago = datetime.now(UTC) - timedelta(days=40)
        await session.execute(update(Job).values(created_at=long_ago, finished_at=long_ago))
    assert await due("fsck")
    async with worker_database.tenant(tenant_id) as session, session.begin():
        await regular.queue(session, tenant_id, "fsck", {})
    async with worker_database.tenant(tenant_id) as session:
        kinds = [job.kind for job in await session.scalars(select(Job).where(Job.tenant_id == tenant_id))]
    assert sorted(kinds) == ["fsck", "retention"], "how the last but one went is forgotten"


async def test_an_upload_waits_for_a_delete_that_is_about_to_commit(tenant: TenantAccess, stores: Stores) -> None:
    """Else its new version would belong to a document that is gone when it is answered."""
    mine = UUID(tenant.id)
    await tenant.upload("Tide 1.", external_id="tide")
    upload = Upload("t.txt", "text/plain", "txt", 7, b"other", "tide", None, None)

    async def found() -> dict[Identity, object]:
        async with stores.database.tenant(mine) as session:
            return dict(await find_same(session, mine, [upload]))

    assert list(await found()) == ["tide"]
    async with stores.database.tenant(mine) as deleting:
        await deleting.execute(update(Document).where(Document.external_id == "tide").values(deleted_at=func.now()))
        looking = asyncio.create_task(found())
        await asyncio.sleep(0.3)
        await deleting.commit()
    assert await looking == {}
