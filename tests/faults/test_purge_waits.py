"""What is removed is not overtaken by what a worker may still be writing: the purge waits for the ingestion to end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.faults.inside import superuser

if TYPE_CHECKING:
    from service.local.state import StackState
    from tests.conftest import TenantAccess

_HELD = "UPDATE jobs SET state = 'running', batch_id = gen_random_uuid(), lease_until = now() + interval '1 hour'"
_ENDED = "UPDATE jobs SET state = 'done', batch_id = NULL, lease_until = NULL"


async def test_a_delete_is_invisible_at_once_and_its_purge_waits(stack: StackState, tenant: TenantAccess) -> None:
    sent = await tenant.upload("The stoker keeps a canary in the boiler room.")
    with superuser(stack) as connection:
        connection.execute(f"{_HELD} WHERE id = %s", [sent["job"]["id"]])
        gone = (await tenant.client.delete(f"/v1/documents/{sent['document']['id']}")).json()
        assert await tenant.search("canary in the boiler room") == []
        while (job := (await tenant.client.get(f"/v1/jobs/{gone['job']['id']}")).json())["state"] != "retrying":
            assert job["state"] in ("queued", "running"), job
            await asyncio.sleep(0.05)
        assert (job["error"]["code"], job["attempts"]) == ("document_busy", 0)
        connection.execute(f"{_ENDED} WHERE id = %s", [sent["job"]["id"]])
    done = await tenant.job(gone["job"]["id"])
    assert (done["state"], done["result"]["vectors"], done["result"]["lexical"]) == ("done", 1, 1)
