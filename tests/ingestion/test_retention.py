"""How many versions a tenant keeps, how old its documents may grow, and deleting many at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from ingestion import jobs, retention
from ingestion.deletes import delete_documents
from tests.ingestion.damage import Stores, fsck, opened

if TYPE_CHECKING:
    import httpx

    from service.local.state import StackState
    from tests.conftest import TenantAccess


@pytest.fixture(scope="module")
async def stores(stack: StackState) -> AsyncIterator[Stores]:
    async with opened(stack) as found:
        yield found


async def sweep(stores: Stores, tenant: TenantAccess) -> dict[str, Any]:
    """Do what the scheduler does once a day, and wait for all that follows."""
    async with stores.database.tenant(UUID(tenant.id)) as session, session.begin():
        job = jobs.new_job(UUID(tenant.id), "retention")
        session.add(job)
    done = await tenant.job(str(job.id))
    assert done["state"] == "done", done
    await settled(tenant)
    result: dict[str, Any] = done["result"]
    return result


async def settled(tenant: TenantAccess) -> None:
    for job in (await tenant.client.get("/v1/jobs", params={"limit": 100})).json()["items"]:
        await tenant.job(job["id"])


async def keep(admin: httpx.AsyncClient, tenant: TenantAccess, **retention: Any) -> None:
    answer = await admin.patch(f"/v1/admin/tenants/{tenant.id}", json={"settings": {"retention": retention}})
    assert answer.status_code == 200, answer.text


async def versions(tenant: TenantAccess, document_id: str) -> list[tuple[int, str, bool]]:
    items = (await tenant.client.get(f"/v1/documents/{document_id}/versions")).json()["items"]
    return [(item["version"], item["state"], item["current"]) for item in items]


async def test_the_newest_versions_stay_downloadable_and_are_not_searched(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    await keep(admin, tenant, keep_versions=3)
    for number in range(1, 6):
        made = await tenant.upload(f"Tide table number {number} of the harbour.", external_id="tides")
        await settled(tenant)
    path = f"/v1/documents/{made['document']['id']}"
    assert await versions(tenant, made["document"]["id"]) == [
        (5, "active", True),
        (4, "kept", False),
        (3, "kept", False),
    ]
    for number, status in ((5, 200), (4, 200), (3, 200), (2, 404), (6, 404), (0, 404)):
        content = await tenant.client.get(f"{path}/versions/{number}/content")
        assert content.status_code == status, number
        assert status == 404 or content.text == f"Tide table number {number} of the harbour."
    assert [hit["version"] for hit in await tenant.search("tide table of the harbour", k=10)] == [5]
    assert len(await stores.rows(tenant)) == 1
    assert (await fsck(admin, tenant, deep=True))["total"] == 0

    await keep(admin, tenant, keep_versions=2)
    assert await sweep(stores, tenant) == {"deleted": 0, "purged": 1}
    assert [version for version, _, _ in await versions(tenant, made["document"]["id"])] == [5, 4]
    await keep(admin, tenant)
    await sweep(stores, tenant)
    assert [version for version, _, _ in await versions(tenant, made["document"]["id"])] == [5]
    assert len(await stores.objects.list_tenant(UUID(tenant.id))) == 1
    receipt = (await tenant.client.delete(path)).json()
    assert (await tenant.job(receipt["job"]["id"]))["result"]["versions"] == 1


async def test_deleting_takes_the_kept_versions_too(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    await keep(admin, tenant, keep_versions=9)
    for number in range(3):
        made = await tenant.upload(f"Ledger {number}", external_id="ledger")
    await settled(tenant)
    path = f"/v1/documents/{made['document']['id']}"
    answer = await tenant.client.delete(path)
    assert (await tenant.client.get(f"{path}/versions")).status_code == 404
    assert (await tenant.client.get(f"{path}/versions/1/content")).status_code == 404
    receipt = (await tenant.job(answer.json()["job"]["id"]))["result"]
    assert (receipt["objects"], receipt["versions"]) == (3, 3)
    assert await stores.objects.list_tenant(UUID(tenant.id)) == []


async def age(stores: Stores, tenant: TenantAccess, external_id: str, *, days: int) -> UUID:
    """Let a document and its versions be older; return its id."""
    values = {"name": external_id, "days": days}
    older = "now() - make_interval(days => :days)"
    mine = f"UPDATE documents SET updated_at = {older} WHERE external_id = :name RETURNING id"
    [row] = await stores.sql(tenant, mine, **values)
    versions = f"UPDATE document_versions SET created_at = {older} WHERE document_id = :id"
    await stores.sql(tenant, versions, id=row.id, days=days)
    found: UUID = row.id
    return found


async def delete_aged(stores: Stores, tenant: TenantAccess) -> int:
    async with stores.database.tenant(UUID(tenant.id)) as session, session.begin():
        return await retention.delete_aged(session, UUID(tenant.id))


async def test_a_document_with_a_new_version_on_its_way_is_not_old(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    """What was answered with 202 is kept, however long it waits to be ingested."""
    await keep(admin, tenant, max_age_days=90)
    await tenant.upload("Pilotage rules, first.", external_id="rules")
    document = await age(stores, tenant, "rules", days=91)
    await stores.sql(tenant, "UPDATE documents SET latest_version = 2 WHERE id = :id", id=document)
    assert await delete_aged(stores, tenant) == 0, "its newest version commits beside the sweep, which cannot see it"
    add = (
        "INSERT INTO document_versions (tenant_id, document_id, version, title, title_given, filename, content_type,"
        " format, size_bytes, content_sha256, object_key, metadata, state) SELECT tenant_id, document_id, 2, title,"
        " title_given, filename, content_type, format, size_bytes, content_sha256, left(object_key, -1) || '2',"
        " metadata, 'pending' FROM document_versions"
    )
    await stores.sql(tenant, add)
    assert await delete_aged(stores, tenant) == 0
    await stores.sql(tenant, "UPDATE document_versions SET created_at = now() - interval '91 days'")
    assert await delete_aged(stores, tenant) == 1
    await settled(tenant)


async def test_what_a_source_lists_does_not_age(admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores) -> None:
    """A source that has it unchanged would bring it back, or, where it trusts its stamp, never again."""
    await keep(admin, tenant, max_age_days=7)
    await tenant.upload("The mole is 900 m long.", external_id="mole")
    document = await age(stores, tenant, "mole", days=8)
    source, values = uuid4(), {"owner": UUID(tenant.id)}
    made = (
        "INSERT INTO sources (tenant_id, id, name, kind, config, on_vanish, misses, state)"
        " VALUES (:owner, :source, 'wiki', 'web', '{}', 'delete', 3, 'active')"
    )
    await stores.sql(tenant, made, source=source, **values)
    entry = (
        "INSERT INTO source_entries (tenant_id, source_id, key, document_id, run_id)"
        " VALUES (:owner, :source, 'mole', :document, :source)"
    )
    await stores.sql(tenant, entry, source=source, document=document, **values)
    assert await delete_aged(stores, tenant) == 0
    await stores.sql(tenant, "DELETE FROM source_entries")
    assert await delete_aged(stores, tenant) == 1
    await settled(tenant)


async def test_documents_grow_no_older_than_they_may(
    admin: httpx.AsyncClient, tenant: TenantAccess, stores: Stores
) -> None:
    old = await tenant.upload("The buoy was painted in spring.", external_id="old")
    await tenant.upload("The buoy was painted in autumn.", external_id="new")
    await age(stores, tenant, "old", days=8)
    assert await sweep(stores, tenant) == {"deleted": 0, "purged": 0}, "without a limit nothing is too old"
    await keep(admin, tenant, max_age_days=7)
    assert (await sweep(stores, tenant))["deleted"] == 1
    assert [hit["external_id"] for hit in await tenant.search("painted buoy", k=5)] == ["new"]
    assert (await tenant.client.get(f"/v1/documents/{old['document']['id']}")).status_code == 404
    assert (await fsck(admin, tenant))["total"] == 0


async def test_a_document_is_deleted_once(tenant: TenantAccess, stores: Stores) -> None:
    """Of two who delete it at the same moment one has it done."""
    document = UUID((await tenant.upload("Flotsam."))["document"]["id"])
    async with stores.database.tenant(UUID(tenant.id)) as session, session.begin():
        deleted = [await delete_documents(session, UUID(tenant.id), [document]) for _ in range(2)]
    assert [list(jobs_) for jobs_ in deleted] == [[document], []]
    assert (await tenant.client.delete(f"/v1/documents/{document}")).status_code == 404
    await settled(tenant)


@pytest.mark.parametrize("body", [{}, {"ids": []}, {"external_ids": []}, {"filter": {}}, {"ids": None}])
async def test_naming_nothing_deletes_nothing(tenant: TenantAccess, body: dict[str, Any]) -> None:
    await tenant.upload("Still here.", external_id="a")
    answer = await tenant.client.post("/v1/documents/delete", json=body)
    assert answer.status_code == 422, answer.text
    assert len((await tenant.client.get("/v1/documents")).json()["items"]) == 1


async def test_many_are_deleted_at_one_instant(tenant: TenantAccess, other_tenant: TenantAccess) -> None:
    made = [
        (await tenant.upload(f"Crate {n}", external_id=str(n), metadata=f'{{"pier": {n % 2}}}'))["document"]["id"]
        for n in range(6)
    ]
    foreign = (await other_tenant.upload("Crate 0", external_id="0"))["document"]["id"]
    for body, gone in (
        ({"ids": [made[0], foreign]}, ["0"]),
        ({"external_ids": ["1", "nobody"]}, ["1"]),
        ({"filter": {"pier": {"eq": 1}}}, ["3", "5"]),
    ):
        answer = await tenant.client.post("/v1/documents/delete", json=body)
        assert answer.status_code == 202, answer.text
        assert sorted(item["external_id"] for item in answer.json()["items"]) == gone
        assert not answer.json()["more"]
        for item in answer.json()["items"]:
            assert (await tenant.job(item["job"]["id"]))["result"]["verified"]["vectors"] == 0
    left = (await tenant.client.get("/v1/documents")).json()["items"]
    assert sorted(document["external_id"] for document in left) == ["2", "4"]
    assert len(await other_tenant.search("crate", k=5)) == 1
