"""What the dispatcher gives out for a tenant that is suspended or being deleted: what was deleted leaves the stores."""

from __future__ import annotations

from tests.ingestion.queue_rows import Queue


async def worked_off(queue: Queue) -> list[str]:
    """Dispatch until nothing is given out, finishing each batch; return the kinds of work in order."""
    queue.start(in_flight=1, background_in_flight=1)
    while await queue.tick():
        for batch in queue.sent[-2:]:
            await queue.finish(batch)
    return [batch.task.removeprefix("ingestion.") for batch in queue.sent]


async def test_a_suspended_tenants_jobs_wait(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    await queue.add(tenant_id, 2)
    await queue.become(tenant_id, "suspended")
    assert await queue.tick() == 0
    await queue.become(tenant_id, "active")
    assert await queue.tick() == 1


async def test_of_a_tenant_that_is_being_deleted_the_erasure_comes_first_and_nothing_else_goes_on(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    for kind in ("ingest", "delete", "delete", "purge", "erase_tenant", "sync", "reembed", "fsck"):
        await queue.add(tenant_id, kind=kind)
    await queue.become(tenant_id, "deleting")
    assert sorted(await worked_off(queue)) == ["erase_tenant", "fsck"]


async def test_of_a_suspended_tenant_what_was_deleted_still_leaves_the_stores(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    for kind in ("ingest", "delete", "sync", "purge", "reembed", "partition"):
        await queue.add(tenant_id, kind=kind)
    await queue.become(tenant_id, "suspended")
    assert await worked_off(queue) == ["purge", "purge"]
    assert await queue.states(tenant_id) == {"done": 2, "queued": 4}


async def test_the_erasure_of_a_suspended_tenant_comes_before_its_removals(queue: Queue) -> None:
    tenant_id = queue.tenants[0]
    queue.start(in_flight=1)
    await queue.add(tenant_id, 3, kind="delete")
    await queue.add(tenant_id, kind="erase_tenant")
    await queue.become(tenant_id, "suspended")
    await queue.tick()
    assert [batch.task for batch in queue.sent] == ["ingestion.erase_tenant"]
